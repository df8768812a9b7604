package edge

import (
	"context"
	"sync"
	"time"
)

// callContext is the context of one call. It is made without allocation and costs something
// only for a call that waits on it: the channel is made on first use, and kept while it is only lent.
type callContext struct {
	mu    sync.Mutex // guards everything below
	done  chan struct{}
	err   error
	after map[*afterCall]struct{}
	onEnd func()
	used  bool // somebody may still hold it, so that it is not reused
}

type afterCall struct{ f func() }

// Deadline implements context.Context; a call has none of its own.
func (*callContext) Deadline() (time.Time, bool) { return time.Time{}, false }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.used = true

	return c.channel()
}

// OnEnd has f called when the call ends early, at once if it has; nil takes f back, and it does not run
// after that. There is one at a time. It is Done without a channel, for one who lets go before the call
// is over, as link does.
func (c *callContext) OnEnd(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.onEnd = f

	if f != nil && c.err != nil {
		f()
	}
}

// channel is called with the lock held.
func (c *callContext) channel() chan struct{} {
	if c.done == nil {
		c.done = make(chan struct{})
		if c.err != nil {
			close(c.done)
		}
	}

	return c.done
}

// Err implements context.Context.
func (c *callContext) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()

	return c.err
}

// Value implements context.Context.
func (*callContext) Value(any) any { return nil }

// AfterFunc lets package context derive children without a goroutine for each.
func (c *callContext) AfterFunc(f func()) (stop func() bool) {
	c.mu.Lock()
	defer c.mu.Unlock()

	c.used = true

	if c.err != nil {
		go f()

		return func() bool { return false }
	}

	if c.after == nil {
		c.after = make(map[*afterCall]struct{}, 1)
	}

	call := &afterCall{f}
	c.after[call] = struct{}{}

	return func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()

		_, waiting := c.after[call]
		delete(c.after, call)

		return waiting
	}
}

// cancel ends the context. Children run on goroutines of their own, as package context does it.
func (c *callContext) cancel() {
	c.mu.Lock()

	if c.err != nil {
		c.mu.Unlock()

		return
	}

	c.err = context.Canceled

	if c.done != nil {
		close(c.done)
	}

	if c.onEnd != nil {
		c.onEnd()
	}

	after := c.after
	c.after = nil
	c.mu.Unlock()

	for call := range after {
		go call.f()
	}
}

// release ends the context and returns one for the next call: the same if nobody may still wait on it.
func (c *callContext) release() *callContext {
	c.mu.Lock()
	reuse := !c.used

	if reuse && c.err != nil {
		c.err, c.done = nil, nil // the channel is closed
	}
	c.mu.Unlock()

	if reuse {
		return c
	}

	c.cancel()

	return &callContext{}
}
