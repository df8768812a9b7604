package repo

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/pkgstore"
)

// optimisedPath is where the optimised model of this very package is kept, or "".
func (r *Repo) optimisedPath(ctx context.Context, src Source, p *pack) string {
	without := func(why any) string {
		r.log.WarnContext(ctx, "execution.cache_optimized_model is not heeded", slog.Any("model", src.Name), slog.Any("version", src.Version), slog.Any("reason", why))

		return ""
	}

	if r.cfg.CacheDir == "" {
		return without("this worker has no cache directory")
	}

	tree := src.TreeSHA256
	if tree == "" {
		files, err := digests(ctx, src.Dir)
		if err != nil {
			return without(err.Error())
		}

		tree = pkgstore.TreeHash(files)
	}

	if err := os.MkdirAll(r.cfg.CacheDir, 0o750); err != nil {
		return without(err.Error())
	}

	return filepath.Join(r.cfg.CacheDir, strings.TrimPrefix(tree, "sha256:")+"-"+strings.ReplaceAll(p.model, "/", "_"))
}

// abandonedAfter is when a file that was being written is certainly nobody's any more.
const abandonedAfter = time.Hour

// trimGraphs deletes the optimised models that were not used for longest when there are too many. Workers
// share the directory: what another one deletes first is no mistake.
func (r *Repo) trimGraphs() {
	if r.cfg.CacheDir == "" {
		return
	}

	entries, err := os.ReadDir(r.cfg.CacheDir)
	if err != nil {
		return // there is no cache yet
	}

	var (
		kept []fs.FileInfo
		sum  int64
	)

	for _, e := range entries {
		info, err := e.Info()
		if err != nil || !info.Mode().IsRegular() {
			continue
		}

		switch {
		case strings.HasSuffix(e.Name(), ".onnx"):
			kept = append(kept, info)
			sum += info.Size()
		case strings.Contains(e.Name(), ".tmp") && time.Since(info.ModTime()) > abandonedAfter:
			r.deleteGraph(e.Name())
		}
	}

	slices.SortFunc(kept, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })

	for _, info := range kept {
		if sum <= r.cfg.CacheBytes {
			return
		}

		r.deleteGraph(info.Name()+".sha256", info.Name())

		sum -= info.Size()
	}
}

func (r *Repo) deleteGraph(names ...string) {
	for _, name := range names {
		if err := os.Remove(filepath.Join(r.cfg.CacheDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			r.log.Warn("optimised model not deleted", slog.Any("file", name), slog.Any("error", err))
		}
	}
}
