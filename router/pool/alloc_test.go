//go:build !race

package pool_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/router/pool"
)

func TestAllocsPick(t *testing.T) {
	for _, picker := range []pool.Picker{pool.PowerOfTwo, pool.LeastRequest, pool.RoundRobin, pool.ConsistentHash, pool.SourceIP} {
		p := newPool(t, pool.Config{}, picker, ids(4)...)
		r, l, until, ctx := &pool.Request{Key: 3, SourceKey: 4}, &pool.Lease{}, soon(), t.Context()

		if n := testing.AllocsPerRun(500, func() {
			if p.Acquire(ctx, r, until, l) != nil {
				t.Fatal("nobody")
			}

			l.Answered()
			l.Done(pool.OK)
		}); n != 0 {
			t.Errorf("%v: %v allocations a pick", picker, n)
		}
	}
}
