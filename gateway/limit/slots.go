package limit

import (
	"context"
	"sync/atomic"
	"time"
)

// slots bound how many requests of a service run at a time. Taking a free one is a single
// compare-and-swap; only who has to wait meets others.
type slots struct {
	size, queue int64

	running atomic.Int64
	waiting atomic.Int64
	// freed holds a token per slot that was given back while somebody waited. There are never
	// fewer tokens than waiters that could go on: a token is left out only if each has one.
	freed chan struct{}
}

func newSlots(size, queue int) *slots {
	return &slots{size: int64(size), queue: int64(queue), freed: make(chan struct{}, queue)}
}

// try takes a slot if one is free.
func (s *slots) try() bool {
	for {
		n := s.running.Load()
		if n >= s.size {
			return false
		}

		if s.running.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// acquire takes a slot, waiting for one as long as wait. Nobody overtakes those who wait.
func (s *slots) acquire(ctx context.Context, wait time.Duration) error {
	if s.waiting.Load() == 0 && s.try() {
		return nil
	}

	if wait <= 0 {
		if s.try() {
			return nil
		}

		return errSlots
	}

	defer s.waiting.Add(-1)

	if s.waiting.Add(1) > s.queue {
		return errSlots
	}

	return s.await(ctx, wait)
}

func (s *slots) await(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()

	// A slot that came free before this one was counted as waiting left no token.
	if s.try() {
		return nil
	}

	for {
		select {
		case <-s.freed:
			if s.try() {
				return nil
			}
		case <-timer.C:
			return errSlots
		case <-ctx.Done():
			return errGone
		}
	}
}

func (s *slots) release() {
	s.running.Add(-1)

	if s.waiting.Load() == 0 {
		return
	}

	select {
	case s.freed <- struct{}{}:
	default: // everybody who waits has been told
	}
}
