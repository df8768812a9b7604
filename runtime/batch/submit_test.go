package batch_test

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
)

// receiver keeps what it is told.
type receiver struct {
	mu      *sync.Mutex
	flushed *int
	res     *batch.Result
	err     error
	times   int
	seen    int // flushes before the answer
}

func (r *receiver) Answer(res *batch.Result, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()

	r.res, r.err = res, err
	r.times++
	r.seen = *r.flushed

	if res != nil {
		res.Release()
	}
}

func (r *receiver) Flush() {
	r.mu.Lock()
	defer r.mu.Unlock()

	*r.flushed++
}

func receivers(n int) []*receiver {
	var (
		mu      sync.Mutex
		flushed int
		all     []*receiver
	)

	for range n {
		all = append(all, &receiver{mu: &mu, flushed: &flushed})
	}

	return all
}

func owned(first float32) *batch.Request {
	r := request(1, first)
	r.Free = func() {}

	return r
}

// TestSubmitRunsTogether submits to an idle executor: nothing runs before Flush, and then all in one batch
// whose answers are flushed once.
func TestSubmitRunsTogether(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 16}, steady(time.Millisecond, 0), func(r *rig) {
		all := receivers(10)

		for i, to := range all {
			if err := r.b.Submit(owned(float32(i)), to, all[0]); err != nil {
				t.Fatal(err)
			}
		}

		synctest.Wait()

		if n := r.b.Stats().Executions; n != 0 {
			t.Fatalf("%d runs before the flush", n)
		}

		r.b.Flush()
		pass(10 * time.Millisecond)
		synctest.Wait()

		for i, to := range all {
			if to.times != 1 || to.err != nil || to.res.Info.BatchRequests != len(all) || to.seen != 0 {
				t.Errorf("%d: %d answers, %v, %+v, %d flushes before", i, to.times, to.err, to.res, to.seen)
			}
		}

		if n := *all[0].flushed; n != 1 {
			t.Errorf("flushed %d times", n)
		}
	})
}

// TestSubmittedRequestsEnd as waiting ones do: by their deadline, by cancelling, and when the batcher stops.
func TestSubmittedRequestsEnd(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 1}, steady(time.Second, 0), func(r *rig) {
		all := receivers(4)
		reqs := []*batch.Request{owned(1), owned(2), owned(3), owned(4)}
		reqs[1].QueueTimeout = 100 * time.Millisecond

		for i, to := range all {
			if err := r.b.Submit(reqs[i], to, to); err != nil {
				t.Fatal(err)
			}
		}

		r.b.Flush()
		pass(200 * time.Millisecond)
		synctest.Wait()

		if fault.From(all[1].err) == nil || fault.From(all[1].err).Code != fault.QueueTimeout {
			t.Errorf("the one in the queue ended with %v", all[1].err)
		}

		r.b.Cancel(reqs[2], context.Canceled) // waits
		r.b.Cancel(reqs[0], context.Canceled) // runs
		r.b.Cancel(reqs[1], context.Canceled) // has its answer
		pass(3 * time.Second)
		synctest.Wait()

		for i, want := range []fault.Code{fault.ClientGone, fault.QueueTimeout, fault.ClientGone} {
			if f := fault.From(all[i].err); all[i].times != 1 || f == nil || f.Code != want {
				t.Errorf("%d: %d answers, %v, want %s", i, all[i].times, all[i].err, want.Wire())
			}
		}

		if all[3].times != 1 || all[3].err != nil || *all[0].flushed != 4 {
			t.Errorf("the last: %d answers, %v; %d flushes", all[3].times, all[3].err, *all[0].flushed)
		}
	})
}

// TestSubmitRefuses what Infer refuses, at once and without an answer.
func TestSubmitRefuses(t *testing.T) {
	t.Parallel()

	bubble(t, batch.Config{MaxBatchSize: 4}, steady(time.Millisecond, 0), func(r *rig) {
		freed := 0
		req := request(5, 1)
		req.Free = func() { freed++ }
		to := receivers(1)[0]

		err := r.b.Submit(req, to, to)
		if f := fault.From(err); f == nil || f.Code != fault.BadTensor || freed != 1 || to.times != 0 {
			t.Errorf("%v, freed %d times, %d answers", err, freed, to.times)
		}

		r.b.Cancel(req, context.Canceled)
		r.b.Flush()
	})
}
