//go:build !race

package measure_test

import (
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

//nolint:paralleltest // AllocsPerRun counts what all goroutines allocate
func TestRecordDoesNotAllocate(t *testing.T) {
	c := measure.NewCollector(measure.Config{Workers: 1, Targets: 1, Duration: time.Hour})
	w := c.Worker(0)
	good := ok(0, time.Millisecond)
	bad := ok(0, time.Millisecond)
	bad.Status, bad.Body = 500, []byte(`{"error_code":"X.1"}`)
	w.Record(bad)

	if n := testing.AllocsPerRun(1000, func() {
		w.Record(good)
		w.Record(bad)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
