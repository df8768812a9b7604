package pool

import (
	"errors"
	"sync/atomic"
	"time"

	"github.com/sony/gobreaker/v2"
)

var errFailed = errors.New("failed")

// breaker is a gobreaker that is asked only when it matters. Its state is published as an
// atomic, and a success is reported only after a failure, so that a healthy instance costs
// one atomic load and no lock.
type breaker struct {
	cb      *gobreaker.TwoStepCircuitBreaker[struct{}]
	state   atomic.Int32
	until   atomic.Int64 // while open: when a probe may go
	dirty   atomic.Bool  // a failure was reported since the last success
	all     atomic.Int64 // of the present window
	bad     atomic.Int64
	window  atomic.Int64 // start of the present window
	span    int64
	clock   func() int64
	changed func(state string)
}

// init sets the breaker up; clock gives the pool's nanoseconds.
func (b *breaker) init(cfg Breaker, clock func() int64, changed func(state string)) {
	if cfg.Disabled {
		return
	}

	b.clock, b.changed, b.span = clock, changed, int64(cfg.Interval)
	b.window.Store(clock())
	b.cb = gobreaker.NewTwoStepCircuitBreaker[struct{}](gobreaker.Settings{
		MaxRequests: 1,
		Interval:    cfg.Interval,
		Timeout:     cfg.Open,
		ReadyToTrip: func(counts gobreaker.Counts) bool {
			if counts.ConsecutiveFailures >= uint32(cfg.Consecutive) {
				return true
			}

			all := b.all.Load()

			return all >= int64(cfg.MinRequests) && float64(b.bad.Load()) >= cfg.Ratio*float64(all)
		},
		// Runs under gobreaker's lock: store and leave.
		OnStateChange: func(_ string, _, to gobreaker.State) {
			if to == gobreaker.StateOpen {
				b.until.Store(clock() + int64(cfg.Open) + int64(time.Millisecond))
			}

			b.state.Store(int32(to))

			if changed != nil {
				changed(to.String())
			}
		},
	})
}

// passes reports whether a request may try the instance, as far as is known without a lock.
func (b *breaker) passes(now int64) bool {
	switch gobreaker.State(b.state.Load()) {
	case gobreaker.StateClosed:
		return true
	case gobreaker.StateOpen:
		return now >= b.until.Load()
	case gobreaker.StateHalfOpen:
		return false // the one probe is out
	default:
		return true
	}
}

// enter asks for the one chosen instance. done is nil while the breaker is closed.
func (b *breaker) enter() (done func(error), ok bool) {
	if b.cb == nil || gobreaker.State(b.state.Load()) == gobreaker.StateClosed {
		return nil, true
	}

	done, err := b.cb.Allow()

	return done, err == nil
}

// report tells how a request ended that entered with done == nil; err is nil for a success.
func (b *breaker) report(err error, now int64) {
	if b.cb == nil {
		return
	}

	if start := b.window.Load(); now-start > b.span && b.window.CompareAndSwap(start, now) {
		b.all.Store(0)
		b.bad.Store(0)
	}

	b.all.Add(1)

	if err != nil {
		b.bad.Add(1)
		b.dirty.Store(true)
	} else if !b.dirty.Load() || !b.dirty.Swap(false) {
		return
	}

	if done, refused := b.cb.Allow(); refused == nil { // else it is open already
		done(err)
	}
}
