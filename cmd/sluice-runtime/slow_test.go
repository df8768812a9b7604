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
		} {
			time.Sleep(step.after) //nolint:forbidigo // of the bubble

			h.Finished(batch.Info{Run: step.run}, nil)

			if got := s.slots(); got != step.want {
				t.Errorf("after %v, a run of %v: %d slots, want %d", step.after, step.run, got, step.want)
			}
		}

		if len(told) != 5 {
			t.Errorf("the other hook was told of %v", told)
		}
	})

	new(slowRuns).watch(repo.Hooks{}).Batch("m", "1").Finished(batch.Info{Run: time.Second}, nil)
}
