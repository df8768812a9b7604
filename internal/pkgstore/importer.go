package pkgstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// importer is one walk over a source. Without work it only hashes.
type importer struct {
	cfg     Config
	root    *os.Root
	work    string
	overlay map[string][]byte
	buf     []byte
	files   []spec.FileDigest
	size    int64
}

func (im *importer) run(ctx context.Context, only string) error {
	if err := im.source(ctx, only); err != nil {
		return err
	}

	for name, data := range im.overlay {
		if err := im.write(ctx, name, data); err != nil {
			return err
		}
	}

	if len(im.files) == 0 {
		return fault.New(fault.ModelInvalid, "the package is empty")
	}

	slices.SortFunc(im.files, func(a, b spec.FileDigest) int { return strings.Compare(a.Path, b.Path) })

	return nil
}

func (im *importer) source(ctx context.Context, only string) error {
	switch {
	case im.root == nil:
		return nil
	case only != "":
		return im.file(ctx, only, singleName(only))
	default:
		return im.walk(ctx, ".", 0)
	}
}

// singleName lets a lone ONNX file be the model of its package.
func singleName(name string) string {
	if strings.EqualFold(path.Ext(name), ".onnx") {
		return "model.onnx"
	}

	return name
}

func (im *importer) walk(ctx context.Context, dir string, depth int) error {
	if depth > im.cfg.MaxDepth {
		return fault.New(fault.ModelInvalid, "the package is nested deeper than %d directories", im.cfg.MaxDepth)
	}

	d, err := im.root.Open(dir)
	if err != nil {
		return err
	}

	entries, err := d.ReadDir(im.cfg.MaxFiles + 1)
	if err = errors.Join(err, d.Close()); err != nil && !errors.Is(err, io.EOF) {
		return err
	}

	if len(entries) > im.cfg.MaxFiles {
		return fault.New(fault.ModelInvalid, "the package has more than %d files", im.cfg.MaxFiles)
	}

	for _, e := range entries {
		if err := im.entry(ctx, path.Join(dir, e.Name()), e, depth); err != nil {
			return err
		}
	}

	return nil
}

func (im *importer) entry(ctx context.Context, name string, e fs.DirEntry, depth int) error {
	switch {
	case !utf8.ValidString(name) || strings.ContainsAny(name, "\x00\n\\") || len(name) > maxPathBytes:
		return fault.New(fault.ModelInvalid, "the package holds a file with an unusable name: %q", name)
	case e.IsDir():
		if im.work != "" {
			if err := os.Mkdir(filepath.Join(im.work, filepath.FromSlash(name)), 0o755); err != nil { //nolint:gosec // see New
				return err
			}
		}

		return im.walk(ctx, name, depth+1)
	case !e.Type().IsRegular():
		return fault.New(fault.ModelInvalid, "the package may hold plain files and directories only, %s is neither", name)
	}

	if _, replaced := im.overlay[name]; replaced {
		return nil
	}

	return im.file(ctx, name, name)
}

// file copies and hashes one file of the source.
func (im *importer) file(ctx context.Context, from, name string) error {
	// A name that was exchanged for a pipe meanwhile must not block us.
	in, err := im.root.OpenFile(from, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	defer in.Close() //nolint:errcheck // read only

	info, err := in.Stat()
	if err != nil {
		return err
	}

	if !info.Mode().IsRegular() {
		return fault.New(fault.ModelInvalid, "the package may hold plain files and directories only, %s is neither", name)
	}

	mode := fs.FileMode(0o444)
	if info.Mode()&0o111 != 0 {
		mode = 0o555
	}

	return im.store(ctx, name, in, mode)
}

func (im *importer) write(ctx context.Context, name string, data []byte) error {
	return im.store(ctx, name, strings.NewReader(string(data)), 0o444)
}

func (im *importer) store(ctx context.Context, name string, in io.Reader, mode fs.FileMode) (err error) {
	if len(im.files) >= im.cfg.MaxFiles {
		return fault.New(fault.ModelInvalid, "the package has more than %d files", im.cfg.MaxFiles)
	}

	sink := io.Discard

	if im.work != "" {
		out, err := os.OpenFile(filepath.Join(im.work, filepath.FromSlash(name)), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
		if err != nil {
			return err
		}

		defer func() { err = errors.Join(err, out.Chmod(mode), out.Sync(), out.Close()) }()

		sink = out
	}

	h := sha256.New()
	n, err := io.CopyBuffer(io.MultiWriter(h, sink), &bounded{ctx: ctx, in: in, left: im.cfg.MaxBytes - im.size}, im.buf)
	im.size += n

	if err != nil {
		return err
	}

	im.files = append(im.files, spec.FileDigest{Path: name, SHA256: hex.EncodeToString(h.Sum(nil)), Size: n})

	return nil
}

// explain tells mistakes of the source from trouble of our own.
func (im *importer) explain(source string, err error) error {
	var f *fault.Error

	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(err, errTooBig):
		return fault.New(fault.ModelInvalid, "the package is larger than %d bytes", im.cfg.MaxBytes)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Unavailable, err, "no space left for the package")
	case errors.Is(err, fs.ErrPermission), errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ELOOP):
		return fault.Wrap(fault.ModelInvalid, err, "a file of the package cannot be read: %s", relative(err))
	default:
		return fmt.Errorf("import %s: %w", source, err)
	}
}

func relative(err error) string {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Path
	}

	return "unknown"
}

var errTooBig = errors.New("too big")

// bounded ends a copy that is too long or not wanted any more.
type bounded struct {
	ctx  context.Context //nolint:containedctx // lives for one copy
	in   io.Reader
	left int64
}

// Read implements io.Reader.
func (b *bounded) Read(p []byte) (int, error) {
	if err := b.ctx.Err(); err != nil {
		return 0, err
	}

	n, err := b.in.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, errTooBig
	}

	return n, err
}
