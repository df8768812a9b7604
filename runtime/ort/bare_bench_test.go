package ort_test

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// BenchmarkBare is the bare loop that the parts "saturation" and "gpu" of test/bench hold a worker against: as
// many loops over one model as SLUICE_BENCH_LOOPS says, of one thread each, that do nothing but run it on batches of
// SLUICE_BENCH_ROWS rows with the provider SLUICE_BENCH_PROVIDER on the device SLUICE_BENCH_DEVICE. There is no falling back.
func BenchmarkBare(b *testing.B) {
	path := os.Getenv("SLUICE_BENCH_MODEL")
	if path == "" {
		b.Skip("SLUICE_BENCH_MODEL names no model")
	}

	number := func(name, fallback string) int {
		n, err := strconv.Atoi(cmp.Or(os.Getenv(name), fallback))
		if err != nil || n < 0 {
			b.Fatalf("%s=%s is no number", name, os.Getenv(name))
		}

		return n
	}

	loops, rows := number("SLUICE_BENCH_LOOPS", "1"), int64(number("SLUICE_BENCH_ROWS", "64"))
	provider := cmp.Or(os.Getenv("SLUICE_BENCH_PROVIDER"), "cpu")

	s, err := newEngine(b).Load(b.Context(), engine.LoadSpec{
		Path: path, Providers: []string{provider}, DeviceID: number("SLUICE_BENCH_DEVICE", "0"), Strict: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()

	if got := s.Provider(); got != provider {
		b.Fatalf("the model runs with %s, want %s", got, provider)
	}

	width := s.Inputs()[0].Shape[1]

	b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) {
		var (
			left atomic.Int64
			wg   sync.WaitGroup
		)

		left.Store(int64(b.N))

		rates := make([]float64, loops)
		begin := time.Now()

		for i := range loops {
			wg.Go(func() {
				in := []engine.Tensor{{Type: engine.FP32, Shape: []int64{rows, width}, Data: make([]byte, 4*rows*width)}}
				runs := 0

				for ; left.Add(-1) >= 0; runs++ {
					_, release, err := s.Run(b.Context(), in, nil)
					if err != nil {
						b.Error(err)

						return
					}

					release()
				}

				// To its own end: the last one to end has the device for itself for a while.
				rates[i] = float64(runs) * float64(rows) / time.Since(begin).Seconds()
			})
		}

		wg.Wait()

		sum := 0.0
		for _, r := range rates {
			sum += r
		}

		b.ReportMetric(sum, "rows/s")
	})
}
