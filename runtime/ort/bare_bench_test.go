package ort_test

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// BenchmarkBare is the bare loop that the part "saturation" of test/bench holds a worker against: as many loops
// over one model as SLUICE_BENCH_LOOPS says, of one thread each, that do nothing but run it.
func BenchmarkBare(b *testing.B) {
	path := os.Getenv("SLUICE_BENCH_MODEL")
	if path == "" {
		b.Skip("SLUICE_BENCH_MODEL names no model")
	}

	loops, err := strconv.Atoi(cmp.Or(os.Getenv("SLUICE_BENCH_LOOPS"), "1"))
	if err != nil {
		b.Fatal(err)
	}

	s, err := newEngine(b).Load(b.Context(), engine.LoadSpec{Path: path})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()

	width := s.Inputs()[0].Shape[1]

	for _, rows := range []int64{1, 4, 16, 64} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
			var (
				left atomic.Int64
				wg   sync.WaitGroup
			)

			left.Store(int64(b.N))

			for range loops {
				wg.Go(func() {
					in := []engine.Tensor{{Type: engine.FP32, Shape: []int64{rows, width}, Data: make([]byte, 4*rows*width)}}

					for left.Add(-1) >= 0 {
						_, release, err := s.Run(b.Context(), in, nil)
						if err != nil {
							b.Error(err)

							return
						}

						release()
					}
				})
			}

			wg.Wait()
			b.ReportMetric(float64(b.N)*float64(rows)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
