package main

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

func TestSlowRunsKeepASlotToSpare(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var (
			s    slowRuns
			told []time.Duration
		)

		h := s.watch(repo.Hooks{Batch: func(string, string) batch.Hooks {
			return batch.Hooks{Finished: func(i batch.Info, _ error) { told = append(told, i.Run) }}
		}}).Batch("m", "1")

		for _, step := range []struct {
			run, after time.Duration
			want       int
		}{
			{20 * time.Microsecond, 0, 1},
			{5 * time.Millisecond, 0, 2},
			{20 * time.Microsecond, 59 * time.Second, 2},
			{20 * time.Microsecond, 2 * time.Second, 1},
			{200 * time.Microsecond, 0, 2},
			{20 * time.Microsecond, 2 * time.Minute, 1},
		} {
			time.Sleep(step.after) //nolint:forbidigo // of the bubble

			h.Finished(batch.Info{Run: step.run}, nil)

			if got := s.slots(); got != step.want {
				t.Errorf("after %v, a run of %v: %d slots, want %d", step.after, step.run, got, step.want)
			}
		}

		if len(told) != 6 {
			t.Errorf("the other hook was told of %v", told)
		}

		// One in ten was interrupted.
		for i := range 100 {
			h.Finished(batch.Info{Run: time.Duration(1+i%10) * 21 * time.Microsecond}, nil)
		}

		if got := s.slots(); got != 1 {
			t.Errorf("%d slots after some long runs among many", got)
		}
	})

	new(slowRuns).watch(repo.Hooks{}).Batch("m", "1").Finished(batch.Info{Run: time.Second}, nil)
}
