package link

import (
	"context"
	"time"
)

// lent is a context that tells its end without a channel, which costs less to wait for: it calls f
// under its lock when it ends, at once if it has; nil takes f back, and it does not run after that.
type lent interface{ OnEnd(f func()) }

// sweptAfter is how long a timeout must be for the sweep, which comes every quarter of DeadAfter, to be
// exact enough for it. A timer for each call costs more than the rest of waiting.
const sweptAfter = 20

func newSlot(index uint32) *slot {
	s := &slot{index: index, done: make(chan struct{}, 1)}
	s.end = func() { s.stop(context.Canceled) }

	return s
}

// arm sets when the call ends by itself.
func (s *slot) arm(c *clientConn, timeout time.Duration) {
	expires := time.Duration(0)
	if timeout > 0 {
		expires = time.Since(c.began) + timeout
	}

	s.mu.Lock()
	s.expires = expires
	s.mu.Unlock()

	if timeout <= 0 || timeout >= sweptAfter*c.cfg.DeadAfter/4 {
		return
	}

	if s.timer == nil {
		// One that fires late, for the slot's next call, finds that it is not its time yet.
		s.timer = time.AfterFunc(timeout, func() { s.expire(time.Since(c.began)) })
	} else {
		s.timer.Reset(timeout)
	}
}

// expire ends the call if it is time.
func (s *slot) expire(now time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.expires > 0 && now >= s.expires {
		s.stopLocked(context.DeadlineExceeded)
	}
}

// stop ends the call from the caller's side, unless it has ended.
func (s *slot) stop(cause error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.stopLocked(cause)
}

func (s *slot) stopLocked(cause error) {
	if s.waiting {
		s.waiting, s.dropped, s.err = false, true, cause
		s.done <- struct{}{}
	}
}

// sweep ends the calls whose time is over.
func (c *clientConn) sweep(now time.Duration) {
	c.freeMu.Lock()
	slots := c.slots
	c.freeMu.Unlock()

	for _, s := range slots {
		s.expire(now)
	}
}

// wait returns when the call was answered, failed or was given up.
func (c *clientConn) wait(ctx context.Context, s *slot, at uint64) error {
	if l, ok := ctx.(lent); ok {
		l.OnEnd(s.end)
		<-s.done
		l.OnEnd(nil)
	} else {
		select {
		case <-s.done:
		case <-ctx.Done():
			s.stop(ctx.Err())
			<-s.done
		}
	}

	return c.ended(s, at)
}

// ended takes the result of a call and frees its slot.
func (c *clientConn) ended(s *slot, at uint64) error {
	s.mu.Lock()
	err, dropped, id := s.err, s.dropped, s.id()
	s.mu.Unlock()

	if err == nil {
		c.giveBack(s)

		return nil
	}

	failed := &Error{Reached: c.w.reached(at), cause: err}

	c.giveBack(s)

	if dropped {
		c.w.sendID(frameCancel, id) //nolint:errcheck // a dead connection needs no cancel
	}

	return failed
}
