package publish

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	// defaultWindow is how long changes are collected before a snapshot is made.
	defaultWindow = 2 * time.Millisecond
	// steps is the number of snapshots that one revision of etcd can have.
	steps = 1 << 10
	// goneKept is how long an instance is remembered as gone; its record says so long before.
	goneKept = time.Minute
	// epochKey is written at every start, so that revisions begin above those of the last run.
	epochKey = "publisher/epoch"
)

// Config of a Publisher.
type Config struct {
	// Node is this machine, if it runs instances of its own: those that an earlier control process
	// here started ended with it, whatever their records say.
	Node string
	// Window in which changes are collected; default 2 ms.
	Window time.Duration
	// Published, when set, is told of every snapshot and what it cost.
	Published func(revision int64, took time.Duration)
	// Look is how often the state is asked whether it answers and still has the history that is followed;
	// 0 never asks.
	Look time.Duration
}

// Publisher keeps the snapshot. It is safe for concurrent use.
type Publisher struct {
	cfg   Config
	store *store.Store
	log   *slog.Logger
	dirty chan struct{} // something changed; capacity 1
	began int64         // ms since the epoch

	answered atomic.Pointer[time.Time] // when the state answered last

	mu    sync.Mutex // guards all below
	src   source
	built built
	now   *spec.Snapshot
	next  chan struct{} // closed when now is replaced
}

// New returns a publisher; it starts nothing.
func New(cfg Config, st *store.Store, log *slog.Logger) *Publisher {
	if cfg.Window <= 0 {
		cfg.Window = defaultWindow
	}

	p := &Publisher{
		cfg: cfg, store: st, log: log, dirty: make(chan struct{}, 1), began: time.Now().UnixMilli(),
		src: newSource(), built: newBuilt(), next: make(chan struct{}),
	}
	p.answer()

	return p
}

// Run follows the state until ctx ends.
func (p *Publisher) Run(ctx context.Context) error {
	if err := p.store.Index.Put(ctx, epochKey, time.Now().UTC().Format(time.RFC3339Nano)); err != nil {
		return fmt.Errorf("begin to publish: %w", err)
	}

	p.answer()

	for ctx.Err() == nil {
		p.run(ctx)
	}

	return nil
}

// run follows one history of the state.
func (p *Publisher) run(ctx context.Context) {
	run, cancel := context.WithCancel(ctx)

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	p.mu.Lock()
	p.src, p.built = newSource(), newBuilt()
	p.mu.Unlock()

	p.watchAll(run, &wg)

	if p.cfg.Look > 0 {
		wg.Go(func() {
			defer cancel()
			p.look(run)
		})
	}

	timer := time.NewTimer(time.Hour)
	defer timer.Stop()

	for {
		select {
		case <-run.Done():
			return
		case <-p.dirty:
		}

		timer.Reset(p.cfg.Window)

		select {
		case <-run.Done():
			return
		case <-timer.C:
		}

		p.publish()
	}
}

// Next returns the newest snapshot whose revision is above after, and waits for one if need be.
func (p *Publisher) Next(ctx context.Context, after int64) (*spec.Snapshot, error) {
	for {
		p.mu.Lock()
		now, next := p.now, p.next
		p.mu.Unlock()

		if now != nil && now.Revision > after {
			return now, nil
		}

		select {
		case <-next:
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a snapshot: %w", ctx.Err())
		}
	}
}

// Gone takes an instance out at once, before its record says so.
func (p *Publisher) Gone(serviceID, instanceID string) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.src.gone[instanceID] = time.Now()
	p.touch(serviceID)
}

// touch asks for the route of a service to be built again; mu is held.
func (p *Publisher) touch(serviceID string) {
	p.built.stale[serviceID] = struct{}{}
	p.poke()
}

func (p *Publisher) poke() {
	select {
	case p.dirty <- struct{}{}:
	default:
	}
}

// publish makes a snapshot of what is known, once everything was read.
func (p *Publisher) publish() {
	start := time.Now()

	p.mu.Lock()
	defer p.mu.Unlock()

	if p.src.missing > 0 {
		return
	}

	var last int64
	if p.now != nil {
		last = p.now.Revision
	}

	revision := max(p.src.revision*steps, last+1)

	snapshot := p.built.snapshot(&p.src, revision)
	if snapshot == nil {
		return
	}

	p.now = snapshot
	close(p.next)
	p.next = make(chan struct{})

	if p.cfg.Published != nil {
		p.cfg.Published(revision, time.Since(start))
	}
}
