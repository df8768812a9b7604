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
	// slowShare of the runs between two looks, one in so many, has to be slow for that to count: the system
	// may take the processor away in the middle of any run.
	slowShare = 3
	// slowFor is how long it is remembered.
	slowFor = time.Minute
)

// slowRuns remembers whether the worker has models that compute for more than an instant.
type slowRuns struct {
	runs, slow atomic.Uint64

	// Of the one who asks for slots.
	seen, seenSlow uint64
	last           time.Time // when runs were slow
}

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
			s.runs.Add(1)

			if i.Run >= slowRun {
				s.slow.Add(1)
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
// deadlines need one that it does not hold. It looks at the runs since it was called last.
func (s *slowRuns) slots() int {
	runs, slow := s.runs.Load(), s.slow.Load()
	now := time.Now()

	if slow > s.seenSlow && (slow-s.seenSlow)*slowShare >= runs-s.seen {
		s.last = now
	}

	s.seen, s.seenSlow = runs, slow

	if !s.last.IsZero() && now.Sub(s.last) < slowFor {
		return 2
	}

	return 1
}
