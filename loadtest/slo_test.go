package loadtest_test

import (
	"context"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// result has ok latencies from 1 to n ms, and failed ones of 1 µs.
func result(n, failed int) *loadtest.Result {
	r := &loadtest.Result{
		Requests: int64(n + failed), Failed: int64(failed), OK: measure.NewHistogram(), Bad: measure.NewHistogram(), Rate: float64(n + failed), Good: float64(n),
		Schedule: measure.NewHistogram(), Wait: measure.NewHistogram(), FirstByte: measure.NewHistogram(), Gap: measure.NewHistogram(), Elapsed: time.Second,
	}

	for i := range n {
		r.OK.Record(int64(i+1) * int64(time.Millisecond))
	}

	for range failed {
		r.Bad.Record(1000)
	}

	r.Latency = r.OK.Clone()
	r.Latency.Merge(r.Bad)

	return r
}

func TestSLOsAreJudged(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		slo       string
		n, failed int
		met       bool
	}{
		{"p99=100ms", 100, 0, true},
		{"p99=98ms", 100, 0, false},
		{"p50=51ms,p90=91ms,max=101ms,mean=51ms", 100, 0, true},
		{"mean=50ms", 100, 0, false},
		{"max=99ms", 100, 0, false},
		{"p100=101ms", 100, 0, true},
		{"p99.9=1s", 100, 0, true},
		{"error=0%", 100, 0, true},
		{"error=1%", 99, 1, true},
		{"error=0.01", 98, 2, false},
		{"rate=100", 100, 0, true},
		{"rate=101", 100, 0, false},
		{"p99=1s,error=0.1%", 98, 2, false},
		// Failed requests are quick here, and still count as slower than any bound.
		{"p99=1s", 98, 2, false},
		{"p98=1s", 98, 2, true},
		{"p50=1s", 40, 60, false},
		{"p99=1s", 0, 0, false},
		{"error=1%", 0, 0, false},
		{" P99 = 100ms , ERRORS = 1 % ", 100, 0, true},
	} {
		slo, err := loadtest.ParseSLO(tc.slo)
		if err != nil {
			t.Errorf("%s: %v", tc.slo, err)

			continue
		}

		if verdicts, met := slo.Judge(result(tc.n, tc.failed)); met != tc.met {
			t.Errorf("%s with %d good and %d failed: %v, want %v: %+v", tc.slo, tc.n, tc.failed, met, tc.met, verdicts)
		}
	}
}

func TestSLOsThatMakeNoSense(t *testing.T) {
	t.Parallel()

	for _, text := range []string{
		"", "p99", "p99=", "p99=20", "p99=-1ms", "p0=1ms", "p101=1ms", "pNaN=1ms", "error=2", "error=-1%", "error=x", "rate=0", "rate=NaN", "speed=1ms", "p99=1ms,",
	} {
		if slo, err := loadtest.ParseSLO(text); err == nil {
			t.Errorf("%q was taken as %+v", text, slo)
		}
	}
}

func TestSLOIsWrittenAsItIsRead(t *testing.T) {
	t.Parallel()

	for _, text := range []string{"p99=20ms", "p99.9=1.5s", "error=0.1%", "rate=1000", "mean=5µs", "max=1s"} {
		slo, err := loadtest.ParseSLO(text)
		if err != nil || slo[0].String() != text {
			t.Errorf("%q became %q, %v", text, slo[0].String(), err)
		}
	}
}

func FuzzSLO(f *testing.F) {
	f.Add("p99=20ms,error=0.1%")
	f.Fuzz(func(t *testing.T, text string) {
		slo, err := loadtest.ParseSLO(text)
		if err != nil {
			return
		}

		for i := range slo {
			if again, err := loadtest.ParseSLO(slo[i].String()); err != nil || math.Abs(again[0].Limit-slo[i].Limit) > 1e-9*math.Abs(slo[i].Limit)+1 {
				t.Errorf("%q: %q is not read again: %v", text, slo[i].String(), err)
			}
		}
	})
}

// simulated is a target with a queue: its latency grows with the rate, and without end above its capacity.
func simulated(capacity float64) loadtest.Trial {
	const seconds = 5

	return func(_ context.Context, rate float64) (*loadtest.Result, error) {
		r := result(0, 0)
		n := int(math.Ceil(rate * seconds))

		for i := range n {
			latency := 0.05 + float64(i)*(1/capacity-1/rate) // of request i, when each makes the queue longer
			if rate < capacity {
				latency = 0.001 / (1 - rate/capacity) // an M/M/1 queue
			}

			r.OK.Record(int64(latency * float64(time.Second)))
		}

		r.Requests, r.Rate, r.Latency, r.Elapsed = int64(n), min(rate, capacity), r.OK, seconds*time.Second
		r.Good = r.Rate

		return r, nil
	}
}

func TestSearchFindsTheHighestRate(t *testing.T) {
	t.Parallel()

	slo, err := loadtest.ParseSLO("p99=10ms") // 1/(1-load) = 10: load 0.9
	if err != nil {
		t.Fatal(err)
	}

	for _, capacity := range []float64{40, 150, 1000, 77_777} {
		for _, c := range []loadtest.SearchConfig{{Low: 100}, {Low: 1}, {Low: 10, High: 200_000}, {Low: 50_000}} {
			res, err := loadtest.Search(t.Context(), c, slo, simulated(capacity))
			if err != nil {
				t.Fatal(err)
			}

			want := 0.9 * capacity
			if want < c.Low/1024 {
				continue // the search does not go down that far
			}

			if res.Best == nil || res.Best.Rate > want*1.01 || res.Best.Rate < want/1.06 {
				t.Errorf("capacity %v from %+v: best %+v, want about %v", capacity, c, res.Best, want)
			}

			if len(res.Trials) > 24 {
				t.Errorf("capacity %v from %+v: %d trials", capacity, c, len(res.Trials))
			}
		}
	}
}

func TestSearchEndsAtItsBorders(t *testing.T) {
	t.Parallel()

	slo, err := loadtest.ParseSLO("error=1%")
	if err != nil {
		t.Fatal(err)
	}

	// Without a bound on latency, a server that falls behind must still not pass.
	res, err := loadtest.Search(t.Context(), loadtest.SearchConfig{Low: 10}, slo, simulated(1000))
	if err != nil || res.Best == nil || res.Best.Rate > 1060 {
		t.Errorf("%+v, %v", res.Best, err)
	}

	res, err = loadtest.Search(t.Context(), loadtest.SearchConfig{Low: 10, High: 500}, slo, simulated(1000))
	if err != nil || res.Best == nil || res.Best.Rate != 500 || res.Miss != 0 || len(res.Trials) != 2 {
		t.Errorf("all rates hold: %+v, %v", res, err)
	}

	never := func(context.Context, float64) (*loadtest.Result, error) { return result(1, 99), nil }
	if res, err = loadtest.Search(t.Context(), loadtest.SearchConfig{Low: 1000}, slo, never); err != nil || res.Best != nil || len(res.Trials) > 24 {
		t.Errorf("no rate holds: %+v, %v", res, err)
	}

	broken := errors.New("gone")
	if _, err := loadtest.Search(t.Context(), loadtest.SearchConfig{Low: 1}, slo, func(context.Context, float64) (*loadtest.Result, error) {
		return nil, broken
	}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}

	for _, c := range []loadtest.SearchConfig{{}, {Low: -1}, {Low: 5, High: 5}} {
		if _, err := loadtest.Search(t.Context(), c, slo, never); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
