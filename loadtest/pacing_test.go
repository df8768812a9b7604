package loadtest_test

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

func TestWaitingWithoutSleepStandsApart(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) {})

	for _, tc := range []struct {
		threads int
		wait    time.Duration
		waits   bool
	}{
		{1, 500 * time.Microsecond, runtime.GOMAXPROCS(0) > 1},
		{1, 0, false},
		{runtime.GOMAXPROCS(0) + 8, 500 * time.Microsecond, false}, // the server would have no processor left
	} {
		p := plan(addressOf(s))
		p.Rate, p.Shape, p.Duration, p.Threads, p.BusyWait, p.Concurrency = 1000, loadtest.Constant, 500*time.Millisecond, tc.threads, tc.wait, 64

		// How much depends on what else the machine does, as a processor that is taken away is no waiting: so
		// one of a few runs has to show it.
		enough := !tc.waits

		for try := 0; try == 0 || !enough && try < 6; try++ {
			res := run(t, p)
			c := &res.Client

			if (c.Waiting > 0) != tc.waits || c.Waiting > c.CPU || c.PerRequest > c.CPU/time.Duration(res.Requests) {
				t.Errorf("%+v: waited for %v of %v, %v a request", tc, c.Waiting, c.CPU, c.PerRequest)
			}

			enough = enough || c.Waiting >= 10*time.Millisecond
		}

		if !enough {
			t.Errorf("%+v: half a second with arrivals each millisecond never made it wait for 10 ms", tc)
		}
	}
}

//nolint:paralleltest // changes settings of the whole process
func TestCalmIsTakenBack(t *testing.T) {
	percent, limit := debug.SetGCPercent(50), debug.SetMemoryLimit(-1)
	defer debug.SetGCPercent(percent)

	restore := loadtest.Calm()

	if during := debug.SetGCPercent(-1); during != -1 {
		t.Errorf("the collector runs at %d %%", during)
	}

	if during := debug.SetMemoryLimit(-1); during > 1<<30 {
		t.Errorf("nothing bounds the memory: %d bytes", during)
	}

	restore()

	if back := debug.SetGCPercent(50); back != 50 || debug.SetMemoryLimit(-1) != limit {
		t.Errorf("the collector is left at %d %%", back)
	}
}
