package pkgstore

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sluice-gateway/sluice/spec"
)

// Snapshot keeps packages readable under dir/<tree> until release is called, even if they are
// removed from the store meanwhile. It copies nothing: the files are linked. What an engine
// wrote beside them stays out.
func (s *Store) Snapshot(packages []spec.PackageRef) (dir string, release func() error, err error) {
	dir = filepath.Join(s.tmp(), rand.Text())
	release = func() error {
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("release the snapshot: %w", err)
		}

		return nil
	}

	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", nil, fmt.Errorf("snapshot packages: %w", err)
	}

	for i := range packages {
		if err := s.link(&packages[i], dir); err != nil {
			return "", nil, errors.Join(err, release())
		}
	}

	return dir, release, nil
}

func (s *Store) link(ref *spec.PackageRef, dir string) error {
	if !treeName.MatchString(ref.TreeSHA256) {
		return fmt.Errorf("snapshot packages: %q is no tree hash", ref.TreeSHA256)
	}

	for _, f := range ref.Files {
		name := filepath.FromSlash(f.Path)
		if !filepath.IsLocal(name) {
			return fmt.Errorf("snapshot packages: %q leaves its package", f.Path)
		}

		to := filepath.Join(dir, ref.TreeSHA256, name)
		if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
			return fmt.Errorf("snapshot packages: %w", err)
		}

		if err := os.Link(filepath.Join(s.Path(ref.TreeSHA256), name), to); err != nil {
			return fmt.Errorf("snapshot packages: %w", err)
		}
	}

	return nil
}

// Damage names the first file of a package that is not as it was imported. Files that are not
// in ref, such as those that an engine wrote, do not count. It reads every file.
func (s *Store) Damage(ctx context.Context, ref *spec.PackageRef) error {
	for _, f := range ref.Files {
		path := filepath.Join(s.Path(ref.TreeSHA256), filepath.FromSlash(f.Path))

		sum, n, err := digest(ctx, path)
		if err != nil {
			return err
		}

		if n != f.Size || sum != f.SHA256 {
			return fmt.Errorf("%s is not what was imported: %d bytes with SHA-256 %s, want %d with %s", path, n, sum, f.Size, f.SHA256)
		}
	}

	return nil
}

func digest(ctx context.Context, path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, fmt.Errorf("read package: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only

	h := sha256.New()

	size, err = io.Copy(h, &bounded{ctx: ctx, in: f, left: 1 << 50})
	if err != nil {
		return "", 0, fmt.Errorf("read package %s: %w", path, err)
	}

	return hex.EncodeToString(h.Sum(nil)), size, nil
}
