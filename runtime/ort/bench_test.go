package ort_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// BenchmarkRunOverhead is a run of a model that does nothing.
func BenchmarkRunOverhead(b *testing.B) {
	for _, n := range []int64{1, 1 << 18} {
		b.Run(fmt.Sprintf("floats=%d", n), func(b *testing.B) {
			s := load(b, onnxgen.Identity(onnxgen.Float, onnxgen.Shape(-1)))
			in := []engine.Tensor{{Type: engine.FP32, Shape: []int64{n}, Data: make([]byte, 4*n)}}
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()

			b.SetBytes(4 * n)
			b.ReportAllocs()

			for b.Loop() {
				_, release, err := s.Run(ctx, in, nil)
				if err != nil {
					b.Fatal(err)
				}

				release()
			}
		})
	}
}

// BenchmarkBindingAndShim runs the same models both ways.
func BenchmarkBindingAndShim(b *testing.B) {
	for _, m := range []struct {
		name  string
		model *onnxgen.Model
		shape []int64
	}{
		{"trivial", onnxgen.Identity(onnxgen.Float, onnxgen.Shape(-1)), []int64{1}},
		{"trivial-1MB", onnxgen.Identity(onnxgen.Float, onnxgen.Shape(-1)), []int64{1 << 18}},
		{"mlp-row", onnxgen.MLP(1, 256, 512, 512, 16), []int64{1, 256}},
		{"mlp-batch", onnxgen.MLP(1, 256, 512, 512, 16), []int64{16, 256}},
	} {
		path := write(b, m.model)
		e := newEngine(b)
		in := []engine.Tensor{{Type: engine.FP32, Shape: m.shape, Data: make([]byte, 4*engine.Elements(m.shape))}}

		for _, way := range []struct {
			name string
			load func() (engine.Session, error)
		}{
			{"binding", func() (engine.Session, error) { return e.Load(b.Context(), engine.LoadSpec{Path: path}) }},
			{"shim", func() (engine.Session, error) { return e.OpenShim(path) }},
		} {
			b.Run(m.name+"/"+way.name, func(b *testing.B) { runs(b, way.load, in) })
		}
	}
}

// BenchmarkLoad loads a model of 100 MB both ways; the binding looks at it first.
func BenchmarkLoad(b *testing.B) {
	path := write(b, onnxgen.MLP(1, 1024, 4096, 4096, 1024))
	e := newEngine(b)

	for name, load := range map[string]func() (engine.Session, error){
		"binding": func() (engine.Session, error) { return e.Load(b.Context(), engine.LoadSpec{Path: path}) },
		"shim":    func() (engine.Session, error) { return e.OpenShim(path) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s, err := load()
				if err != nil {
					b.Fatal(err)
				}

				if err := s.Close(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func runs(b *testing.B, load func() (engine.Session, error), in []engine.Tensor) {
	b.Helper()

	s, err := load()
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()

	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()

	b.ReportAllocs()

	for b.Loop() {
		_, release, err := s.Run(ctx, in, nil)
		if err != nil {
			b.Fatal(err)
		}

		release()
	}
}

// serve runs a repository with one model and gives a handle.
func serve(b *testing.B, m *onnxgen.Model, config string) *repo.Handle {
	b.Helper()

	dir := filepath.Dir(write(b, m))
	if config != "" {
		writeFile(b, filepath.Join(dir, "config.json"), config)
	}

	r, err := repo.New(repo.Config{}, newEngine(b), repo.Hooks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		b.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- r.Run(ctx) }()

	b.Cleanup(func() {
		cancel()
		<-done
	})

	if err := r.Add(ctx, repo.Source{Name: "m", Version: "1", Dir: dir}); err != nil {
		b.Fatal(err)
	}

	h, err := r.Acquire("m", "")
	if err != nil {
		b.Fatal(err)
	}

	b.Cleanup(h.Release)

	return h
}

// infer keeps callers asking for one row each until b.N rows are answered, and reports the
// rate and the 95th percentile of the time of an answer.
func infer(b *testing.B, h *repo.Handle, width int64, callers int) {
	b.Helper()

	var (
		left  atomic.Int64
		wg    sync.WaitGroup
		mu    sync.Mutex
		times []time.Duration
	)

	left.Store(int64(b.N))
	b.ResetTimer()

	for range callers {
		wg.Go(func() {
			x := engine.Tensor{Name: "x", Type: engine.FP32, Shape: []int64{1, width}, Data: make([]byte, 4*width)}
			own := make([]time.Duration, 0, b.N/callers+1)

			for left.Add(-1) >= 0 {
				start := time.Now()

				res, err := h.Infer(context.Background(), &batch.Request{Rows: 1, Inputs: []engine.Tensor{x}})
				if err != nil {
					b.Error(err)

					return
				}

				res.Release()

				own = append(own, time.Since(start))
			}

			mu.Lock()
			defer mu.Unlock()

			times = append(times, own...)
		})
	}

	wg.Wait()
	b.StopTimer()
	slices.Sort(times)

	if len(times) > 0 {
		b.ReportMetric(float64(len(times))/b.Elapsed().Seconds(), "rows/s")
		b.ReportMetric(float64(times[len(times)*95/100].Microseconds()), "p95-µs")
	}
}

// BenchmarkDynamicBatching compares batch 1 with dynamic batching on an MLP whose weights do
// not fit into the cache: the same callers, the same threads.
func BenchmarkDynamicBatching(b *testing.B) {
	model := onnxgen.MLP(1, 1024, 4096, 4096, 1024) // 100 MB of weights

	for _, tc := range []struct{ name, config string }{
		{"batch=1", `{"serving":{"max_batch_size":32,"batching":{"disabled":true}}}`},
		{"dynamic", `{"serving":{"max_batch_size":32}}`},
	} {
		b.Run(tc.name, func(b *testing.B) { infer(b, serve(b, model, tc.config), 1024, 32) })
	}
}

// BenchmarkSaturation compares a bare loop over ONNX Runtime at its best batch with the
// batcher under many callers, for a model of about 2 ms a row.
func BenchmarkSaturation(b *testing.B) {
	const width, size = 512, 16

	model := onnxgen.Work(1, width, 40)

	b.Run("bare", func(b *testing.B) {
		s := load(b, model)
		in := []engine.Tensor{{Type: engine.FP32, Shape: []int64{size, width}, Data: make([]byte, size*width*4)}}

		for done := 0; done < b.N; done += size {
			_, release, err := s.Run(b.Context(), in, nil)
			if err != nil {
				b.Fatal(err)
			}

			release()
		}

		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("batched", func(b *testing.B) {
		infer(b, serve(b, model, fmt.Sprintf(`{"serving":{"max_batch_size":%d}}`, size)), width, 4*size)
	})
}

// BenchmarkLoadOptimised loads a model of many nodes from its file, and from its kept optimised graph.
func BenchmarkLoadOptimised(b *testing.B) {
	e := newEngine(b)
	path := os.Getenv("SLUICE_BENCH_MODEL")

	if path == "" {
		path = write(b, onnxgen.Work(1, 64, 500))
	}

	for _, kept := range []string{"", filepath.Join(b.TempDir(), "graph")} {
		load := func() {
			s, err := e.Load(b.Context(), engine.LoadSpec{Path: path, OptimizedModelPath: kept})
			if err != nil {
				b.Fatal(err)
			}

			if err := s.Close(); err != nil {
				b.Fatal(err)
			}
		}

		b.Run(fmt.Sprintf("kept=%v", kept != ""), func(b *testing.B) {
			load() // makes what is kept

			for b.Loop() {
				load()
			}
		})
	}
}
