package pkgsource

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Config bounds what is fetched and from where. Zero means the default.
type Config struct {
	// Dir holds the work in progress.
	Dir string
	// MaxBytes bounds a download, and what it is unpacked to (default 64 GiB).
	MaxBytes int64
	// MaxFiles bounds the entries of an archive and the objects of a prefix (default 20,000).
	MaxFiles int
	// AllowPrivate permits private and loopback addresses for http sources. Link-local
	// addresses, where clouds keep credentials of machines, stay refused.
	AllowPrivate bool
	// Timeout is for one package in all (default 6 h), IdleTimeout for the time in which
	// nothing comes (default 60 s).
	Timeout, IdleTimeout time.Duration
	// Retries is how often in a row a transfer may fail without any progress (default 5).
	Retries int
	// Backoff is the first wait before a retry; it doubles (default 500 ms).
	Backoff time.Duration
	// S3 says where s3:// and obs:// lead.
	S3 S3Config
}

// Progress is told how many bytes are here; total is -1 while it is unknown. It is called
// often, and by one goroutine at a time.
type Progress func(done, total int64)

// Fetcher fetches packages. It is safe for concurrent use with different keys.
type Fetcher struct {
	cfg    Config
	client *http.Client
}

const (
	maxBytes    = 64 << 30
	maxFiles    = 20_000
	maxAttempts = 1000
	maxBackoff  = 15 * time.Second
)

var keyName = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z_-]{0,127}$`)

// New makes a Fetcher; it opens nothing yet.
func New(cfg Config) (*Fetcher, error) {
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = maxBytes
	}

	if cfg.MaxFiles <= 0 {
		cfg.MaxFiles = maxFiles
	}

	if cfg.Timeout <= 0 {
		cfg.Timeout = 6 * time.Hour
	}

	if cfg.IdleTimeout <= 0 {
		cfg.IdleTimeout = time.Minute
	}

	if cfg.Retries <= 0 {
		cfg.Retries = 5
	}

	if cfg.Backoff <= 0 {
		cfg.Backoff = 500 * time.Millisecond
	}

	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("open the directory of fetches: %w", err)
	}

	return &Fetcher{cfg: cfg, client: newClient(&cfg)}, nil
}

// Check finds what is wrong with a location without going there.
func (f *Fetcher) Check(location string) error {
	loc, err := parse(location)
	if err != nil {
		return err
	}

	if loc.bucket != "" && f.cfg.S3.Endpoint == "" {
		return refuse(nil, "names a bucket, but models.s3.endpoint is not configured")
	}

	return nil
}

// Fetch brings the package to a directory and returns it. Parts that an earlier Fetch with
// the same key and location left are used again.
func (f *Fetcher) Fetch(ctx context.Context, key, location string, report Progress) (string, error) {
	if err := f.Check(location); err != nil {
		return "", err
	}

	loc, err := parse(location)
	if err != nil {
		return "", err
	}

	work, err := f.work(key)
	if err != nil {
		return "", err
	}

	if report == nil {
		report = func(int64, int64) {}
	}

	tree := filepath.Join(work, "tree")
	if err := errors.Join(os.RemoveAll(tree), os.MkdirAll(tree, 0o700)); err != nil {
		return "", fmt.Errorf("prepare a fetch: %w", err)
	}

	ctx, cancel := context.WithTimeoutCause(ctx, f.cfg.Timeout, errTotal)
	defer cancel()

	if loc.bucket != "" {
		err = f.bucket(ctx, loc, work, tree, report)
	} else {
		err = f.archive(ctx, loc, work, tree, report)
	}

	if err != nil {
		return "", explain(ctx, loc, err)
	}

	return locate(tree)
}

func (f *Fetcher) work(key string) (string, error) {
	if !keyName.MatchString(key) {
		return "", fmt.Errorf("fetch a package: %q is no key", key)
	}

	return filepath.Join(f.cfg.Dir, key), nil
}

// Discard removes all that Fetch left for key.
func (f *Fetcher) Discard(key string) error {
	work, err := f.work(key)
	if err != nil {
		return err
	}

	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("discard a fetch: %w", err)
	}

	return nil
}

// Clean discards what no wanted key left. Call it while nothing is fetched.
func (f *Fetcher) Clean(keep func(key string) bool) error {
	entries, err := os.ReadDir(f.cfg.Dir)
	errs := []error{err}

	for _, e := range entries {
		if !keep(e.Name()) {
			errs = append(errs, os.RemoveAll(filepath.Join(f.cfg.Dir, e.Name())))
		}
	}

	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean the directory of fetches: %w", err)
	}

	return nil
}

// locate finds the package in what was fetched: at the top, in model/, or in the only folder.
func locate(dir string) (string, error) {
	const depth = 2

	for range depth {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return "", fmt.Errorf("look at what was fetched: %w", err)
		}

		switch {
		case holds(entries):
			return dir, nil
		case slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.IsDir() && e.Name() == "model" }):
			dir = filepath.Join(dir, "model")
		case len(entries) == 1 && entries[0].IsDir():
			dir = filepath.Join(dir, entries[0].Name())
		default:
			return dir, nil
		}
	}

	return dir, nil
}

func holds(entries []fs.DirEntry) bool {
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return !e.IsDir() && (e.Name() == "config.json" || strings.EqualFold(filepath.Ext(e.Name()), ".onnx"))
	})
}

var (
	errTotal = errors.New("the package takes too long")
	errIdle  = errors.New("nothing came for too long")
	errLarge = errors.New("larger than allowed")
)

// refuse blames the source.
func refuse(cause error, format string, args ...any) error {
	return fault.Wrap(fault.ModelInvalid, cause, "The model package cannot be used. The field [source_location] %s.", fmt.Sprintf(format, args...))
}

// explain gives every error its place: the source's fault, the network's, or ours.
func explain(ctx context.Context, loc location, err error) error {
	var f *fault.Error

	switch {
	case errors.As(err, &f):
		return err
	case errors.Is(context.Cause(ctx), errTotal):
		return unreachable(errTotal, loc, "took too long")
	case ctx.Err() != nil:
		return fmt.Errorf("fetch %s: %w", loc.shown, ctx.Err())
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return fault.Wrap(fault.Unavailable, err, "No space left for the package.")
	default:
		return fmt.Errorf("fetch %s: %w", loc.shown, err)
	}
}

func unreachable(cause error, loc location, what string) error {
	return fault.Wrap(fault.Unavailable, cause, "The model package could not be fetched: %s %s.", loc.shown, what)
}
