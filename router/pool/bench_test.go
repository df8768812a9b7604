package pool_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/router/pool"
)

func BenchmarkPick(b *testing.B) {
	for _, picker := range []pool.Picker{pool.PowerOfTwo, pool.LeastRequest, pool.RoundRobin, pool.ConsistentHash} {
		b.Run(picker.String(), func(b *testing.B) {
			p := newPool(b, pool.Config{}, picker, ids(4)...)
			until, ctx := soon(), b.Context()
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r, l := &pool.Request{Key: 3}, &pool.Lease{}
				for pb.Next() {
					if p.Acquire(ctx, r, until, l) != nil {
						b.Error("nobody")

						return
					}

					l.Done(pool.OK)
				}
			})
		})
	}
}
