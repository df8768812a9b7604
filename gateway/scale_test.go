//go:build !race

package gateway_test

import (
	"testing"
	"time"
)

// The best of many short rounds, taken in turn, says what a request costs even on a busy machine.
func TestARequestCostsTheSameAmong10000Services(t *testing.T) {
	const (
		rounds = 40
		calls  = 2000
	)

	oneWorld, one := quiet(t, 1)
	manyWorld, many := quiet(t, 10_000)

	measure := func(best time.Duration, f func()) time.Duration {
		began := time.Now()
		for range calls {
			f()
		}

		if d := time.Since(began); best == 0 || d < best {
			return d
		}

		return best
	}

	var alone, among time.Duration

	for range rounds {
		alone = measure(alone, func() { again(oneWorld, one) })
		among = measure(among, func() { again(manyWorld, many) })
	}

	t.Logf("alone %v, among 10,000 services %v", alone/calls, among/calls)

	if float64(among) > 1.25*float64(alone) {
		t.Errorf("a request costs %v among 10,000 services, %v alone", among/calls, alone/calls)
	}
}
