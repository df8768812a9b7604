package backup

import (
	"archive/tar"
	"bufio"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/atomicfile"
)

// maxPadding bounds what may follow the last file; tar pads to a block.
const maxPadding = 1 << 20

// Verify reads an archive to its end and compares everything with its manifest.
func Verify(ctx context.Context, in io.Reader) (*Manifest, error) {
	return unpack(ctx, in, "")
}

// Restore makes the data directory dir of an archive. dir must not exist, or be empty; after an
// error it is as it was.
func Restore(ctx context.Context, in io.Reader, dir string, log *slog.Logger) (*Manifest, error) {
	return restore(ctx, in, dir, func(work string, place func() error) error {
		if err := load(ctx, work, log); err != nil {
			return err
		}

		return place()
	})
}

// RestoreShared is Restore with the state in st, which must be empty: both are there in the end, or neither. With
// again it removes first what an earlier restore into st left that did not come to its end.
func RestoreShared(ctx context.Context, in io.Reader, dir string, st *store.Store, again bool) (*Manifest, error) {
	return restore(ctx, in, dir, func(work string, place func() error) error {
		f, err := os.Open(filepath.Join(work, stateName))
		if err != nil {
			return err //nolint:wrapcheck // it names the file
		}
		defer f.Close() //nolint:errcheck // read only

		_, err = st.Restore(ctx, restorable(f), place, again)

		return err //nolint:wrapcheck // it says what it did
	})
}

// restore unpacks into a directory of its own; load takes the state from there, and calls place for the rest.
func restore(ctx context.Context, in io.Reader, dir string, load func(work string, place func() error) error) (m *Manifest, err error) {
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}

	if err := vacant(dir); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}

	if err := os.MkdirAll(filepath.Dir(dir), 0o700); err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}

	work, err := os.MkdirTemp(filepath.Dir(dir), "."+filepath.Base(dir)+".restore-")
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}

	placed := false

	defer func() {
		switch {
		case err == nil:
		case !placed:
			err = errors.Join(err, os.RemoveAll(work))
		case errors.Is(err, store.ErrUnfinished):
			err = fmt.Errorf("%w; %s was made nonetheless", err, dir)
		default:
			err = errors.Join(err, os.RemoveAll(dir)) // nobody has used it
		}
	}()

	m, err = unpack(ctx, in, work)
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}

	err = load(work, func() error {
		err := place(work, dir)
		placed = placed || err == nil

		return err
	})
	if err != nil {
		return nil, fmt.Errorf("restore: %w", err)
	}

	return m, nil
}

// vacant refuses a directory with anything in it.
func vacant(dir string) error {
	entries, err := os.ReadDir(dir)

	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err //nolint:wrapcheck // it names the directory
	case len(entries) > 0:
		return fmt.Errorf("%s is not empty (%s is there); give a new directory", dir, entries[0].Name())
	default:
		return nil
	}
}

// place makes work durable and gives it its name.
func place(work, dir string) error {
	if err := os.Remove(filepath.Join(work, stateName)); err != nil {
		return err //nolint:wrapcheck // it names the file
	}

	err := filepath.WalkDir(work, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}

		return atomicfile.SyncDir(path)
	})
	if err != nil {
		return err //nolint:wrapcheck // it names the directory
	}

	if err := os.Rename(work, dir); err != nil { // over an empty directory at most
		return err //nolint:wrapcheck // it names both
	}

	return atomicfile.SyncDir(filepath.Dir(dir)) //nolint:wrapcheck // it names the directory
}

// load writes the state into an etcd of its own.
func load(ctx context.Context, work string, log *slog.Logger) error {
	embedded, err := store.StartEmbedded(ctx, store.EmbeddedConfig{Dir: filepath.Join(work, "etcd")}, log)
	if err != nil {
		return err //nolint:wrapcheck // it says what it did
	}
	defer embedded.Close()

	f, err := os.Open(filepath.Join(work, stateName))
	if err != nil {
		return err //nolint:wrapcheck // it names the file
	}
	defer f.Close() //nolint:errcheck // read only

	_, err = store.New(embedded.Client(), "").Load(ctx, restorable(f))

	return err //nolint:wrapcheck // it says what it did
}

// restorable leaves out the instances: their processes belong to where the backup was made.
func restorable(in io.Reader) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		for r, err := range records(in) {
			if err == nil && strings.HasPrefix(r.Key, store.KindInstances+"/") {
				continue
			}

			if !yield(r, err) || err != nil {
				return
			}
		}
	}
}

func records(in io.Reader) iter.Seq2[store.Record, error] {
	return func(yield func(store.Record, error) bool) {
		lines := bufio.NewScanner(in)
		lines.Buffer(make([]byte, 0, 64<<10), maxRecordBytes)

		for n := 1; lines.Scan(); n++ {
			r, err := decodeLine(lines.Bytes())
			if err != nil {
				err = fmt.Errorf("%s, line %d: %w", stateName, n, err)
			}

			if !yield(r, err) || err != nil {
				return
			}
		}

		if err := lines.Err(); err != nil {
			yield(store.Record{}, fmt.Errorf("%s: %w", stateName, err))
		}
	}
}

// unpack checks an archive, and leaves its files in dir unless that is "".
func unpack(ctx context.Context, in io.Reader, dir string) (*Manifest, error) {
	packed, err := gzip.NewReader(bufio.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("%w: this is no backup of Sluice: %w", ErrDamaged, err)
	}

	archive := tar.NewReader(packed)

	m, err := readManifest(archive)
	if err != nil {
		return nil, err
	}

	for _, f := range m.Files {
		if err := ctx.Err(); err != nil {
			return nil, err //nolint:wrapcheck // nobody wants it any more
		}

		if err := unpackFile(archive, f, dir, m); err != nil {
			return nil, err
		}
	}

	head, err := archive.Next()
	if err == nil {
		return nil, damaged(head.Name, "it is not in the manifest")
	}

	if !errors.Is(err, io.EOF) {
		return nil, damaged("the end of the archive", "%v", err)
	}

	// What follows the last file is checked too: gzip has a checksum of its own.
	n, err := io.Copy(io.Discard, io.LimitReader(packed, maxPadding+1))
	if err != nil {
		return nil, damaged("the end of the archive", "%v", err)
	}

	if n > maxPadding {
		return nil, damaged("the end of the archive", "more than %d bytes follow the last file", maxPadding)
	}

	return m, nil
}

func readManifest(archive *tar.Reader) (*Manifest, error) {
	head, err := archive.Next()
	if err != nil {
		return nil, damaged(manifestName, "%v", err)
	}

	if head.Name != manifestName || head.Size > maxManifestBytes {
		return nil, fmt.Errorf("%w: this is no backup of Sluice: it begins with %q", ErrDamaged, head.Name)
	}

	data, err := io.ReadAll(archive)
	if err != nil {
		return nil, damaged(manifestName, "%v", err)
	}

	return parseManifest(data)
}

func unpackFile(archive *tar.Reader, f File, dir string, m *Manifest) (err error) {
	head, err := archive.Next()

	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return damaged(f.Path, "it is missing, the archive ends before it")
	case err != nil:
		return damaged(f.Path, "%v", err)
	case head.Name != f.Path || head.Typeflag != tar.TypeReg:
		return damaged(f.Path, "%q stands in its place", head.Name)
	case head.Size != f.Size:
		return damaged(f.Path, "%d bytes, the manifest says %d", head.Size, f.Size)
	}

	sink := io.Discard

	if dir != "" {
		out, err := create(dir, f)
		if err != nil {
			return err
		}

		sink = out

		defer func() { err = errors.Join(err, out.Sync(), out.Close()) }()
	}

	hash := sha256.New()
	in := &source{Reader: io.TeeReader(archive, hash)}
	content := io.TeeReader(in, sink)

	var recordErr error
	if f.Path == stateName {
		recordErr = checkRecords(content, m.Records)
	}

	if _, err := io.Copy(io.Discard, content); err != nil && in.err == nil {
		return err //nolint:wrapcheck // of writing; it names the file
	}

	if in.err != nil {
		return damaged(f.Path, "%v", in.err)
	}

	if sum := hex.EncodeToString(hash.Sum(nil)); sum != f.SHA256 {
		return damaged(f.Path, "its SHA-256 is %s, the manifest says %s", sum, f.SHA256)
	}

	return recordErr
}

// source remembers why the archive could not be read, to tell that from trouble of writing.
type source struct {
	io.Reader

	err error
}

// Read implements io.Reader.
func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}

	return n, err //nolint:wrapcheck // a reader hands on what it reads
}

func checkRecords(in io.Reader, want int) error {
	n := 0

	for _, err := range records(in) {
		switch {
		case errors.Is(err, store.ErrNewerSchema):
			return fmt.Errorf("%w: %w", ErrNewer, err)
		case err != nil:
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}

		n++
	}

	if n != want {
		return damaged(stateName, "%d records, the manifest says %d", n, want)
	}

	return nil
}

func create(dir string, f File) (*os.File, error) {
	path := filepath.Join(dir, filepath.FromSlash(f.Path))

	parent := os.FileMode(0o700)
	if strings.HasPrefix(f.Path, packagesDir) {
		parent = 0o755 // engines of other users read packages
	}

	if err := os.MkdirAll(filepath.Dir(path), parent); err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}

	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("unpack: %w", err)
	}

	if err := out.Chmod(f.Mode.Perm()); err != nil {
		return nil, errors.Join(fmt.Errorf("unpack: %w", err), out.Close())
	}

	return out, nil
}
