package measure_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// collect runs a collector over what fill records.
func collect(t *testing.T, cfg measure.Config, fill func(worker int, w *measure.Worker)) (*measure.Tick, []measure.Row) {
	t.Helper()

	c := measure.NewCollector(cfg)
	done := make(chan struct{})

	go func() {
		defer close(done)
		c.Run()
	}()

	for i := range cfg.Workers {
		go func() {
			fill(i, c.Worker(i))
			c.Worker(i).Close()
		}()
	}

	<-done

	return c.Result()
}

func ok(at, took time.Duration) *measure.Sample {
	return &measure.Sample{Intended: int64(at), Started: int64(at), End: int64(at + took), Status: 200}
}

// TestEveryPercentileIsWithinOnePercent compares with the sorted values themselves.
func TestEveryPercentileIsWithinOnePercent(t *testing.T) {
	t.Parallel()

	const workers, each = 3, 40_000

	shapes := map[string]func(*rand.Rand) time.Duration{
		"exponential": func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * 3e6) },
		"two humps": func(r *rand.Rand) time.Duration {
			if r.IntN(100) < 97 {
				return time.Duration(1e6 + r.IntN(1e5))
			}

			return time.Duration(1e9 + r.IntN(1e8))
		},
		"tiny":       func(r *rand.Rand) time.Duration { return time.Duration(1 + r.IntN(900)) },
		"heavy tail": func(r *rand.Rand) time.Duration { return time.Duration(1e5 / math.Pow(1-r.Float64(), 1.2)) },
	}

	for name, draw := range shapes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			values := make([][]time.Duration, workers)

			for i := range values {
				rng := rand.New(rand.NewPCG(uint64(i), 9))

				for range each {
					values[i] = append(values[i], min(draw(rng), time.Hour))
				}
			}

			total, rows := collect(t, measure.Config{Workers: workers, Targets: 1, Duration: 2 * time.Hour}, func(i int, w *measure.Worker) {
				for k, v := range values[i] {
					w.Record(ok(time.Duration(k)*50*time.Microsecond, v))
				}
			})

			all := slices.Concat(values...)
			slices.Sort(all)

			if got := total.Total.OK.Count(); got != workers*each {
				t.Fatalf("%d samples, want %d", got, workers*each)
			}

			var inRows int64
			for _, r := range rows {
				inRows += r.Requests
			}

			if inRows != workers*each {
				t.Errorf("%d samples in the timeline", inRows)
			}

			for _, q := range []float64{0.01, 0.5, 0.9, 0.95, 0.99, 0.999, 0.9999, 1} {
				want := all[int(math.Ceil(q*float64(len(all))))-1]
				if got := total.Total.OK.Quantile(q); math.Abs(float64(got-want)) > 0.01*float64(want) {
					t.Errorf("quantile %v: %v, want %v", q, got, want)
				}
			}
		})
	}
}

func TestQuantilesAgreeWithSortedValues(t *testing.T) {
	t.Parallel()

	rng := rand.New(rand.NewPCG(1, 2))
	h := measure.NewHistogram()
	all := make([]time.Duration, 0, 200_000)

	for range 200_000 {
		v := time.Duration(math.Exp(rng.NormFloat64()*2+14)) + 1
		h.Record(int64(v))
		all = append(all, v)
	}

	slices.Sort(all)

	var sum float64
	for _, v := range all {
		sum += float64(v)
	}

	qs := []float64{0.001, 0.01, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.999, 0.9999, 1}
	for i, got := range h.Quantiles(qs) {
		want := all[max(int(math.Ceil(qs[i]*float64(len(all))))-1, 0)]
		if math.Abs(float64(got-want)) > 0.01*float64(want) {
			t.Errorf("quantile %v: %v, want %v", qs[i], got, want)
		}
	}

	if mean := sum / float64(len(all)); math.Abs(float64(h.Mean())-mean) > 1e-6*mean+1 {
		t.Errorf("mean %v, want %v", h.Mean(), time.Duration(mean))
	}
}

func TestValuesOutOfRangeAreCountedAsTheLimit(t *testing.T) {
	t.Parallel()

	h := measure.NewHistogram()
	h.Record(int64(3 * time.Hour))
	h.Record(-5)
	h.Record(int64(time.Second))

	if h.Count() != 3 || h.Clamped() != 2 {
		t.Errorf("count %d, clamped %d", h.Count(), h.Clamped())
	}

	if got := h.Max(); math.Abs(float64(got-time.Hour)) > 0.01*float64(time.Hour) {
		t.Errorf("max %v", got)
	}
}

func TestWarmUpIsLeftOut(t *testing.T) {
	t.Parallel()

	cfg := measure.Config{Workers: 1, Targets: 1, Warmup: time.Second, Duration: 2 * time.Second}
	total, rows := collect(t, cfg, func(_ int, w *measure.Worker) {
		w.Record(ok(500*time.Millisecond, 10*time.Millisecond))
		w.Record(ok(990*time.Millisecond, 100*time.Millisecond)) // begun in the warm-up, ended behind it
		w.Record(ok(1500*time.Millisecond, 10*time.Millisecond))
		w.Record(ok(2900*time.Millisecond, 500*time.Millisecond)) // ends behind the measured time
	})

	if total.Warm != 2 || total.Total.Requests != 2 || total.Within != 1 {
		t.Errorf("warm %d, measured %d, within %d; want 2, 2, 1", total.Warm, total.Total.Requests, total.Within)
	}

	var warm, measured int64
	for _, r := range rows {
		warm += r.Warm
		measured += r.Requests
	}

	if warm != 2 || measured != 2 || rows[0].Second != 0 || rows[len(rows)-1].Second != 3 {
		t.Errorf("rows %+v", rows)
	}
}

func TestErrorsAreCountedByStatusCodeAndClass(t *testing.T) {
	t.Parallel()

	total, _ := collect(t, measure.Config{Workers: 2, Targets: 2, Duration: time.Hour}, func(i int, w *measure.Worker) {
		s := ok(0, time.Millisecond)
		s.Target = i
		w.Record(s)

		s.Status, s.Body = 429, []byte(`{ "error_code" : "APIG.0308", "error_msg":"slow down"}`)
		w.Record(s)
		w.Record(s)

		s.Status, s.Body = 503, []byte("<html>")
		w.Record(s)

		s.Status, s.Body, s.Failure = 0, nil, measure.Timeout
		w.Record(s)
	})

	want := map[measure.ErrorKey]int64{
		{Status: 429, Code: "APIG.0308"}: 4,
		{Status: 503}:                    2,
		{Failure: measure.Timeout}:       2,
	}

	if len(total.Errors) != len(want) {
		t.Errorf("errors %v", total.Errors)
	}

	for k, n := range want {
		if total.Errors[k] != n {
			t.Errorf("%+v: %d, want %d", k, total.Errors[k], n)
		}
	}

	if total.Total.Failed != 8 || total.Total.Requests != 10 || total.Total.All().Count() != 10 {
		t.Errorf("%d of %d failed", total.Total.Failed, total.Total.Requests)
	}

	if total.Targets[0].Requests != 5 || total.Targets[1].Failed != 4 {
		t.Errorf("targets %+v", total.Targets)
	}
}

func TestErrorCodesAreBounded(t *testing.T) {
	t.Parallel()

	total, _ := collect(t, measure.Config{Workers: 1, Targets: 1, Duration: time.Hour}, func(_ int, w *measure.Worker) {
		for i := range 5000 {
			s := ok(0, time.Millisecond)
			s.Status, s.Body = 500, []byte(`{"error_code":"E`+string(rune('A'+i%26))+string(rune('A'+i/26%26))+string(rune('A'+i/676))+`"}`)
			w.Record(s)
		}
	})

	if len(total.Errors) > 257 || total.Errors[measure.ErrorKey{Status: 500, Code: "other"}] == 0 {
		t.Errorf("%d kinds of error", len(total.Errors))
	}
}

func BenchmarkRecord(b *testing.B) {
	c := measure.NewCollector(measure.Config{Workers: 1, Targets: 1, Duration: time.Hour})
	w := c.Worker(0)
	s := ok(0, time.Millisecond)

	b.ReportAllocs()

	for b.Loop() {
		w.Record(s)
	}
}
