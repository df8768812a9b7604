package plan

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// Source gives snapshots.
type Source interface {
	// Next returns the newest snapshot as soon as its revision is not after.
	Next(ctx context.Context, after int64) (*spec.Snapshot, error)
}

// Hooks report what the follower does; nil fields are skipped.
type Hooks struct {
	// Swapped: a plan is in force, compiled in took.
	Swapped func(revision int64, services int, took time.Duration)
	// Refused: the newest revision does not compile; the plan before stays in force.
	Refused func(revision int64, err error)
	// Away: the source cannot be reached.
	Away func(err error)
}

// FollowConfig says where the last good snapshot is kept.
type FollowConfig struct {
	// File of the last good snapshot; empty means none is kept.
	File string
	// Patience is how long a start waits for the source before it uses File; default 2 s.
	Patience time.Duration
	// SaveEvery is the least time between two writes of File; default 5 s.
	SaveEvery time.Duration
	Hooks     Hooks
}

// Follower keeps the newest plan.
type Follower struct {
	cfg      FollowConfig
	compiler *Compiler
	source   Source
	log      *slog.Logger

	current atomic.Pointer[Plan]
	changed atomic.Pointer[chan struct{}]

	// Of Run alone.
	unsaved *spec.Snapshot
	saved   time.Time
	written chan struct{} // closed when nothing is being written
}

// NewFollower returns a follower without a plan; Run does the rest.
func NewFollower(cfg FollowConfig, c *Compiler, source Source, log *slog.Logger) *Follower {
	if cfg.Patience == 0 {
		cfg.Patience = 2 * time.Second
	}

	if cfg.SaveEvery == 0 {
		cfg.SaveEvery = 5 * time.Second
	}

	f := &Follower{cfg: cfg, compiler: c, source: source, log: log, written: make(chan struct{})}
	close(f.written)

	ch := make(chan struct{})
	f.changed.Store(&ch)

	return f
}

// Load returns the plan in force, nil before the first.
func (f *Follower) Load() *Plan { return f.current.Load() }

// Changed is closed when another plan comes into force. Take it before Load.
func (f *Follower) Changed() <-chan struct{} { return *f.changed.Load() }

type news struct {
	snapshot *spec.Snapshot
	err      error
}

// Run follows the source until ctx ends, and then closes the connections of the plan.
func (f *Follower) Run(ctx context.Context) error {
	defer f.compiler.Close()

	ctx, cancel := context.WithCancel(ctx)
	ch := make(chan news)
	done := make(chan struct{})

	defer func() {
		cancel()
		<-done
		<-f.written
		f.save()
		<-f.written
	}()

	go func() {
		defer close(done)
		f.fetch(ctx, ch)
	}()

	patience := time.NewTimer(f.cfg.Patience)
	defer patience.Stop()

	save := time.NewTicker(f.cfg.SaveEvery)
	defer save.Stop()

	for {
		select {
		case <-ctx.Done():
			return nil
		case n := <-ch:
			f.take(n)
		case <-patience.C:
			f.startFromFile()
		case <-save.C:
			f.save()
		}
	}
}

const maxBackoff = 5 * time.Second

// fetch asks the source again and again.
func (f *Follower) fetch(ctx context.Context, ch chan<- news) {
	var (
		after   int64
		backoff time.Duration
	)

	for ctx.Err() == nil {
		s, err := f.source.Next(ctx, after)
		if err == nil && s == nil {
			err = errors.New("the source gave no snapshot")
		}

		if ctx.Err() != nil {
			return
		}

		select {
		case ch <- news{s, err}:
		case <-ctx.Done():
			return
		}

		if err == nil {
			after, backoff = s.Revision, 0

			continue
		}

		backoff = min(max(2*backoff, 100*time.Millisecond), maxBackoff)

		select {
		case <-time.After(backoff/2 + rand.N(backoff/2)): //nolint:gosec // spreads retries, guards nothing
		case <-ctx.Done():
		}
	}
}

func (f *Follower) take(n news) {
	if n.err != nil {
		if f.cfg.Hooks.Away != nil {
			f.cfg.Hooks.Away(n.err)
		}

		f.log.Warn("routing snapshots are not available", slog.Any("error", n.err))

		if f.current.Load() == nil {
			f.startFromFile()
		}

		return
	}

	if f.apply(n.snapshot) {
		f.unsaved = n.snapshot
		if time.Since(f.saved) >= f.cfg.SaveEvery {
			f.save()
		}
	}
}

// apply puts a snapshot into force if it compiles.
func (f *Follower) apply(s *spec.Snapshot) bool {
	start := time.Now()

	p, sweep, err := f.compiler.Compile(s)
	if err != nil {
		if f.cfg.Hooks.Refused != nil {
			f.cfg.Hooks.Refused(s.Revision, err)
		}

		f.log.Error("a routing snapshot is refused, the one before stays in force",
			slog.Int64("revision", s.Revision), slog.Any("error", err))

		return false
	}

	f.current.Store(p)

	next := make(chan struct{})
	close(*f.changed.Swap(&next))
	sweep()

	if f.cfg.Hooks.Swapped != nil {
		f.cfg.Hooks.Swapped(p.Revision, len(p.Services), time.Since(start))
	}

	return true
}

// startFromFile uses the last good snapshot if nothing else is in force.
func (f *Follower) startFromFile() {
	if f.cfg.File == "" || f.current.Load() != nil {
		return
	}

	s, err := readSnapshot(f.cfg.File)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}

	if err != nil {
		f.log.Error("the last good snapshot cannot be read", slog.Any("error", err))

		return
	}

	if f.apply(s) {
		f.compiler.Distrust()
		f.log.Warn("serving the last good snapshot while the source is away", slog.Int64("revision", s.Revision))
	}
}

func readSnapshot(file string) (*spec.Snapshot, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}

	s := &spec.Snapshot{}
	if err := json.Unmarshal(raw, s); err != nil {
		return nil, fmt.Errorf("parse %s: %w", file, err)
	}

	return s, nil
}

// save begins to write the newest good snapshot, unless it is on disk already or another one is still being
// written. Writing takes its time with thousands of services, and a change must not wait for it.
func (f *Follower) save() {
	if f.unsaved == nil || f.cfg.File == "" {
		return
	}

	select {
	case <-f.written:
	default:
		return
	}

	s, done := f.unsaved, make(chan struct{})
	// Also if it fails: the ticker must not fill the log with one per tick of the same.
	f.unsaved, f.saved, f.written = nil, time.Now(), done

	go func() {
		defer close(done)

		if err := writeSnapshot(f.cfg.File, s); err != nil {
			f.log.Error("the last good snapshot cannot be kept", slog.Any("error", err))
		}
	}()
}

// writeSnapshot replaces file atomically; only the owner may read it.
func writeSnapshot(file string, s *spec.Snapshot) error {
	raw, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("encode snapshot: %w", err)
	}

	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("make the directory of %s: %w", file, err)
	}

	tmp, err := os.CreateTemp(filepath.Dir(file), ".last-good-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write %s: %w", file, err)
	}

	_, err = tmp.Write(raw)
	err = errors.Join(err, tmp.Sync(), tmp.Close())

	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}

	if err != nil {
		return fmt.Errorf("write %s: %w", file, errors.Join(err, os.Remove(tmp.Name())))
	}

	return nil
}
