package batch_test

import (
	"context"
	"encoding/binary"
	"math"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func rows(n int, first float32) engine.Tensor {
	data := make([]byte, 0, 4*n)
	for i := range n {
		data = binary.LittleEndian.AppendUint32(data, math.Float32bits(first+float32(i)))
	}

	return engine.Tensor{Name: "x", Type: engine.FP32, Shape: []int64{int64(n), 1}, Data: data}
}

func request(n int, first float32) *batch.Request {
	return &batch.Request{Inputs: []engine.Tensor{rows(n, first)}, Rows: n}
}

func value(t *testing.T, res *batch.Result, i int) float32 {
	t.Helper()

	return math.Float32frombits(binary.LittleEndian.Uint32(res.Outputs[0].Data[4*i:]))
}

// pass lets time of the bubble pass.
func pass(d time.Duration) { <-time.After(d) }

// steady is an echo of one value a row that takes fixed plus each per row.
func steady(fixed, each time.Duration) enginetest.Model {
	m := enginetest.Echo(1)
	m.Duration = func(in []engine.Tensor) time.Duration {
		return fixed + each*time.Duration(in[0].Shape[0])
	}

	return m
}

// answer is what came of one Infer.
type answer struct {
	first float32
	rows  int
	res   *batch.Result
	err   error
	after time.Duration
}

// rig is a running batcher in a synctest bubble.
type rig struct {
	t    *testing.T
	b    *batch.Batcher
	sess *enginetest.Session
	wg   sync.WaitGroup
	mu   sync.Mutex
	got  map[float32]answer
}

// bubble runs f with a batcher and checks afterwards that nothing is left.
func bubble(t *testing.T, cfg batch.Config, m enginetest.Model, f func(r *rig)) {
	t.Helper()
	bubbleHooks(t, cfg, m, batch.Hooks{}, f)
}

func bubbleHooks(t *testing.T, cfg batch.Config, m enginetest.Model, hooks batch.Hooks, f func(r *rig)) {
	t.Helper()

	synctest.Test(t, func(t *testing.T) {
		cfg.Name = "m"
		r := &rig{t: t, sess: enginetest.NewSession(m), got: map[float32]answer{}}

		b, err := batch.New(cfg, r.sess, hooks)
		if err != nil {
			t.Fatal(err)
		}

		r.b = b
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)

		go func() { done <- b.Run(ctx) }()

		synctest.Wait()
		f(r)
		r.wg.Wait()
		cancel()

		if err := <-done; err != nil {
			t.Error(err)
		}

		for _, a := range r.got {
			if a.res != nil {
				a.res.Release()
			}
		}

		if n := r.sess.Unreleased(); n != 0 {
			t.Errorf("outputs of %d runs were not released", n)
		}

		if err := r.sess.Close(); err != nil {
			t.Error(err)
		}
	})
}

// send starts a request and returns when it is in the queue or running.
func (r *rig) send(ctx context.Context, req *batch.Request, first float32) {
	r.wg.Go(func() {
		start := time.Now()
		res, err := r.b.Infer(ctx, req)

		r.mu.Lock()
		defer r.mu.Unlock()

		r.got[first] = answer{first, req.Rows, res, err, time.Since(start)}
	})
	synctest.Wait()
}

func (r *rig) add(n int, first float32) { r.send(r.t.Context(), request(n, first), first) }

func (r *rig) wait() map[float32]answer {
	r.wg.Wait()

	return r.got
}

// good fails the test unless the answer to first is right, and gives it.
func (r *rig) good(first float32) batch.Info {
	r.t.Helper()

	a, ok := r.got[first]
	if !ok || a.err != nil {
		r.t.Fatalf("request %v: %v", first, a.err)
	}

	if got := int(a.res.Outputs[0].Shape[0]); got != a.rows {
		r.t.Errorf("request %v has %d rows back, sent %d", first, got, a.rows)
	}

	for i := range a.rows {
		if v := value(r.t, a.res, i); v != first+float32(i) {
			r.t.Errorf("request %v row %d is %v", first, i, v)
		}
	}

	return a.res.Info
}

func (r *rig) fails(first float32, code fault.Code) answer {
	r.t.Helper()

	a := r.got[first]
	if a.err == nil || fault.From(a.err).Code != code {
		r.t.Errorf("request %v: got %v, want %s", first, a.err, code.Wire())
	}

	return a
}
