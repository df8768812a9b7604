package telemetry_test

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/telemetry"
)

func TestUsageCountsByServiceModelAndMinute(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		u := telemetry.NewUsage()

		var wg sync.WaitGroup
		for i := range 40 {
			wg.Go(func() { u.Count("s", []string{"a/1", "b/1"}[i%2], i%4 == 0) })
		}

		wg.Wait()
		u.Count("s", "", true) // rejected before a model was chosen

		r := u.Report("s")
		if r.Total != 41 || r.Failed != 11 || r.Models["a/1"] != [2]int64{20, 10} || r.Models["b/1"] != [2]int64{20, 0} || r.LastMinute != 0 {
			t.Errorf("got %+v", r)
		}

		<-time.After(time.Minute)

		if r = u.Report("s"); r.LastMinute != 41 {
			t.Errorf("last minute %d", r.LastMinute)
		}

		<-time.After(time.Minute)

		if r = u.Report("s"); r.LastMinute != 0 {
			t.Errorf("an old minute counts: %d", r.LastMinute)
		}

		u.Forget("s")

		if r = u.Report("s"); r.Total != 0 {
			t.Errorf("after being forgotten: %+v", r)
		}
	})
}
