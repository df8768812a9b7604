package batch_test

import (
	"context"
	"encoding/binary"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
)

const ms = time.Millisecond

func TestIdleExecutorRunsAtOnce(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 8}, steady(5*ms, 0), func(r *rig) {
		r.add(2, 10)
		r.wait()

		info := r.good(10)
		if info.Queue != 0 || info.Reason != "idle" || info.BatchRows != 2 || info.BatchRequests != 1 || info.Run != 5*ms {
			t.Errorf("got %+v", info)
		}
	})
}

func TestBatchGrowsWhileTheExecutorIsBusy(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 8}, steady(5*ms, 0), func(r *rig) {
		for i := range 12 {
			r.add(1, float32(10*i))
		}

		r.wait()

		if got := r.sess.Runs(); !slices.Equal(got, []int64{1, 8, 3}) {
			t.Fatalf("runs %v", got)
		}

		if info := r.good(10); info.Reason != "full" || info.BatchRequests != 8 || info.Queue != 5*ms {
			t.Errorf("second batch %+v", info)
		}

		if info := r.good(110); info.Reason != "idle" || info.BatchRows != 3 || info.Queue != 10*ms {
			t.Errorf("third batch %+v", info)
		}
	})
}

func TestExecutorsRunSideBySide(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 4, Executors: 3}, steady(5*ms, 0), func(r *rig) {
		for i := range 3 {
			r.add(1, float32(10*i))
		}

		r.wait()

		if r.sess.MostAtOnce() != 3 {
			t.Errorf("at most %d at once", r.sess.MostAtOnce())
		}

		seen := map[int]bool{}
		for i := range 3 {
			seen[r.good(float32(10*i)).Executor] = true
		}

		if len(seen) != 3 {
			t.Errorf("executors %v", seen)
		}
	})
}

func TestQueueDelayWaitsForCompany(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 4, MaxQueueDelay: 10 * ms}, steady(ms, 0), func(r *rig) {
		r.add(1, 10)
		pass(3 * ms)
		r.add(1, 20)
		r.wait()

		if info := r.good(10); info.Reason != "delay" || info.BatchRequests != 2 || info.Queue != 10*ms {
			t.Errorf("got %+v", info)
		}

		r.add(3, 30)
		pass(2 * ms)
		r.add(1, 40)
		r.wait()

		if info := r.good(30); info.Reason != "full" || info.Queue != 2*ms {
			t.Errorf("got %+v", info)
		}
	})
}

func TestQueueDelayDoesNotCostADeadline(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 4, MaxQueueDelay: time.Second}, steady(2*ms, 0), func(r *rig) {
		r.add(4, 10) // teaches the duration
		r.wait()

		req := request(1, 20)
		req.Deadline = time.Now().Add(20 * ms)
		r.send(r.t.Context(), req, 20)
		r.wait()

		if info := r.good(20); info.Queue > 18*ms {
			t.Errorf("cut after %v", info.Queue)
		}
	})
}

func TestPreferredSizes(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 8, PreferredBatchSizes: []int{4}, MaxQueueDelay: 10 * ms}, steady(ms, 0), func(r *rig) {
		for i := range 5 {
			r.add(1, float32(10*i))
		}

		r.wait()

		if info := r.good(0); info.Reason != "preferred" || info.BatchRows != 4 {
			t.Errorf("got %+v", info)
		}

		if info := r.good(40); info.Reason != "delay" || info.BatchRows != 1 {
			t.Errorf("got %+v", info)
		}
	})
}

func TestShapesDoNotMix(t *testing.T) {
	t.Parallel()

	wide := func(first float32) *batch.Request {
		x := rows(2, first)
		x.Shape = []int64{1, 2}

		return &batch.Request{Inputs: []engine.Tensor{x}, Rows: 1}
	}

	bubble(t, batch.Config{MaxBatchSize: 8}, steady(5*ms, 0), func(r *rig) {
		r.add(1, 0)

		for i := 1; i <= 3; i++ {
			r.add(1, float32(10*i))
			r.send(r.t.Context(), wide(float32(100*i)), float32(100*i))
		}

		got := r.wait()

		if runs := r.sess.Runs(); !slices.Equal(runs, []int64{1, 3, 3}) {
			t.Errorf("runs %v", runs)
		}

		if info := r.good(10); info.Reason != "shape" {
			t.Errorf("got %+v", info)
		}

		for i := 1; i <= 3; i++ {
			if o := got[float32(100*i)].res.Outputs[0]; !slices.Equal(o.Shape, []int64{1, 2}) || value(t, got[float32(100*i)].res, 1) != float32(100*i+1) {
				t.Errorf("wide request %d: %+v", i, o)
			}
		}
	})
}

func TestStrictPriorityServesTheHighestFirst(t *testing.T) {
	t.Parallel()

	cfg := batch.Config{MaxBatchSize: 2, PriorityLevels: 3, StrictPriority: true}
	bubble(t, cfg, steady(5*ms, 0), func(r *rig) {
		r.add(2, 0)

		for i, p := range []int{3, 3, 2, 0, 1, 1} {
			req := request(1, float32(10*(i+1)))
			req.Priority = p
			r.send(r.t.Context(), req, float32(10*(i+1)))
		}

		r.wait()

		for first, want := range map[float32]time.Duration{50: 5 * ms, 60: 5 * ms, 30: 10 * ms, 40: 10 * ms, 10: 15 * ms, 20: 15 * ms} {
			if got := r.good(first).Queue; got != want {
				t.Errorf("request %v queued %v, want %v", first, got, want)
			}
		}
	})
}

func TestWeightedPriorityStarvesNobody(t *testing.T) {
	t.Parallel()

	cfg := batch.Config{MaxBatchSize: 4, PriorityLevels: 2, MaxQueueRows: 1000}
	bubble(t, cfg, steady(5*ms, 0), func(r *rig) {
		r.add(4, 0)

		for i := range 60 {
			for p := 1; p <= 2; p++ {
				first := float32(1000*p + 10*i)
				req := request(2, first)
				req.Priority = p
				r.send(r.t.Context(), req, first)
			}
		}

		pass(5*ms*30 + ms) // about half of it is served
		r.mu.Lock()
		high, low := 0, 0

		for first := range r.got {
			switch {
			case first >= 2000:
				low++
			case first >= 1000:
				high++
			}
		}
		r.mu.Unlock()

		if low == 0 || high < low*3/2 || high > low*3 {
			t.Errorf("served %d high and %d low, want about 2 to 1", high, low)
		}
	})
}

func TestPaddingBoundsTheSizes(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 16, PadToBuckets: true}, steady(5*ms, 0), func(r *rig) {
		r.add(3, 0)

		for i := range 3 {
			r.add(3, float32(10*(i+1)))
		}

		r.wait()

		if runs := r.sess.Runs(); !slices.Equal(runs, []int64{4, 16}) {
			t.Errorf("runs %v", runs)
		}

		for i := range 4 {
			if info := r.good(float32(10 * i)); i > 0 && info.BatchRows != 9 {
				t.Errorf("%+v", info)
			}
		}
	})
}

func TestQueueIsBounded(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 4, MaxQueueRows: 8}, steady(100*ms, 0), func(r *rig) {
		r.add(4, 0)
		r.add(4, 10)
		r.add(3, 20)
		r.add(2, 30)
		r.add(1, 40)
		r.wait()

		r.good(20)
		r.good(40)

		a := r.fails(30, fault.Overloaded)
		if f := fault.From(a.err); a.after != 0 || f.RetryAfter <= 0 || !strings.Contains(f.Message(), "maximum queue size") {
			t.Errorf("after %v, retry after %v: %s", a.after, f.RetryAfter, f.Message())
		}
	})
}

func TestQueueTimeoutFiresOnTimeWhateverTheExecutorDoes(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 1, DefaultTimeout: 30 * ms}, steady(time.Hour, 0), func(r *rig) {
		ctx, cancel := context.WithCancel(r.t.Context())
		r.send(ctx, request(1, 0), 0)

		r.add(1, 10) // the default

		own := request(1, 20)
		own.QueueTimeout = 7 * ms
		r.send(r.t.Context(), own, 20)

		deadline := request(1, 30)
		deadline.Deadline = time.Now().Add(11 * ms)
		r.send(r.t.Context(), deadline, 30)

		pass(50 * ms)
		synctest.Wait()

		r.mu.Lock()
		for first, want := range map[float32]time.Duration{10: 30 * ms, 20: 7 * ms, 30: 11 * ms} {
			if a := r.fails(first, fault.QueueTimeout); a.after < want || a.after > want+5*ms {
				t.Errorf("request %v was given up after %v, want %v", first, a.after, want)
			}
		}
		r.mu.Unlock()
		cancel()
	})
}

func TestDeadlineEndsARunningRequest(t *testing.T) {
	t.Parallel()

	stubborn := enginetest.Echo(1)
	hold := make(chan struct{})
	stubborn.Compute = func(in []engine.Tensor) ([]engine.Tensor, error) {
		<-hold // deaf to its context

		return in, nil
	}

	synctest.Test(t, func(t *testing.T) {
		hold = make(chan struct{})
		sess := enginetest.NewSession(stubborn)

		b, err := batch.New(batch.Config{MaxBatchSize: 4}, sess, batch.Hooks{})
		if err != nil {
			t.Fatal(err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)

		go func() { done <- b.Run(ctx) }()

		req := request(1, 1)
		req.Deadline = time.Now().Add(20 * ms)
		start := time.Now()
		_, err = b.Infer(ctx, req)

		if fault.From(err).Code != fault.BackendTimeout || time.Since(start) != 20*ms {
			t.Errorf("after %v: %v", time.Since(start), err)
		}

		// The caller has its memory back: writing to it must not race with the run.
		req.Inputs[0].Data[0]++

		close(hold)
		cancel()
		<-done
	})
}

func TestCancelledRequestLeavesTheQueue(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 4}, steady(10*ms, 0), func(r *rig) {
		r.add(1, 0)

		ctx, cancel := context.WithCancel(r.t.Context())
		r.send(ctx, request(2, 10), 10)
		r.add(1, 20)
		cancel()
		synctest.Wait()
		r.wait()

		if a := r.fails(10, fault.ClientGone); a.after != 0 {
			t.Errorf("left after %v", a.after)
		}

		if runs := r.sess.Runs(); !slices.Equal(runs, []int64{1, 1}) {
			t.Errorf("runs %v: the cancelled rows were run", runs)
		}
	})
}

func TestRunIsTerminatedWhenAllItsRequestsAreGone(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 4}, steady(time.Hour, 0), func(r *rig) {
		ctx0, cancel0 := context.WithCancel(r.t.Context())
		r.send(ctx0, request(1, 0), 0)

		ctx1, cancel1 := context.WithCancel(r.t.Context())
		ctx2, cancel2 := context.WithCancel(r.t.Context())
		r.send(ctx1, request(1, 10), 10)
		r.send(ctx2, request(1, 20), 20)

		cancel0()
		synctest.Wait()

		if n := len(r.sess.Runs()); n != 2 {
			t.Fatalf("%d runs: the cancelled run still blocks", n)
		}

		cancel1()
		synctest.Wait()
		r.add(1, 30) // queued behind the batch that has one caller left

		if n := len(r.sess.Runs()); n != 2 {
			t.Fatalf("%d runs: a run was ended that somebody waits for", n)
		}

		cancel2()
		synctest.Wait()

		if n := len(r.sess.Runs()); n != 3 {
			t.Fatalf("%d runs", n)
		}

		pass(time.Hour)
		r.wait()
		r.good(30)
	})
}

func TestOnlyTheCulpritFails(t *testing.T) {
	t.Parallel()

	bad := map[float32]bool{30: true, 70: true}
	m := steady(5*ms, 0)
	m.Compute = func(in []engine.Tensor) ([]engine.Tensor, error) {
		for i := range int(in[0].Shape[0]) {
			v := rowValue(in[0], i)
			if bad[v] {
				return nil, fault.New(fault.BadTensor, "cannot work on %v", v)
			}
		}

		return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: slices.Clone(in[0].Shape), Data: slices.Clone(in[0].Data)}}, nil
	}

	bubble(t, batch.Config{MaxBatchSize: 16}, m, func(r *rig) {
		r.add(1, 0)

		for i := 1; i <= 9; i++ {
			r.add(1+i%2, float32(10*i))
		}

		r.wait()

		for i := 1; i <= 9; i++ {
			if first := float32(10 * i); bad[first] {
				r.fails(first, fault.BadTensor)
			} else {
				r.good(first)
			}
		}
	})
}

func rowValue(t engine.Tensor, i int) float32 {
	return value(&testing.T{}, &batch.Result{Outputs: []engine.Tensor{t}}, i)
}

func TestModelThatMixesRowsIsRunAlone(t *testing.T) {
	t.Parallel()

	m := steady(5*ms, 0)
	m.Compute = func(in []engine.Tensor) ([]engine.Tensor, error) {
		return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: []int64{1, 1}, Data: slices.Clone(in[0].Data[:4])}}, nil
	}

	bubble(t, batch.Config{MaxBatchSize: 8, PadToBuckets: true}, m, func(r *rig) {
		for i := range 7 {
			r.add(1, float32(10*i))
		}

		r.wait()

		for i := range 7 {
			r.good(float32(10 * i))
		}

		r.add(3, 100) // three rows, but the model answers with one
		r.add(1, 200)
		r.wait()

		if info := r.good(200); info.Reason != "single" {
			t.Errorf("still batched: %+v", info)
		}
	})
}

func TestBadRequestsAreRefusedAtOnce(t *testing.T) {
	t.Parallel()

	x := func(n, data int, dt engine.DataType, shape ...int64) *batch.Request {
		return &batch.Request{Rows: n, Inputs: []engine.Tensor{{Type: dt, Shape: shape, Data: make([]byte, data)}}}
	}

	bubble(t, batch.Config{MaxBatchSize: 4}, steady(ms, 0), func(r *rig) {
		for name, tc := range map[string]struct {
			req  *batch.Request
			code fault.Code
			text string
		}{
			"rows":     {request(5, 0), fault.BadTensor, "batch-size must be <= 4 for 'm'"},
			"inputs":   {&batch.Request{Rows: 1}, fault.BadTensor, "takes 1 inputs"},
			"type":     {x(1, 4, engine.Int32, 1, 1), fault.BadTensor, "expects 'FP32'"},
			"batch":    {x(2, 4, engine.FP32, 1, 1), fault.BadTensor, "first dimension"},
			"scalar":   {x(1, 4, engine.FP32), fault.BadTensor, "first dimension"},
			"size":     {x(1, 5, engine.FP32, 1, 1), fault.BadTensor, "holds 5 bytes"},
			"overflow": {x(1, 0, engine.FP32, 1, 1<<62, 1<<62), fault.BadTensor, "holds 0 bytes"},
			"priority": {&batch.Request{Rows: 1, Priority: 2, Inputs: []engine.Tensor{rows(1, 0)}}, fault.InvalidArgument, "Priority 2"},
		} {
			freed := 0
			tc.req.Free = func() { freed++ }

			_, err := r.b.Infer(r.t.Context(), tc.req)
			if f := fault.From(err); f == nil || f.Code != tc.code || !strings.Contains(f.Message(), tc.text) {
				t.Errorf("%s: got %v", name, err)
			}

			if freed != 1 {
				t.Errorf("%s: freed %d times", name, freed)
			}
		}

		late := request(1, 0)
		late.Deadline = time.Now().Add(-ms)

		if _, err := r.b.Infer(r.t.Context(), late); fault.From(err).Code != fault.QueueTimeout {
			t.Errorf("late: %v", err)
		}
	})
}

func TestInputsAreFreedOnceAndLoneRequestsAreNotCopied(t *testing.T) {
	t.Parallel()

	var seen atomic.Pointer[byte]

	m := steady(10*ms, 0)
	m.Compute = func(in []engine.Tensor) ([]engine.Tensor, error) {
		seen.Store(&in[0].Data[0])

		return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: slices.Clone(in[0].Shape), Data: slices.Clone(in[0].Data)}}, nil
	}

	bubble(t, batch.Config{MaxBatchSize: 4, DefaultTimeout: 25 * ms}, m, func(r *rig) {
		var mu sync.Mutex

		freed := map[float32]int{}
		send := func(ctx context.Context, first float32) *batch.Request {
			req := request(2, first)
			req.Free = func() {
				mu.Lock()
				defer mu.Unlock()

				freed[first]++
			}
			r.send(ctx, req, first)

			return req
		}

		lone := send(r.t.Context(), 0)
		r.wait()

		if seen.Load() != &lone.Inputs[0].Data[0] {
			t.Error("a request that ran alone was copied")
		}

		borrowed := request(1, 5)
		r.send(r.t.Context(), borrowed, 5)
		r.wait()

		if seen.Load() == &borrowed.Inputs[0].Data[0] {
			t.Error("borrowed memory was given to the engine")
		}

		ctx, cancel := context.WithCancel(r.t.Context())
		send(ctx, 10) // running, then cancelled
		send(r.t.Context(), 20)
		send(r.t.Context(), 30)

		gone, cancelGone := context.WithCancel(r.t.Context())
		send(gone, 40) // waiting, then cancelled
		cancel()
		cancelGone()
		r.wait()

		mu.Lock()
		defer mu.Unlock()

		for _, first := range []float32{0, 10, 20, 30, 40} {
			if freed[first] != 1 {
				t.Errorf("request %v was freed %d times", first, freed[first])
			}
		}
	})
}

func TestOutputsAreChosenPerRequest(t *testing.T) {
	t.Parallel()

	m := enginetest.Echo(1)
	m.Outputs = append(m.Outputs, engine.Info{Name: "n", Type: engine.Bytes, Shape: []int64{-1, 2}})
	m.Duration = func([]engine.Tensor) time.Duration { return 5 * ms }
	m.Compute = func(in []engine.Tensor) ([]engine.Tensor, error) {
		n := engine.Tensor{Name: "n", Type: engine.Bytes, Shape: []int64{in[0].Shape[0], 2}}
		for i := range int(in[0].Shape[0]) {
			text := strings.Repeat("z", int(rowValue(in[0], i)))
			for _, s := range []string{text, ""} {
				n.Data = binary.LittleEndian.AppendUint32(n.Data, uint32(len(s)))
				n.Data = append(n.Data, s...)
			}
		}

		return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: slices.Clone(in[0].Shape), Data: slices.Clone(in[0].Data)}, n}, nil
	}

	bubble(t, batch.Config{MaxBatchSize: 8}, m, func(r *rig) {
		send := func(first float32, names ...string) {
			req := request(2, first)
			req.Outputs = names
			r.send(r.t.Context(), req, first)
		}

		send(1)
		send(3, "n")
		send(5, "n", "y")
		send(7)
		send(9, "nope")
		got := r.wait()

		for first, want := range map[float32]string{1: "yn", 3: "n", 5: "ny", 7: "yn"} {
			var names []string

			for _, o := range got[first].res.Outputs {
				names = append(names, o.Name)

				if o.Name != "n" {
					continue
				}

				text := "\x00\x00\x00" + strings.Repeat("z", int(first)) + "\x00\x00\x00\x00"
				if data := string(o.Data); !strings.HasPrefix(data[1:], text) || len(data) != 2*8+int(first)*2+1 {
					t.Errorf("request %v: %q", first, data)
				}
			}

			if strings.Join(names, "") != want {
				t.Errorf("request %v: outputs %q, want %q", first, names, want)
			}
		}

		r.fails(9, fault.BadTensor)
	})
}

func TestDrainAnswersWhatWasAccepted(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 2}, steady(10*ms, 0), func(r *rig) {
		for i := range 5 {
			r.add(1, float32(10*i))
		}

		short, cancel := context.WithTimeout(r.t.Context(), ms)
		defer cancel()

		if err := r.b.Drain(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}

		r.add(1, 99)

		if err := r.b.Drain(r.t.Context()); err != nil {
			t.Error(err)
		}

		r.wait()

		for i := range 5 {
			r.good(float32(10 * i))
		}

		r.fails(99, fault.ShuttingDown)

		if err := r.b.Drain(r.t.Context()); err != nil {
			t.Error(err)
		}
	})
}

func TestStopRefusesWhatIsLeft(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		sess := enginetest.NewSession(steady(time.Hour, 0))

		b, err := batch.New(batch.Config{MaxBatchSize: 2}, sess, batch.Hooks{})
		if err != nil {
			t.Fatal(err)
		}

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)

		go func() { done <- b.Run(ctx) }()

		var wg sync.WaitGroup

		for i := range 5 {
			wg.Go(func() {
				if _, err := b.Infer(t.Context(), request(1, float32(i))); fault.From(err).Code != fault.ShuttingDown {
					t.Errorf("request %d: %v", i, err)
				}
			})
		}

		synctest.Wait()
		cancel()
		<-done
		wg.Wait()

		if _, err := b.Infer(t.Context(), request(1, 1)); fault.From(err).Code != fault.ShuttingDown {
			t.Errorf("after stop: %v", err)
		}
	})
}

func TestStatsAndHooksAddUp(t *testing.T) {
	t.Parallel()

	var enqueued, started, finished, failed, cuts, rejected, pending int

	hooks := batch.Hooks{
		Enqueued: func(n int) { enqueued += n },
		Started:  func(n int, _ time.Duration) { started += n },
		Cut:      func(reason string, requests, rows int) { cuts += rows },
		Rejected: func(reason string, n int) { rejected += n },
		Pending:  func(n int) { pending = n },
		Finished: func(_ batch.Info, err error) {
			finished++
			if err != nil {
				failed++
			}
		},
	}
	m := steady(5*ms, 0)
	m.Compute = func(in []engine.Tensor) ([]engine.Tensor, error) {
		if rowValue(in[0], 0) == 20 {
			return nil, errors.New("no")
		}

		return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: slices.Clone(in[0].Shape), Data: slices.Clone(in[0].Data)}}, nil
	}

	bubbleHooks(t, batch.Config{MaxBatchSize: 2, MaxQueueRows: 4}, m, hooks, func(r *rig) {
		r.add(2, 0)
		r.add(2, 10)
		r.add(2, 20)
		r.add(1, 30) // over the bound
		r.wait()
		pass(ms)
		synctest.Wait()

		s := r.b.Stats()
		if s.Inferences != 4 || s.Executions != 2 || s.Success.Count != 2 || s.Fail.Count != 1 ||
			s.Success.Total != 15*ms || s.Queue.Total != 5*ms || s.Run.Total != 10*ms || s.PendingRows != 0 ||
			len(s.Batches) != 1 || s.Batches[0].BatchSize != 2 || s.Batches[0].Run.Count != 2 || s.LastInference.IsZero() {
			t.Errorf("stats %+v", s)
		}

		if enqueued != 6 || started != 6 || cuts != 6 || finished != 3 || failed != 1 || rejected != 1 || pending != 0 {
			t.Errorf("hooks: %d %d %d %d %d %d %d", enqueued, started, cuts, finished, failed, rejected, pending)
		}
	})
}

func TestConfigMistakesAreToldTogether(t *testing.T) {
	t.Parallel()

	_, err := batch.New(batch.Config{
		Name: "m", MaxBatchSize: 8, MaxQueueRows: 4, PreferredBatchSizes: []int{9, 4}, PriorityLevels: 2, DefaultPriority: 3, MaxQueueDelay: -1,
	}, enginetest.NewSession(enginetest.Echo(1)), batch.Hooks{})
	if err == nil {
		t.Fatal("accepted")
	}

	for _, text := range []string{"max_queue_rows 4", "preferred batch size 9", "not ascending", "default_priority 3", "negative"} {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("%q is not in: %v", text, err)
		}
	}
}
