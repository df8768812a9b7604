package repo

import (
	"context"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// loaded is a session with its batcher. It is closed when its owner has retired it and
// the last Handle is released.
type loaded struct {
	meta    *Meta
	sess    engine.Session
	batcher *batch.Batcher

	refs   atomic.Int64 // one of the owner and one of each Handle; never rises from zero
	once   sync.Once    // the owner's
	unused chan struct{}
	closed chan struct{}
}

func newLoaded(meta *Meta, sess engine.Session, b *batch.Batcher) *loaded {
	l := &loaded{meta: meta, sess: sess, batcher: b, unused: make(chan struct{}), closed: make(chan struct{})}
	l.refs.Store(1)

	return l
}

// keep runs the batcher until the version is not used any more or ctx ends, then closes.
func (l *loaded) keep(ctx context.Context, log *slog.Logger) {
	defer close(l.closed)

	run, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)

	go func() { ended <- l.batcher.Run(run) }()

	select {
	case <-l.unused:
	case <-ctx.Done():
	}

	stop()

	if err := <-ended; err != nil {
		log.Error("batcher failed", slog.Any("model", l.meta.Name), slog.Any("version", l.meta.Version), slog.Any("error", err))
	}

	if err := l.sess.Close(); err != nil {
		log.Error("session not closed", slog.Any("model", l.meta.Name), slog.Any("version", l.meta.Version), slog.Any("error", err))
	}

	debug.FreeOSMemory() // unloading is rare, and is asked for to get memory back
}

// borrow takes a reference unless the version is already unused.
func (l *loaded) borrow() bool {
	for {
		n := l.refs.Load()
		if n == 0 {
			return false
		}

		if l.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (l *loaded) give() {
	if n := l.refs.Add(-1); n == 0 {
		close(l.unused)
	} else if n < 0 {
		panic("BUG: a Handle was released twice")
	}
}

// retire gives the owner's reference back, once.
func (l *loaded) retire() { l.once.Do(l.give) }

// Handle is a borrowed version. It is used by one goroutine at a time.
type Handle struct {
	l        *loaded
	released bool
}

// Meta describes the version.
func (h *Handle) Meta() *Meta { return h.l.meta }

// Infer runs one request; see batch.Request for who owns which memory.
func (h *Handle) Infer(ctx context.Context, req *batch.Request) (*batch.Result, error) {
	return h.l.batcher.Infer(ctx, req) //nolint:wrapcheck // faults of the batcher
}

// Submit is Infer without waiting; nothing runs for certain before Flush of the Batcher.
func (h *Handle) Submit(req *batch.Request, to batch.Receiver, out batch.Flusher) error {
	return h.l.batcher.Submit(req, to, out) //nolint:wrapcheck // faults of the batcher
}

// Cancel gives a submitted request up.
func (h *Handle) Cancel(req *batch.Request, cause error) { h.l.batcher.Cancel(req, cause) }

// Batcher is what requests of the version are submitted to. Flush is harmless after Release as well.
func (h *Handle) Batcher() *batch.Batcher { return h.l.batcher }

// Stats are the version's counters since it was loaded.
func (h *Handle) Stats() batch.Stats { return h.l.batcher.Stats() }

// Release gives the version back. Results must be released before. Again is harmless.
func (h *Handle) Release() {
	if !h.released {
		h.released = true
		h.l.give()
	}
}
