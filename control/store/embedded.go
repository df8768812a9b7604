package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

// Errors of StartEmbedded.
var (
	// ErrLocked means that another process uses the data directory.
	ErrLocked = errors.New("the data directory is in use by another process")
	// ErrDamaged means that etcd cannot read its files.
	ErrDamaged = errors.New("the state files are damaged")
)

// EmbeddedConfig configures the etcd member inside the process.
type EmbeddedConfig struct {
	// Dir holds the files of etcd. It is created with mode 0700.
	Dir string
	// StartTimeout bounds the start; 0 means 30 s.
	StartTimeout time.Duration
	// QuotaBytes bounds the database; 0 means 2 GiB.
	QuotaBytes int64
}

// Embedded is a single etcd member without listeners.
type Embedded struct {
	etcd   *embed.Etcd
	guard  *guard
	client *clientv3.Client
	lock   *os.File
	closed chan struct{}
	once   sync.Once
}

// These bound Close; a member that broke may never end.
const (
	closeTimeout       = 10 * time.Second
	closeBrokenTimeout = 500 * time.Millisecond
)

// StartEmbedded starts etcd on cfg.Dir and returns when it can read and write.
func StartEmbedded(ctx context.Context, cfg EmbeddedConfig, log *slog.Logger) (*Embedded, error) {
	if cfg.Dir == "" {
		return nil, errors.New("start embedded etcd: no directory given")
	}

	if cfg.StartTimeout <= 0 {
		cfg.StartTimeout = 30 * time.Second
	}

	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("start embedded etcd: %w", err)
	}

	lock, err := lockDir(cfg.Dir)
	if err != nil {
		return nil, err
	}

	e := &Embedded{guard: newGuard(), lock: lock, closed: make(chan struct{})}

	e.etcd, err = e.guard.start(cfg, log)
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}

	e.client = newClient(e.etcd.Server, e.guard)

	timer := time.NewTimer(cfg.StartTimeout)
	defer timer.Stop()

	select {
	case <-e.etcd.Server.ReadyNotify():
		go e.watch()

		return e, nil
	case err = <-e.etcd.Err():
	case <-e.guard.broken:
		err = reason(e.guard.text)
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer.C:
		err = fmt.Errorf("not ready within %v", cfg.StartTimeout)
	}

	e.Close()

	return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, err)
}

// Client returns a client that calls the member directly. Close of Embedded closes it.
func (e *Embedded) Client() *clientv3.Client { return e.client }

// Failed is closed when the member cannot go on; Err tells why. The process may: reads and writes
// of state fail at once from then on, until it is started again.
func (e *Embedded) Failed() <-chan struct{} { return e.guard.broken }

// Err is nil until Failed is closed.
func (e *Embedded) Err() error {
	if !e.guard.isBroken() {
		return nil
	}

	return e.guard.err()
}

// watch notes that the member ended, unless it was closed.
func (e *Embedded) watch() {
	select {
	case err := <-e.etcd.Err():
		e.guard.breaks(err.Error())
	case <-e.guard.broken:
	case <-e.closed:
	}
}

// Close stops the member and releases the directory. It may be called several times.
func (e *Embedded) Close() {
	e.once.Do(func() {
		close(e.closed)

		done := make(chan struct{})

		go func() {
			defer close(done)

			// The error is the cancelled context of the client itself.
			_ = e.client.Close()
			e.etcd.Close()
		}()

		patience := closeTimeout
		if e.guard.isBroken() {
			patience = closeBrokenTimeout
		}

		timer := time.NewTimer(patience)
		defer timer.Stop()

		select {
		case <-done:
		case <-timer.C:
		}

		_ = e.lock.Close()
	})
}

// lockDir makes sure that one process uses dir; etcd itself would wait without a word.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}

	err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if err == nil {
		return f, nil
	}

	_ = f.Close()

	if errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, fmt.Errorf("lock %s: %w", dir, ErrLocked)
	}

	return nil, fmt.Errorf("lock %s: %w", dir, err)
}

func memberConfig(cfg EmbeddedConfig, log *slog.Logger, g *guard) *embed.Config {
	advertised := url.URL{Scheme: "http", Host: "localhost:2380"}

	c := embed.NewConfig()
	c.Name = "sluice"
	c.Dir = filepath.Join(cfg.Dir, "member")
	c.ListenClientUrls, c.ListenPeerUrls = nil, nil
	c.AdvertiseClientUrls = []url.URL{advertised}
	c.AdvertisePeerUrls = []url.URL{advertised}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.TickMs, c.ElectionMs = 20, 200 // a single member has nobody to wait for
	c.AutoCompactionMode = "revision"
	c.AutoCompactionRetention = "10000"
	c.MaxTxnOps = 1024
	c.MaxRequestBytes = 8 << 20
	c.SnapshotCount = 10_000
	c.EnableGRPCGateway = false

	c.QuotaBackendBytes = cfg.QuotaBytes
	if c.QuotaBackendBytes <= 0 {
		c.QuotaBackendBytes = 2 << 30
	}

	logger := zap.New(&zapCore{log: log.With(slog.String("part", "etcd"))}, zap.WithFatalHook(g), zap.WithPanicHook(g))
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(logger)

	return c
}

// start starts etcd, and turns what etcd panics about into an error.
func (g *guard) start(cfg EmbeddedConfig, log *slog.Logger) (*embed.Etcd, error) {
	if err := checkDatabase(filepath.Join(cfg.Dir, "member", "member", "snap", "db")); err != nil {
		return nil, fmt.Errorf("start embedded etcd in %s: %w: %w", cfg.Dir, ErrDamaged, err)
	}

	result := make(chan startResult, 1)

	go func() {
		var r startResult

		defer func() {
			if p := recover(); p != nil {
				r.err = reason(fmt.Sprint(p))
			}

			result <- r
		}()

		r.err = ErrDamaged // unless the goroutine gets further than etcd's fatal messages
		r.etcd, r.err = embed.StartEtcd(memberConfig(cfg, log, g))
	}()

	select {
	case r := <-result:
		if r.err == nil {
			return r.etcd, nil
		}

		return nil, g.explain(cfg.Dir, r.err)
	case <-g.broken:
		return nil, fmt.Errorf("start embedded etcd in %s: %w", cfg.Dir, reason(g.text))
	}
}

// reason tells damage from a disk that is full or may not be written.
func reason(text string) error {
	for _, healthy := range []error{syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, syscall.EACCES, syscall.EFBIG} {
		if strings.Contains(text, healthy.Error()) {
			return errors.New(text)
		}
	}

	return fmt.Errorf("%w: %s", ErrDamaged, text)
}

type startResult struct {
	etcd *embed.Etcd
	err  error
}

// explain tells damage from other reasons: a member that ran before and cannot now.
func (g *guard) explain(dir string, err error) error {
	if g.isBroken() {
		return fmt.Errorf("start embedded etcd in %s: %w", dir, reason(g.text))
	}

	_, statErr := os.Stat(filepath.Join(dir, "member", "member"))
	if statErr == nil && !errors.Is(err, ErrDamaged) && errors.Is(reason(err.Error()), ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}

	return fmt.Errorf("start embedded etcd in %s: %w", dir, err)
}

// structureBytes bounds the database that a start walks through page by page.
const structureBytes = 256 << 20

// checkDatabase looks at the database first, because etcd opens it in a goroutine of its own,
// and a page that is not there ends the process.
func checkDatabase(path string) (err error) {
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}

	if err != nil {
		return fmt.Errorf("look at the database: %w", err)
	}

	if info.Size() == 0 {
		return fmt.Errorf("%s is empty", path)
	}

	// Without its log the member would wait for others for ever.
	logs := filepath.Join(filepath.Dir(path), "..", "wal")
	if files, err := filepath.Glob(filepath.Join(logs, "*.wal")); err != nil || len(files) == 0 {
		return fmt.Errorf("there is no log in %s", logs)
	}

	// Reading beyond a truncated file is a fault of memory, which is an error here.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))

	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%s: %v", path, p)
		}
	}()

	db, err := bbolt.Open(path, 0o600, &bbolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}

	// A database with damage is not closed: that would wait for its transaction.
	if err := db.View(func(tx *bbolt.Tx) error { return checkPages(tx, info.Size()) }); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}

	if err := db.Close(); err != nil {
		return fmt.Errorf("close %s: %w", path, err)
	}

	return nil
}

func checkPages(tx *bbolt.Tx, size int64) error {
	if tx.Size() > size {
		return fmt.Errorf("it has %d bytes, and its head says %d", size, tx.Size())
	}

	if size > structureBytes {
		return nil
	}

	return walk(tx.Cursor(), func(name []byte) *bbolt.Bucket { return tx.Bucket(name) })
}

// walk reads every key, and so every page that is in use.
func walk(c *bbolt.Cursor, bucket func([]byte) *bbolt.Bucket) error {
	var last []byte

	for k, v := c.First(); k != nil; k, v = c.Next() {
		if last != nil && bytes.Compare(last, k) >= 0 {
			return errors.New("its keys are out of order")
		}

		last = k

		if v != nil {
			continue
		}

		b := bucket(k)
		if b == nil {
			return fmt.Errorf("the bucket %q cannot be opened", k)
		}

		if err := walk(b.Cursor(), b.Bucket); err != nil {
			return err
		}
	}

	return nil
}
