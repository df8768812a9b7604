package pkgstore

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// idle is a package that nobody wants now.
type idle struct {
	tree string
	size int64
	used time.Time
}

// Trim removes packages that keep does not want, the least recently imported first, until
// those left have at most limit bytes together. Call it while nothing is imported.
func (s *Store) Trim(limit int64, keep func(tree string) bool) error {
	entries, err := os.ReadDir(s.trees())
	if err != nil {
		return fmt.Errorf("trim package store: %w", err)
	}

	var (
		found []idle
		sum   int64
		errs  []error
	)

	for _, e := range entries {
		if !treeName.MatchString(e.Name()) || keep(e.Name()) {
			continue
		}

		p, err := s.idle(e.Name())
		errs = append(errs, err)
		found = append(found, p)
		sum += p.size
	}

	slices.SortFunc(found, func(x, y idle) int { return cmp.Or(x.used.Compare(y.used), cmp.Compare(x.tree, y.tree)) })

	for _, p := range found {
		if sum <= limit {
			break
		}

		errs = append(errs, s.Remove(p.tree))
		sum -= p.size
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("trim package store: %w", err)
	}

	return nil
}

// idle measures a package.
func (s *Store) idle(tree string) (idle, error) {
	p := idle{tree: tree}

	info, err := os.Stat(s.Path(tree))
	if err != nil {
		return p, err
	}

	p.used = info.ModTime()

	err = filepath.WalkDir(s.Path(tree), func(_ string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}

		info, err := d.Info()
		if err == nil {
			p.size += info.Size()
		}

		return err
	})

	return p, err
}

// touch notes that a package is used again.
func (s *Store) touch(tree string) error {
	now := time.Now()

	return os.Chtimes(s.Path(tree), now, now)
}
