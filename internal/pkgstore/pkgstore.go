package pkgstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"

	"github.com/sluice-gateway/sluice/internal/atomicfile"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Config bounds what a package may be. Zero means the default.
type Config struct {
	Dir      string
	MaxBytes int64 // all files together; default 64 GiB
	MaxFiles int   // default 20,000
	MaxDepth int   // of directories; default 32
}

// Store keeps packages.
type Store struct {
	cfg Config
}

const (
	copyChunk    = 1 << 20
	maxPathBytes = 1024
)

var treeName = regexp.MustCompile(`^[0-9a-f]{64}$`)

// New opens the store, and creates its directories.
func New(cfg Config) (*Store, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 64 << 30
	}

	if cfg.MaxFiles <= 0 {
		cfg.MaxFiles = 20_000
	}

	if cfg.MaxDepth <= 0 {
		cfg.MaxDepth = 32
	}

	s := &Store{cfg: cfg}

	for _, dir := range []string{s.trees(), s.tmp()} {
		if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // engines of other users read packages
			return nil, fmt.Errorf("open package store: %w", err)
		}
	}

	return s, nil
}

func (s *Store) trees() string { return filepath.Join(s.cfg.Dir, "sha256") }
func (s *Store) tmp() string   { return filepath.Join(s.cfg.Dir, "tmp") }

// Path is where the package with a tree hash is, whether or not it exists.
func (s *Store) Path(tree string) string { return filepath.Join(s.trees(), tree) }

// Import copies the directory source into the store. A single file becomes a package of one
// file (an ONNX file is renamed to model.onnx); without a source the overlay is all there
// is. Files in overlay are written over those of the source.
// Errors that the source is to blame for are faults with the code ModelInvalid.
func (s *Store) Import(ctx context.Context, source string, overlay map[string][]byte) (spec.PackageRef, error) {
	var (
		root *os.Root
		only string
		err  error
	)

	if source != "" {
		if root, only, err = openSource(source); err != nil {
			return spec.PackageRef{}, err
		}
		defer root.Close() //nolint:errcheck // read only
	}

	work := filepath.Join(s.tmp(), rand.Text())
	if err := os.Mkdir(work, 0o755); err != nil { //nolint:gosec // becomes the package
		return spec.PackageRef{}, fmt.Errorf("import %s: %w", source, err)
	}
	defer os.RemoveAll(work) //nolint:errcheck // moved away on success; Clean gets the rest

	im := &importer{cfg: s.cfg, root: root, work: work, overlay: overlay, buf: make([]byte, copyChunk)}
	if err := im.run(ctx, only); err != nil {
		return spec.PackageRef{}, im.explain(source, err)
	}

	ref := spec.PackageRef{TreeSHA256: TreeHash(im.files), SizeBytes: im.size, Files: im.files}
	ref.Dir = s.Path(ref.TreeSHA256)

	if err := s.place(work, ref); err != nil {
		return spec.PackageRef{}, fmt.Errorf("import %s: %w", source, err)
	}

	return ref, nil
}

// TreeHash is the hash over the sorted list of "path NUL sha256 LF".
func TreeHash(files []spec.FileDigest) string {
	sorted := slices.SortedFunc(slices.Values(files), func(a, b spec.FileDigest) int { return strings.Compare(a.Path, b.Path) })
	h := sha256.New()

	for _, f := range sorted {
		_, _ = io.WriteString(h, f.Path+"\x00"+f.SHA256+"\n") // a hash never fails
	}

	return hex.EncodeToString(h.Sum(nil))
}

// place makes the finished directory durable and gives it its name.
func (s *Store) place(work string, ref spec.PackageRef) error {
	err := filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}

		return atomicfile.SyncDir(path)
	})
	if err != nil {
		return fmt.Errorf("sync package: %w", err)
	}

	err = os.Rename(work, ref.Dir)
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return s.share(work, ref) // the same content came before
	}

	if err != nil {
		return fmt.Errorf("place package: %w", err)
	}

	return atomicfile.SyncDir(s.trees())
}

// share lets a package that exists serve this import too: what may be executed here may be
// executed there.
func (s *Store) share(work string, ref spec.PackageRef) error {
	for _, f := range ref.Files {
		rel := filepath.FromSlash(f.Path)

		info, err := os.Stat(filepath.Join(work, rel))
		if err != nil {
			return fmt.Errorf("share package: %w", err)
		}

		if info.Mode()&0o111 == 0 {
			continue
		}

		if err := os.Chmod(filepath.Join(ref.Dir, rel), 0o555); err != nil { //nolint:gosec // an executable of the package
			return fmt.Errorf("share package: %w", err)
		}
	}

	if err := s.touch(ref.TreeSHA256); err != nil {
		return fmt.Errorf("share package: %w", err)
	}

	return nil
}

// Verify reads a package again and compares it with ref.
func (s *Store) Verify(ctx context.Context, ref spec.PackageRef) error {
	root, err := os.OpenRoot(s.Path(ref.TreeSHA256))
	if err != nil {
		return fmt.Errorf("verify package: %w", err)
	}
	defer root.Close() //nolint:errcheck // read only

	im := &importer{cfg: s.cfg, root: root, buf: make([]byte, copyChunk)}
	if err := im.walk(ctx, ".", 0); err != nil {
		return fmt.Errorf("verify package %s: %w", ref.TreeSHA256, err)
	}

	if got := TreeHash(im.files); got != ref.TreeSHA256 {
		return fmt.Errorf("verify package %s: its files hash to %s", ref.TreeSHA256, got)
	}

	return nil
}

// Remove deletes a package. One that does not exist is no error.
func (s *Store) Remove(tree string) error {
	if !treeName.MatchString(tree) {
		return fmt.Errorf("remove package: %q is no tree hash", tree)
	}

	// Out of sight first, so that a cut-off removal leaves no half of a package.
	gone := filepath.Join(s.tmp(), rand.Text())
	if err := os.Rename(s.Path(tree), gone); err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}

		return fmt.Errorf("remove package %s: %w", tree, err)
	}

	if err := os.RemoveAll(gone); err != nil {
		return fmt.Errorf("remove package %s: %w", tree, err)
	}

	return nil
}

// Clean removes the remains of interrupted work and every package that keep does not want.
// Call it while nothing is imported.
func (s *Store) Clean(keep func(tree string) bool) error {
	var errs []error

	remains, err := os.ReadDir(s.tmp())
	errs = append(errs, err)

	for _, d := range remains {
		errs = append(errs, os.RemoveAll(filepath.Join(s.tmp(), d.Name())))
	}

	trees, err := os.ReadDir(s.trees())
	errs = append(errs, err)

	for _, d := range trees {
		if treeName.MatchString(d.Name()) && !keep(d.Name()) {
			errs = append(errs, s.Remove(d.Name()))
		}
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean package store: %w", err)
	}

	return nil
}

// openSource opens the directory, or the directory around a single file.
func openSource(source string) (root *os.Root, only string, err error) {
	info, err := os.Lstat(source)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		info, err = os.Stat(source) // the operator may have linked the whole package
	}

	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, "", fault.Wrap(fault.ModelInvalid, err, "source_location %s does not exist", source)
	case errors.Is(err, fs.ErrPermission):
		return nil, "", fault.Wrap(fault.ModelInvalid, err, "source_location %s may not be read", source)
	case err != nil:
		return nil, "", fault.Wrap(fault.ModelInvalid, err, "source_location %s cannot be read", source)
	case info.Mode().IsRegular():
		source, only = filepath.Split(source)
	case !info.IsDir():
		return nil, "", fault.New(fault.ModelInvalid, "source_location %s is neither a directory nor a file", source)
	}

	root, err = os.OpenRoot(source)
	if err != nil {
		return nil, "", fault.Wrap(fault.ModelInvalid, err, "source_location %s cannot be opened", source)
	}

	return root, only, nil
}
