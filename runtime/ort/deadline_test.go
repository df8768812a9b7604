package ort_test

import (
	"context"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// serving loads a model of so many steps on rows of 512, configured so, for the length of the test.
func serving(t *testing.T, steps int, config string) *repo.Handle {
	t.Helper()

	dir := filepath.Dir(write(t, onnxgen.Work(1, 512, steps)))
	writeFile(t, filepath.Join(dir, "config.json"), config)

	r, err := repo.New(repo.Config{}, newEngine(t), repo.Hooks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- r.Run(ctx) }()

	t.Cleanup(func() {
		cancel()

		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	if err := r.Add(ctx, repo.Source{Name: "m", Version: "1", Dir: dir}); err != nil {
		t.Fatal(err)
	}

	h, err := r.Acquire("m", "")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(h.Release)

	return h
}

// TestBoundsHoldWhileExecutorsCompute keeps every executor busy inside ONNX Runtime and
// measures how late the bounds of other requests fire. It is not parallel: it is about time.
func TestBoundsHoldWhileExecutorsCompute(t *testing.T) {
	h := serving(t, 300, `{"serving":{"max_batch_size":16,"instances":8,"warmup":{"disabled":true}}}`)

	// The bound is on the queue, because a deadline that cannot be met is refused at once.
	ask := func(rows int64, bound time.Duration) error {
		x := engine.Tensor{Name: "x", Type: engine.FP32, Shape: []int64{rows, 512}, Data: make([]byte, rows*512*4)}

		res, err := h.Infer(t.Context(), &batch.Request{Rows: int(rows), Inputs: []engine.Tensor{x}, QueueTimeout: bound})
		if err == nil {
			res.Release()
		}

		return err
	}

	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		lates []time.Duration
	)

	for range 12 { // keeps the executors and the queue full
		wg.Go(func() {
			for range 6 {
				if err := ask(16, time.Minute); err != nil {
					t.Error(err)
				}
			}
		})
	}

	for i := range 60 {
		wg.Go(func() {
			<-time.After(time.Duration(i) * 7 * time.Millisecond)

			bound := time.Duration(2+i%20) * time.Millisecond
			start := time.Now()
			err := ask(1, bound)
			late := time.Since(start) - bound

			if err == nil {
				return // an executor became free in time
			}

			if fault.From(err).Code != fault.QueueTimeout {
				t.Errorf("got %v, %v after the bound", err, late)
			}

			mu.Lock()
			defer mu.Unlock()

			lates = append(lates, late)
		})
	}

	wg.Wait()
	if len(lates) == 0 {
		t.Fatal("no bound was reached")
	}

	slices.Sort(lates)

	median := lates[len(lates)/2]
	t.Logf("%d bounds fired, %v late in the median, %v at worst", len(lates), median, lates[len(lates)-1])

	// The worst depends on what else the machine does; the exact rule is tested in virtual time.
	if median > 20*time.Millisecond {
		t.Errorf("bounds fire %v late in the median", median)
	}
}

// TestShortDeadlinesUnderLongRuns asks with deadlines of 5 ms, while a long run is under way and as the long
// run itself. Whoever has more time is not harmed.
func TestShortDeadlinesUnderLongRuns(t *testing.T) {
	const limit = 5 * time.Millisecond

	h := serving(t, 600, `{"serving":{"max_batch_size":16,"warmup":{"disabled":true}}}`)

	ask := func(rows int64, deadline time.Time) (batch.Info, error) {
		x := engine.Tensor{Name: "x", Type: engine.FP32, Shape: []int64{rows, 512}, Data: make([]byte, rows*512*4)}

		res, err := h.Infer(t.Context(), &batch.Request{Rows: int(rows), Inputs: []engine.Tensor{x}, Deadline: deadline})
		if err != nil {
			return batch.Info{}, err
		}
		defer res.Release()

		return res.Info, nil
	}

	late := func(rows int64) (time.Duration, error) {
		start := time.Now()
		_, err := ask(rows, start.Add(limit))

		return time.Since(start) - limit, err
	}

	is := func(err error, want ...fault.Code) {
		t.Helper()

		if err == nil || !slices.Contains(want, fault.From(err).Code) {
			t.Errorf("a deadline of %v: %v", limit, err)
		}
	}

	const samples = 12

	var waiting, running []time.Duration

	for try := 0; len(waiting) < samples && try < 4*samples; try++ {
		var (
			long  batch.Info
			began = time.Now()
			done  = make(chan error, 1)
		)

		go func() {
			var err error

			long, err = ask(16, time.Time{})
			done <- err
		}()

		<-time.After(20 * time.Millisecond) // by then it runs, for much longer

		asked := time.Since(began)
		after, err := late(1)
		told := time.Since(began)

		if err := <-done; err != nil {
			t.Fatalf("the long one: %v", err)
		}

		// On a busy machine it may have begun late or ended early, and then shows nothing.
		if runs := long.Queue + long.CopyIn; runs < asked && told < runs+long.Run {
			is(err, fault.QueueTimeout, fault.Overloaded)

			waiting = append(waiting, after)
		}

		// With nothing else there it is tried, and its run is terminated.
		after, err = late(16)
		is(err, fault.BackendTimeout, fault.QueueTimeout)

		running = append(running, after)
	}

	if len(waiting) < samples {
		t.Fatalf("only %d of %d requests came while the long one ran", len(waiting), len(running))
	}

	if _, err := ask(1, time.Time{}); err != nil {
		t.Errorf("afterwards: %v", err)
	}

	for name, lates := range map[string][]time.Duration{"waiting": waiting, "running": running} {
		slices.Sort(lates)
		t.Logf("%s: %v late in the median, %v at worst", name, lates[len(lates)/2], lates[len(lates)-1])

		// The worst depends on what else the machine does.
		if median := lates[len(lates)/2]; median > 20*time.Millisecond {
			t.Errorf("%s: deadlines fire %v late in the median", name, median)
		}
	}
}
