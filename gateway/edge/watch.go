package edge

import (
	"context"
	"net"
	"time"
)

// watchStep is how often the watcher looks whether clients are still there.
const watchStep = 100 * time.Millisecond

// watch cancels the calls of clients that are gone. A handler that waits for the engine does not read
// from its connection, so somebody else has to look: one goroutine asks the kernel about all
// connections with a call at once.
func (e *Edge) watch(ctx context.Context) error {
	tick := time.NewTicker(watchStep)
	defer tick.Stop()

	var w watcher

	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			if e.inflight.Load() == 0 {
				continue
			}

			w.collect(e, now)

			for i, gone := range w.poll() {
				if gone {
					w.conns[i].cancel(w.calls[i])
				}
			}

			w.reset()
		}
	}
}

// watcher holds the scratch space of watch. calls says which exchange a connection had when it was
// looked at.
type watcher struct {
	conns []*conn
	calls []*exchange
	poller
}

// collect lists the connections whose call has run for a while.
func (w *watcher) collect(e *Edge, now time.Time) {
	e.conns.each(func(c *conn) {
		if c.state.Load() != connActive || c.fd < 0 {
			return
		}

		c.mu.Lock()
		defer c.mu.Unlock()

		if x := c.busy; x != nil && now.Sub(x.start) >= watchStep {
			w.conns = append(w.conns, c)
			w.calls = append(w.calls, x)
			w.add(c.fd)
		}
	})
}

func (w *watcher) reset() {
	clear(w.conns)
	clear(w.calls)
	w.conns, w.calls = w.conns[:0], w.calls[:0]
	w.poller.reset()
}

// cancel ends the context of the call that runs on c, if it is x (nil: whichever).
func (c *conn) cancel(x *exchange) {
	c.mu.Lock()
	defer c.mu.Unlock()

	if c.busy != nil && (x == nil || c.busy == x) {
		c.busy.ctx.cancel()
	}
}

// descriptor is the socket's file descriptor, valid until it is closed, or -1.
func descriptor(c *net.TCPConn) int {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1
	}

	fd := -1
	if raw.Control(func(p uintptr) { fd = int(p) }) != nil {
		return -1
	}

	return fd
}
