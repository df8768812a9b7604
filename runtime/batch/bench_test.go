package batch_test

import (
	"context"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
)

// nothing answers at once with memory of its own.
type nothing struct {
	*enginetest.Session

	out []engine.Tensor
}

func (n *nothing) Run(_ context.Context, in []engine.Tensor, _ []string) ([]engine.Tensor, func(), error) {
	if in[0].Shape[0] == 1 {
		return n.out, func() {}, nil
	}

	return []engine.Tensor{in[0]}, func() {}, nil
}

func startBare(tb testing.TB, cfg batch.Config) *batch.Batcher {
	tb.Helper()

	sess := &nothing{Session: enginetest.NewSession(enginetest.Echo(1)), out: []engine.Tensor{rows(1, 1)}}

	b, err := batch.New(cfg, sess, batch.Hooks{})
	if err != nil {
		tb.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- b.Run(ctx) }()

	tb.Cleanup(func() {
		cancel()
		<-done
	})

	return b
}

// BenchmarkBatcher is the cost of a request besides its run.
func BenchmarkBatcher(b *testing.B) {
	for _, tc := range []struct {
		name    string
		callers int
	}{{"alone", 1}, {"crowd", 64}} {
		b.Run(tc.name, func(b *testing.B) {
			bt := startBare(b, batch.Config{MaxBatchSize: 32})

			b.ReportAllocs()
			b.SetParallelism(tc.callers)

			if tc.callers == 1 {
				req := request(1, 1)
				req.Free = func() {}

				for b.Loop() {
					res, err := bt.Infer(b.Context(), req)
					if err != nil {
						b.Fatal(err)
					}

					res.Release()
				}

				return
			}

			b.RunParallel(func(pb *testing.PB) {
				req := request(1, 1)
				for pb.Next() {
					res, err := bt.Infer(b.Context(), req)
					if err != nil {
						b.Error(err)

						return
					}

					res.Release()
				}
			})
		})
	}
}
