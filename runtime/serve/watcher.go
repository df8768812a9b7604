package serve

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// watchEvery is how often connections of running requests are looked at. Requests that end
// sooner are never looked at.
const watchEvery = 100 * time.Millisecond

// watcher notices clients that went away while their request waits or runs: fasthttp reads
// nothing from a connection meanwhile, so it would learn of it from the answer only.
type watcher struct {
	pool sync.Pool

	mu     sync.Mutex // guards active and the fields marked below
	active []*watched
}

func newWatcher() *watcher {
	w := &watcher{}
	w.pool.New = func() any { return &watched{done: make(chan struct{})} }

	return w
}

// watched is the context of one request. It ends when its client is gone.
type watched struct {
	conn  net.Conn
	done  chan struct{}
	gone  atomic.Bool
	index int // in watcher.active; guarded by watcher.mu
	seen  int // rounds it was active in; guarded by watcher.mu
}

var _ context.Context = (*watched)(nil)

// Deadline implements context.Context.
func (*watched) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (w *watched) Done() <-chan struct{} { return w.done }

// Err implements context.Context.
func (w *watched) Err() error {
	if w.gone.Load() {
		return context.Canceled
	}

	return nil
}

// Value implements context.Context.
func (*watched) Value(any) any { return nil }

func (w *watched) cancel() {
	if w.gone.CompareAndSwap(false, true) {
		close(w.done)
	}
}

func (w *watcher) enter(conn net.Conn) *watched {
	r, _ := w.pool.Get().(*watched)
	r.conn, r.seen = conn, 0

	w.mu.Lock()
	r.index = len(w.active)
	w.active = append(w.active, r)
	w.mu.Unlock()

	return r
}

// leave ends the watch. The context must not be used afterwards.
func (w *watcher) leave(r *watched) {
	w.mu.Lock()
	last := len(w.active) - 1
	w.active[r.index] = w.active[last]
	w.active[r.index].index = r.index
	w.active[last] = nil
	w.active = w.active[:last]
	w.mu.Unlock()

	r.conn = nil

	if !r.gone.Load() {
		w.pool.Put(r)
	}
}

func (w *watcher) run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			w.look()
		}
	}
}

// look peeks at every connection whose request was there in the last round already.
func (w *watcher) look() {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, r := range w.active {
		if r.seen++; r.seen > 1 && vanished(r.conn) {
			r.cancel()
		}
	}
}

func (w *watcher) cancelAll() {
	w.mu.Lock()
	defer w.mu.Unlock()

	for _, r := range w.active {
		r.cancel()
	}
}

// vanished peeks without blocking: end of file or an error means that the client is gone.
func vanished(conn net.Conn) bool {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}

	raw, err := sc.SyscallConn()
	if err != nil {
		return true
	}

	gone := false

	err = raw.Control(func(fd uintptr) {
		var b [1]byte

		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)

		switch err {
		case nil:
			gone = n == 0
		case syscall.EAGAIN, syscall.EINTR:
		default:
			gone = true
		}
	})

	return gone || err != nil
}
