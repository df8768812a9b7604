package loadtest_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

func TestComparisonRunsInTurnAndFindsTheSlowerOne(t *testing.T) {
	t.Parallel()

	var turns atomic.Int64 // changes from A to B

	last := atomic.Pointer[string]{}
	serve := func(name string, took time.Duration) loadtest.Plan {
		s := server(t, func(http.ResponseWriter, *http.Request) {
			if was := last.Swap(&name); was != nil && *was != name {
				turns.Add(1)
			}

			wait(took)
		})
		p := plan(addressOf(s))
		p.Name, p.Duration, p.Concurrency = name, 150*time.Millisecond, 2

		return p
	}

	c, err := loadtest.Compare(t.Context(), serve("A", 2*time.Millisecond), serve("B", 10*time.Millisecond), 4)
	if err != nil {
		t.Fatal(err)
	}

	if len(c.Rounds) != 4 || turns.Load() != 7 {
		t.Errorf("%d rounds, %d changes of turn; want 4 and 7", len(c.Rounds), turns.Load())
	}

	var sum int64
	for _, r := range c.Rounds {
		sum += r[0].Requests
	}

	if c.A.Requests != sum || c.A.Latency.Count() != sum || c.A.Elapsed < 4*140*time.Millisecond {
		t.Errorf("A: %d requests in %v, its rounds have %d", c.A.Requests, c.A.Elapsed, sum)
	}

	for _, r := range c.Ratios {
		if r.Low > r.Ratio || r.High < r.Ratio || r.Low <= 0 {
			t.Errorf("%+v: the interval does not hold the ratio", r)
		}

		percentile := strings.HasPrefix(r.Metric, "p")
		if percentile != (r.BootHigh > 0) || r.BootLow > r.BootHigh || (percentile && r.BootHigh < 1) {
			t.Errorf("%+v: the interval by bootstrap", r)
		}

		if r.Metric == "p50" && (r.BootLow < 1.5 || r.BootHigh > 10) {
			t.Errorf("%+v: 10 ms against 2 ms", r)
		}

		if (r.Metric == "rate" || r.Metric == "p50" || r.Metric == "mean") && r.Better != "A" {
			t.Errorf("%+v: A is five times as fast", r)
		}
	}
}

func TestOneRoundHasNoInterval(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) {})
	p := plan(addressOf(s))
	p.Duration = 50 * time.Millisecond

	c, err := loadtest.Compare(t.Context(), p, p, 1)
	if err != nil {
		t.Fatal(err)
	}

	for _, r := range c.Ratios {
		if r.Low != 0 || r.High != 0 || r.Better != "" || r.Ratio <= 0 {
			t.Errorf("%+v", r)
		}
	}

	if _, err := loadtest.Compare(t.Context(), p, p, 0); err == nil {
		t.Error("no rounds were taken")
	}
}
