package backup

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/spec"
)

// Source is what a backup is made of.
type Source struct {
	Store    *store.Store
	Packages *pkgstore.Store
	// Hold keeps packages from being removed until the function that it returns is called. It
	// is held while the state is read, not while the archive is written. Nil means that
	// nobody else is at work.
	Hold func() (release func())
	// Keyring and Bootstrap are files that open the secrets; "" leaves them out. A bootstrap
	// file that does not exist is left out too.
	Keyring, Bootstrap string
}

// writer makes one archive.
type writer struct {
	src      Source
	manifest Manifest
	spool    *os.File // state.jsonl
	packages []spec.PackageRef
	dir      string // of the packages, as they were when the state was read
	secrets  map[string][]byte
}

// Write writes an archive to out. The errors before the first byte are those of reading the
// state; a damaged package shows when its turn comes.
func Write(ctx context.Context, out io.Writer, src Source) (*Manifest, error) {
	spool, err := os.CreateTemp("", "sluice-backup-")
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}
	defer spool.Close() //nolint:errcheck // nobody needs it any more

	if err := os.Remove(spool.Name()); err != nil { // it stays readable
		return nil, fmt.Errorf("back up: %w", err)
	}

	w := &writer{src: src, spool: spool, manifest: Manifest{What: what, Format: Format, Created: time.Now().UTC().Truncate(time.Second)}}

	release, err := w.read(ctx)
	if err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}

	if err := errors.Join(w.write(ctx, out), release()); err != nil {
		return nil, fmt.Errorf("back up: %w", err)
	}

	return &w.manifest, nil
}

// read takes everything in its state of one moment.
func (w *writer) read(ctx context.Context) (release func() error, err error) {
	if w.src.Hold != nil {
		defer w.src.Hold()()
	}

	if err := w.state(ctx); err != nil {
		return nil, err
	}

	w.dir, release, err = w.src.Packages.Snapshot(w.packages)
	if err != nil {
		return nil, fmt.Errorf("packages: %w", err)
	}

	for i := range w.packages {
		for _, f := range w.packages[i].Files {
			name := w.packages[i].TreeSHA256 + "/" + f.Path

			info, err := os.Stat(filepath.Join(w.dir, filepath.FromSlash(name)))
			if err != nil {
				return nil, errors.Join(fmt.Errorf("packages: %w", err), release())
			}

			w.manifest.Files = append(w.manifest.Files, File{
				Path: packagesDir + name, Size: f.Size, SHA256: f.SHA256, Mode: info.Mode().Perm(),
			})
		}
	}

	return release, w.readSecrets()
}

// state spools the keys, and notes which packages they refer to.
func (w *writer) state(ctx context.Context) error {
	var (
		buf  bytes.Buffer
		hash = sha256.New()
		size int64
	)

	rev, err := w.src.Store.Dump(ctx, func(r store.Record) error {
		if err := store.CheckRecord(r); err != nil {
			return fmt.Errorf("read the state: %w", err)
		}

		buf.Reset()

		if err := encodeLine(&buf, r); err != nil {
			return err
		}

		n, err := io.MultiWriter(w.spool, hash).Write(buf.Bytes())
		size += int64(n)
		w.manifest.Records++

		if err != nil {
			return fmt.Errorf("spool the state: %w", err)
		}

		return w.note(r)
	})
	if err != nil {
		return err //nolint:wrapcheck // it says what it did
	}

	w.manifest.Revision = rev
	w.manifest.Files = append(w.manifest.Files, File{Path: stateName, Size: size, SHA256: hex.EncodeToString(hash.Sum(nil)), Mode: 0o600})

	return nil
}

// note keeps the package of a model.
func (w *writer) note(r store.Record) error {
	if !strings.HasPrefix(r.Key, store.KindModels+"/") {
		return nil
	}

	m, err := store.Decode[spec.Model](r)
	if err != nil {
		return err //nolint:wrapcheck // it names the key
	}

	known := slices.ContainsFunc(w.packages, func(p spec.PackageRef) bool { return p.TreeSHA256 == m.Package.TreeSHA256 })
	if m.Status != spec.ModelPublished || m.Package.TreeSHA256 == "" || m.Deleting {
		return nil
	}

	w.manifest.Models++

	if !known {
		w.packages = append(w.packages, m.Package)
	}

	return nil
}

func (w *writer) readSecrets() error {
	w.secrets = map[string][]byte{}

	for name, path := range map[string]string{keyringName: w.src.Keyring, bootstrapName: w.src.Bootstrap} {
		if path == "" {
			continue
		}

		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && name == bootstrapName {
			continue
		}

		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}

		sum := sha256.Sum256(data)
		w.secrets[name] = data
		w.manifest.Files = append(w.manifest.Files, File{Path: name, Size: int64(len(data)), SHA256: hex.EncodeToString(sum[:]), Mode: 0o600})
	}

	return nil
}

func (w *writer) write(ctx context.Context, out io.Writer) error {
	packed, err := gzip.NewWriterLevel(out, gzip.BestSpeed)
	if err != nil {
		return fmt.Errorf("compress: %w", err)
	}

	archive := tar.NewWriter(packed)

	head, err := json.MarshalIndent(&w.manifest, "", " ")
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}

	if err := w.add(archive, File{Path: manifestName, Size: int64(len(head)), Mode: 0o600}, bytes.NewReader(head)); err != nil {
		return err
	}

	for _, f := range w.manifest.Files {
		if err := ctx.Err(); err != nil {
			return err //nolint:wrapcheck // nobody wants it any more
		}

		if err := w.file(archive, f); err != nil {
			return err
		}
	}

	if err := errors.Join(archive.Close(), packed.Close()); err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}

	return nil
}

func (w *writer) file(archive *tar.Writer, f File) error {
	if data, ok := w.secrets[f.Path]; ok {
		return w.add(archive, f, bytes.NewReader(data))
	}

	if f.Path == stateName {
		return w.add(archive, f, io.NewSectionReader(w.spool, 0, f.Size))
	}

	in, err := os.Open(filepath.Join(w.dir, filepath.FromSlash(strings.TrimPrefix(f.Path, packagesDir))))
	if err != nil {
		return fmt.Errorf("packages: %w", err)
	}
	defer in.Close() //nolint:errcheck // read only

	return w.add(archive, f, in)
}

// add copies one file; one that is not what the manifest says ends the backup.
func (w *writer) add(archive *tar.Writer, f File, in io.Reader) error {
	head := tar.Header{Typeflag: tar.TypeReg, Name: f.Path, Size: f.Size, Mode: int64(f.Mode), ModTime: w.manifest.Created, Format: tar.FormatPAX}
	if err := archive.WriteHeader(&head); err != nil {
		return fmt.Errorf("write the archive: %s: %w", f.Path, err)
	}

	hash := sha256.New()

	n, err := io.Copy(io.MultiWriter(archive, hash), io.LimitReader(in, f.Size))
	if err != nil {
		return fmt.Errorf("write the archive: %s: %w", f.Path, err)
	}

	if sum := hex.EncodeToString(hash.Sum(nil)); n != f.Size || f.SHA256 != "" && sum != f.SHA256 {
		return fmt.Errorf("%s is not what was imported: %d bytes with SHA-256 %s, want %d with %s; the package is damaged", f.Path, n, sum, f.Size, f.SHA256)
	}

	return nil
}
