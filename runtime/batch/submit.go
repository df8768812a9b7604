package batch

import (
	"time"
)

// Receiver takes the answer of a submitted request.
type Receiver interface {
	// Answer is called exactly once. It runs where batches are run, so that it must be quick and must
	// not wait; the result is its own to release. Request and inputs stay valid until it returns.
	Answer(res *Result, err error)
}

// Flusher is told after the last Answer of a batch whose receivers share it.
type Flusher interface{ Flush() }

// Submit is Infer without waiting: to gets the answer, and out is flushed after the answers of a batch.
// Nothing runs before Flush unless an executor looks for work anyway, so that requests which arrive
// together run together. With an error, which Infer would have returned, to is not called.
func (b *Batcher) Submit(r *Request, to Receiver, out Flusher) error {
	if _, err := b.admit(r, to, out); err != nil {
		if r.Free != nil {
			r.Free()
		}

		return err
	}

	return nil
}

// Flush offers what was submitted to idle executors.
func (b *Batcher) Flush() {
	b.mu.Lock()
	defer b.mu.Unlock()

	if b.idle > 0 && b.queue.items > 0 {
		b.dispatch(time.Now())
	}
}

// Cancel gives a submitted request up, as the end of Infer's context does; its receiver is told unless
// it has its answer already. r must be the caller's still.
func (b *Batcher) Cancel(r *Request, cause error) {
	b.mu.Lock()

	it := r.item
	if it == nil {
		b.mu.Unlock()

		return
	}

	b.leaveLocked(it, cause)
}

func (b *Batcher) newItem() *item {
	it := &item{slot: -1, done: make(chan struct{}, 1)}
	it.hand = func() { b.deliverAlone(it) }

	return it
}

// detach makes a submitted request one that cannot be cancelled any more. Caller holds mu.
func (it *item) detach() {
	if it.to != nil {
		it.req.item = nil
	}
}

// signal tells that there is an answer: to whoever waits, or on a goroutine of its own, as the lock may
// be held and a receiver may take its time.
func (it *item) signal() {
	if it.to == nil {
		it.done <- struct{}{}

		return
	}

	go it.hand()
}

func (b *Batcher) deliverAlone(it *item) {
	out := it.out

	b.hand(it)

	if out != nil {
		out.Flush()
	}
}

// hand gives the answer to the receiver.
func (b *Batcher) hand(it *item) {
	res, err := it.res, it.err
	if it.work == nil && it.req.Free != nil {
		it.req.Free() // it never ran
	}

	it.to.Answer(res, err)

	if !it.gone {
		b.recycle(it)
	}
}

// deliver answers the items of a batch.
func (b *Batcher) deliver(items []*item) {
	var out Flusher

	for _, it := range items {
		if it.to == nil {
			it.signal()

			continue
		}

		next := it.out
		b.hand(it)

		if out != nil && next != out {
			out.Flush()
		}

		out = next
	}

	if out != nil {
		out.Flush()
	}
}
