package repo_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// Two models that may each use all cores use them in turn.
func TestModelsOfAWorkerShareItsCores(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		provider string
		most     int64
	}{
		"processors":    {"cpu", 4},
		"another place": {"cuda", 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				var now, most atomic.Int64

				m := enginetest.Echo(1)
				m.Provider = tc.provider
				m.Duration = func([]engine.Tensor) time.Duration { return time.Second }
				m.Compute = func(in []engine.Tensor) ([]engine.Tensor, error) {
					now.Add(-2) // two threads a run

					return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: slices.Clone(in[0].Shape), Data: bytes.Clone(in[0].Data)}}, nil
				}
				before := m.Duration
				m.Duration = func(in []engine.Tensor) time.Duration {
					n := now.Add(2)
					for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
					}

					return before(in)
				}

				r := start(t, repo.Config{Cores: 4}, fake(m), repo.Hooks{})
				dir := pkg(t, `{"serving":{"instances":2,"threads":{"intra_op":2},"max_batch_size":1,"warmup":{"disabled":true}}}`)
				add(t, r, "a", "1", dir)
				add(t, r, "b", "1", dir)

				var wg sync.WaitGroup

				for _, name := range []string{"a", "b"} {
					for range 6 {
						wg.Go(func() {
							h, err := r.Acquire(name, "")
							if err != nil {
								t.Error(err)

								return
							}
							defer h.Release()

							res, err := h.Infer(t.Context(), request(1))
							if err != nil {
								t.Error(err)

								return
							}

							res.Release()
						})
					}
				}

				wg.Wait()

				if most.Load() != tc.most {
					t.Errorf("%d threads at once, want %d", most.Load(), tc.most)
				}
			})
		})
	}
}

func TestOptimisedGraphsAreKeptByContentAndBounded(t *testing.T) {
	t.Parallel()

	cache := t.TempDir()
	e := &enginetest.Engine{Open: func(_ context.Context, s engine.LoadSpec) (enginetest.Model, error) {
		if s.OptimizedModelPath == "" {
			return enginetest.Model{}, errors.New("no place to keep the graph")
		}

		for suffix, size := range map[string]int{"-cpu.onnx": 400, "-cpu.onnx.sha256": 64} {
			if err := os.WriteFile(s.OptimizedModelPath+suffix, make([]byte, size), 0o600); err != nil {
				return enginetest.Model{}, err
			}
		}

		return enginetest.Echo(1), nil
	}}
	r := start(t, repo.Config{CacheDir: cache, CacheBytes: 1000}, e, repo.Hooks{})

	old := filepath.Join(cache, "someone.onnx.1.tmp")
	if err := os.WriteFile(old, []byte("cut short"), 0o600); err != nil {
		t.Fatal(err)
	}

	long := time.Now().Add(-3 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}

	const config = `{"serving":{"execution":{"cache_optimized_model":true}}}`

	graphs := func() []string {
		list, err := filepath.Glob(filepath.Join(cache, "*.onnx"))
		if err != nil {
			t.Fatal(err)
		}

		return list
	}

	// The same content has the same place, wherever the package lies.
	add(t, r, "a", "1", pkg(t, config, "model.onnx", "one"))
	add(t, r, "b", "1", pkg(t, config, "model.onnx", "one"))

	if list := graphs(); len(list) != 1 {
		t.Fatalf("kept %v", list)
	}

	first := graphs()[0]
	if err := os.Chtimes(first, long, long); err != nil {
		t.Fatal(err)
	}

	add(t, r, "a", "2", pkg(t, config, "model.onnx", "two"))
	add(t, r, "a", "3", pkg(t, config, "model.onnx", "three"))

	list := graphs()
	if len(list) != 2 || strings.Contains(strings.Join(list, " "), first) {
		t.Errorf("kept %v, want two without %s", list, first)
	}

	if left, err := filepath.Glob(filepath.Join(cache, "*")); err != nil || len(left) != 4 {
		t.Errorf("left %v, %v", left, err)
	}
}

func TestWithoutACacheTheGraphIsMadeAtEveryLoad(t *testing.T) {
	t.Parallel()

	var got string

	e := &enginetest.Engine{Open: func(_ context.Context, s engine.LoadSpec) (enginetest.Model, error) {
		got = s.OptimizedModelPath

		return enginetest.Echo(1), nil
	}}
	r := start(t, repo.Config{}, e, repo.Hooks{})
	add(t, r, "a", "1", pkg(t, `{"serving":{"execution":{"cache_optimized_model":true}}}`))

	if got != "" {
		t.Errorf("keeps it at %q", got)
	}
}

func TestMetaTellsWhereAModelRuns(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		provider, config string
		gpus             []int
		executors        int
	}{
		"the default":        {"", "", nil, 1},
		"the processor":      {"cpu", `{"serving":{"instances":9,"execution":{"device_id":2}}}`, nil, 2},
		"OpenVINO":           {"openvino", `{"serving":{"execution":{"provider":"openvino"}}}`, nil, 1},
		"a GPU":              {"cuda", `{"serving":{"instances":2,"execution":{"provider":"cuda","device_id":3}}}`, []int{3}, 2},
		"TensorRT":           {"tensorrt", `{"serving":{"execution":{"provider":"tensorrt"}}}`, []int{0}, 1},
		"WebGPU, by default": {"webgpu", "", []int{0}, 1},
		"fell back":          {"cpu", `{"serving":{"execution":{"provider":"cuda","device_id":3}}}`, nil, 1},
	} {
		m := enginetest.Echo(1)
		m.Provider = tc.provider
		r := start(t, repo.Config{Cores: 2}, fake(m), repo.Hooks{})
		add(t, r, "m", "1", pkg(t, tc.config))

		h, err := r.Acquire("m", "")
		if err != nil {
			t.Fatal(err)
		}

		if m := h.Meta(); !slices.Equal(m.GPUs, tc.gpus) || m.Executors != tc.executors || m.File != "model.onnx" {
			t.Errorf("%s: devices %v, %d executors, %s", name, m.GPUs, m.Executors, m.File)
		}

		h.Release()
	}
}
