package gateway

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// budget bounds how many requests may be in a retry at a time: a share of the active ones.
// Those beyond it wait their turn, so that the death of a worker fails nobody, while a
// failing fleet is not run over by repeated requests.
type budget struct {
	ratio  float64
	least  int64
	active atomic.Int64

	mu       sync.Mutex // guards the rest
	retrying int64
	queue    []chan struct{}
}

const maxBudgetQueue = 4096

// enter takes a place. It returns false when none came free in time.
func (b *budget) enter(ctx context.Context, wait time.Duration) bool {
	b.mu.Lock()

	if b.retrying < b.bound() {
		b.retrying++
		b.mu.Unlock()

		return true
	}

	if wait <= 0 || len(b.queue) >= maxBudgetQueue {
		b.mu.Unlock()

		return false
	}

	turn := make(chan struct{})
	b.queue = append(b.queue, turn)
	b.mu.Unlock()

	timer := time.NewTimer(wait)
	defer timer.Stop()

	select {
	case <-turn:
		return true
	case <-timer.C:
	case <-ctx.Done():
	}

	b.mu.Lock()
	defer b.mu.Unlock()

	for i, other := range b.queue {
		if other == turn {
			b.queue = append(b.queue[:i], b.queue[i+1:]...)

			return false
		}
	}

	return true // the turn came at the same moment
}

func (b *budget) bound() int64 {
	return max(b.least, int64(b.ratio*float64(b.active.Load())))
}

// leave gives the place to the next in line.
func (b *budget) leave() {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.retrying--
	for len(b.queue) > 0 && b.retrying < b.bound() {
		b.retrying++
		close(b.queue[0])
		b.queue = b.queue[1:]
	}
}
