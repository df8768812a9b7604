package ort_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// residentKiB is the resident size of this process.
func residentKiB(t *testing.T) int {
	t.Helper()

	data, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Skipf("the resident size is not known here: %v", err)
	}

	for line := range strings.Lines(string(data)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}

			return n
		}
	}

	t.Skip("the resident size is not known here")

	return 0
}

// TestLoadAndUnloadKeepTheSize loads, uses and unloads a model over and over. It does not run
// in parallel with others: it measures the process. SLUICE_RELOADS sets how often.
func TestLoadAndUnloadKeepTheSize(t *testing.T) {
	reloads := 300
	if v := os.Getenv("SLUICE_RELOADS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}

		reloads = n
	}

	dir := filepath.Dir(write(t, onnxgen.MLP(1, 256, 512, 512, 16))) // 1.6 MB of weights

	r, err := repo.New(repo.Config{}, newEngine(t), repo.Hooks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)

	go func() { done <- r.Run(ctx) }()

	cycle := func() {
		t.Helper()

		if err := r.Add(ctx, repo.Source{Name: "m", Version: "1", Dir: dir}); err != nil {
			t.Fatal(err)
		}

		h, err := r.Acquire("m", "")
		if err != nil {
			t.Fatal(err)
		}

		x := engine.Tensor{Name: "x", Type: engine.FP32, Shape: []int64{4, 256}, Data: make([]byte, 4*256*4)}

		res, err := h.Infer(ctx, &batch.Request{Rows: 4, Inputs: []engine.Tensor{x}})
		if err != nil {
			t.Fatal(err)
		}

		res.Release()
		h.Release()

		if err := r.Unload(ctx, "m", ""); err != nil {
			t.Fatal(err)
		}
	}

	// The threads of the process fill their malloc caches first; that is bounded.
	for range 30 {
		cycle()
	}

	before := residentKiB(t)

	for range reloads {
		cycle()
	}

	after := residentKiB(t)
	t.Logf("%d cycles: %d KiB, then %d KiB", reloads, before, after)

	if limit := before + before/20; after > limit {
		t.Errorf("the process grew from %d to %d KiB, more than 5 %%", before, after)
	}

	cancel()

	if err := <-done; err != nil {
		t.Error(err)
	}
}
