package edge

import (
	"context"
	"log/slog"
	"net"
	"time"
)

// drainStep is how often a drain looks whether it is done.
const drainStep = 20 * time.Millisecond

// drain closes the doors without losing a request: first every answer says "Connection: close" while
// the doors stay open, so that clients go elsewhere by themselves; then the doors close, idle
// connections end, WebSockets are told good-bye one after the other, and what is in flight may finish until
// the deadline.
func (e *Edge) drain(ctx context.Context) Summary {
	begin := time.Now()
	s := Summary{InFlight: e.InFlight(), WebSockets: e.WebSockets()}

	e.draining.Store(true)
	e.hooks.Draining(true, s.InFlight, 0)
	e.wait(ctx, e.cfg.Drain.Delay.D(), e.deserted)

	// Who was let into a queue of the system's may have sent a request already.
	for _, d := range e.doors {
		d.emptyQueue()
	}

	if err := e.closeListeners(); err != nil {
		e.log.Warn("edge cannot close a door", slog.String("err", err.Error()))
	}

	e.tunnels.Drain(min(e.cfg.Drain.WebSocketSpread.D(), e.cfg.Drain.Deadline.D()))

	e.wait(ctx, e.cfg.Drain.Deadline.D(), func() bool {
		e.conns.each(func(c *conn) {
			if !c.fresh() {
				c.wake()
			}
		})
		e.hooks.Draining(true, e.InFlight(), 0)

		return e.conns.count() == 0
	})

	s.Cut = e.InFlight()
	s.WebSocketsCut = e.tunnels.Cut()
	s.Connections = e.cut()
	e.conns.running.Wait()

	s.Waited = time.Since(begin)
	e.hooks.Draining(false, 0, s.Cut)

	return s
}

// desertedAfter is how long nobody may have come for the doors to count as deserted.
const desertedAfter = 2 * time.Second

// deserted reports that no client is connected and none has come lately, so that nobody would be
// surprised by closed doors.
func (e *Edge) deserted() bool {
	return e.conns.count() == 0 && time.Since(e.conns.latest()) > desertedAfter
}

// wait returns after limit, or when done is true, or when the drain is aborted.
func (e *Edge) wait(ctx context.Context, limit time.Duration, done func() bool) {
	end := time.NewTimer(limit)
	defer end.Stop()

	step := time.NewTicker(drainStep)
	defer step.Stop()

	for !done() {
		select {
		case <-ctx.Done():
			return
		case <-e.abort:
			return
		case <-end.C:
			return
		case <-step.C:
		}
	}
}

// cut ends by force what is left and returns how many connections that were.
func (e *Edge) cut() int {
	n := 0

	e.conns.each(func(c *conn) {
		n++

		// Nothing is to be said any more: reset, so that the client does not take half an
		// answer for a whole one.
		if c.socket != nil {
			_ = c.socket.SetLinger(0)
		}

		// The socket goes first: a cancelled handler may answer at once, and a request that is
		// counted as cut must not be answered.
		closeSocket(c)
		c.cancel(nil)
	})

	return n
}

// closeSocket closes below TLS, which would wait to say good-bye.
func closeSocket(c *conn) {
	var sock net.Conn = c.socket
	if c.socket == nil {
		sock = c.Conn
	}

	_ = sock.Close() // nobody is left to tell
}
