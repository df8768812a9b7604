package repo

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/spec"
)

// maxFiles bounds what is hashed.
const maxFiles = 100_000

// verify compares the files of a package with what they must hash to, if that is given.
func verify(ctx context.Context, src Source) error {
	if src.TreeSHA256 == "" && len(src.Files) == 0 {
		return nil
	}

	files, err := digests(ctx, src.Dir)
	if err != nil {
		return err
	}

	have := make(map[string]spec.FileDigest, len(files))
	for _, f := range files {
		have[f.Path] = f
	}

	for _, want := range src.Files {
		got, ok := have[want.Path]

		switch {
		case !ok:
			return fault.New(fault.ModelInvalid, "The package lacks the file %q.", want.Path)
		case got.SHA256 != want.SHA256:
			return fault.New(fault.ModelInvalid, "The file %q of the package is damaged: its SHA-256 is %s, not %s.",
				want.Path, got.SHA256, want.SHA256)
		}
	}

	if tree := pkgstore.TreeHash(files); src.TreeSHA256 != "" && tree != src.TreeSHA256 {
		return fault.New(fault.ModelInvalid, "The package is damaged: its files hash to %s, not %s.", tree, src.TreeSHA256)
	}

	return nil
}

func digests(ctx context.Context, dir string) ([]spec.FileDigest, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.Wrap(fault.ModelInvalid, err, "The package cannot be read.")
	}
	defer root.Close() //nolint:errcheck // read only

	var files []spec.FileDigest

	buf := make([]byte, 1<<20)
	err = fs.WalkDir(root.FS(), ".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return ctx.Err() //nolint:wrapcheck // wrapped below
		case !d.Type().IsRegular():
			return fault.New(fault.ModelInvalid, "The package holds %q, which is no plain file.", path)
		case len(files) == maxFiles:
			return fault.New(fault.ModelInvalid, "The package has more than %d files.", maxFiles)
		}

		f, err := digest(ctx, root, path, buf)
		files = append(files, f)

		return err
	})
	if err != nil {
		return nil, fmt.Errorf("verify package: %w", err)
	}

	return files, nil
}

func digest(ctx context.Context, root *os.Root, path string, buf []byte) (spec.FileDigest, error) {
	f, err := root.Open(path)
	if err != nil {
		return spec.FileDigest{}, fmt.Errorf("open file of package: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only

	h := sha256.New()

	n, err := io.CopyBuffer(h, &cancellable{ctx, f}, buf)
	if err != nil {
		return spec.FileDigest{}, fmt.Errorf("read file of package: %w", err)
	}

	return spec.FileDigest{Path: path, SHA256: hex.EncodeToString(h.Sum(nil)), Size: n}, nil
}

// cancellable stops reading when its context ends.
type cancellable struct {
	ctx context.Context //nolint:containedctx // lives for one call
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err //nolint:wrapcheck // wrapped by the reader's user
	}

	return c.r.Read(p) //nolint:wrapcheck // must pass io.EOF
}
