package main

import (
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

const (
	// slowRun is a run that holds a slot of the scheduler so long that others notice.
	slowRun = 200 * time.Microsecond
	// slowFor is how long one such run is remembered.
	slowFor = time.Minute
)

// slowRuns remembers whether the worker has models that compute for more than an instant.
type slowRuns struct{ last atomic.Int64 } // in nanoseconds of the clock; 0 is never

// watch adds to the hooks of the repository.
func (s *slowRuns) watch(h repo.Hooks) repo.Hooks {
	inner := h.Batch

	h.Batch = func(name, version string) batch.Hooks {
		var hooks batch.Hooks
		if inner != nil {
			hooks = inner(name, version)
		}

		finished := hooks.Finished
		hooks.Finished = func(i batch.Info, err error) {
			if i.Run >= slowRun {
				s.last.Store(time.Now().UnixNano())
			}

			if finished != nil {
				finished(i, err)
			}
		}

		return hooks
	}

	return h
}

// slots is how many the scheduler needs at least: while a model computes for long, connections and
// deadlines need one that it does not hold.
func (s *slowRuns) slots() int {
	if last := s.last.Load(); last != 0 && time.Since(time.Unix(0, last)) < slowFor {
		return 2
	}

	return 1
}
