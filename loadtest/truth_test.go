package loadtest_test

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

// truth keeps how long a server took for each request, by its own clock.
type truth struct {
	mu   sync.Mutex
	took []time.Duration
}

func (k *truth) add(d time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()

	k.took = append(k.took, d)
}

// quantile is exact, of whole samples; definitions differ by one of them.
func (k *truth) quantile(q float64) (low, high time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()

	slices.Sort(k.took)

	last := len(k.took) - 1
	rank := int(math.Ceil(q*float64(len(k.took)))) - 1

	return k.took[max(rank-1, 0)], k.took[min(rank+1, last)]
}

// TestPercentilesAreWithinOnePercentOfTruth injects latencies from 0.5 to 2 s, spread evenly on a logarithmic
// scale, and compares with what the server itself measured. What else runs on the machine can disturb a run, but not
// all of them.
func TestPercentilesAreWithinOnePercentOfTruth(t *testing.T) {
	t.Parallel()

	const attempts = 4

	for _, rate := range []float64{0, 100} {
		var worst string

		for range attempts {
			if worst = deviation(t, rate); worst == "" {
				break
			}
		}

		if worst != "" {
			t.Errorf("rate %v: %s", rate, worst)
		}
	}
}

// deviation runs once and names a percentile that is not within one percent, if there is one.
func deviation(t *testing.T, rate float64) string {
	t.Helper()

	var (
		n    atomic.Int64
		kept truth
	)

	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		began := time.Now()
		part := math.Mod(float64(n.Add(1))*math.Phi, 1)

		wait(time.Duration(500 * math.Pow(4, part) * float64(time.Millisecond)))
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		kept.add(time.Since(began))
	})

	p := plan(addressOf(s))
	p.Rate, p.Shape, p.Duration, p.Concurrency = rate, loadtest.Constant, 4*time.Second, 40

	if rate > 0 {
		p.Concurrency = 1000
	}

	res := run(t, p)
	if res.Failed != 0 || res.Requests < 100 {
		t.Fatalf("%d requests, %d failed: %v", res.Requests, res.Failed, res.Errors)
	}

	for _, q := range []float64{0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99} {
		got := res.Latency.Quantile(q)
		if low, high := kept.quantile(q); float64(got) < 0.99*float64(low) || float64(got) > 1.01*float64(high) {
			return fmt.Sprintf("p%v: measured %v, truth %v to %v", 100*q, got, low, high)
		}
	}

	return ""
}
