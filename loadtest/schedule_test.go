package loadtest_test

import (
	"math"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

func offsets(t *testing.T, c loadtest.ArrivalsConfig) []time.Duration {
	t.Helper()

	a, err := loadtest.NewArrivals(c)
	if err != nil {
		t.Fatal(err)
	}

	var out []time.Duration
	for at, ok := a.Next(); ok; at, ok = a.Next() {
		if n := len(out); n > 0 && at < out[n-1] {
			t.Fatalf("arrival %d goes back in time", n)
		}

		out = append(out, at)
	}

	return out
}

func TestShapesSendTheRightNumber(t *testing.T) {
	t.Parallel()

	const d = 10 * time.Second

	for _, tc := range []struct {
		c    loadtest.ArrivalsConfig
		want float64
	}{
		{loadtest.ArrivalsConfig{Shape: loadtest.Constant, Rate: 1000, Duration: d}, 10_000},
		{loadtest.ArrivalsConfig{Shape: loadtest.Poisson, Rate: 1000, Duration: d, Seed: 1}, 10_000},
		{loadtest.ArrivalsConfig{Shape: loadtest.Ramp, Rate: 1000, From: 200, Duration: d}, 6_000},
		{loadtest.ArrivalsConfig{Shape: loadtest.Ramp, Rate: 100, From: 900, Duration: d}, 5_000},
		{loadtest.ArrivalsConfig{Shape: loadtest.Step, Rate: 1000, From: 500, Steps: 2, Duration: d, Seed: 2}, 7_500},
	} {
		got := float64(len(offsets(t, tc.c)))
		if math.Abs(got-tc.want) > 4*math.Sqrt(tc.want) {
			t.Errorf("%+v: %v arrivals, want about %v", tc.c, got, tc.want)
		}
	}
}

func TestPoissonGapsAreExponential(t *testing.T) {
	t.Parallel()

	all := offsets(t, loadtest.ArrivalsConfig{Shape: loadtest.Poisson, Rate: 2000, Duration: 20 * time.Second, Seed: 7})

	var sum, sq float64
	for i := 1; i < len(all); i++ {
		g := (all[i] - all[i-1]).Seconds()
		sum += g
		sq += g * g
	}

	n := float64(len(all) - 1)
	mean := sum / n

	// The standard deviation of an exponential distribution equals its mean.
	if sd := math.Sqrt(sq/n - mean*mean); math.Abs(sd/mean-1) > 0.05 || math.Abs(mean*2000-1) > 0.05 {
		t.Errorf("mean %v, deviation %v", mean, sd)
	}
}

func TestSameSeedSameSchedule(t *testing.T) {
	t.Parallel()

	c := loadtest.ArrivalsConfig{Shape: loadtest.Poisson, Rate: 500, Duration: time.Second, Seed: 3}

	a, b := offsets(t, c), offsets(t, c)
	for i := range a {
		if a[i] != b[i] {
			t.Fatal("two runs differ")
		}
	}
}

func TestArrivalsRefuseNonsense(t *testing.T) {
	t.Parallel()

	for _, c := range []loadtest.ArrivalsConfig{
		{Rate: 0, Duration: 1},
		{Rate: -1, Duration: 1},
		{Rate: math.NaN(), Duration: 1},
		{Rate: math.Inf(1), Duration: 1},
		{Rate: 1},
		{Rate: 1, Duration: 1, Shape: "zigzag"},
		{Rate: 1, Duration: 1, From: -1},
	} {
		if _, err := loadtest.NewArrivals(c); err == nil {
			t.Errorf("%+v was taken", c)
		}
	}
}
