package batch

import (
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Request is one call of the model.
type Request struct {
	// Inputs holds every input of the model, in the model's order. For a batchable model
	// the first dimension of each is Rows.
	Inputs []engine.Tensor
	// Rows is how much of a batch the request takes; 0 means 1.
	Rows int
	// Outputs names the wanted outputs; empty means all.
	Outputs []string
	// Priority 1 is the highest; 0 means the configured default.
	Priority int
	// Deadline ends the request wherever it is; zero means none.
	Deadline time.Time
	// QueueTimeout bounds the time in the queue; 0 means the configured default.
	QueueTimeout time.Duration
	// Free, when set, hands the memory of Inputs to the Batcher, which calls Free exactly
	// once when nothing reads it any more, also when Infer fails. When nil, the memory is
	// not read after Infer has returned, and a request that runs alone is copied first.
	Free func()

	// item is where a submitted request is, until it is decided. Guarded by Batcher.mu.
	item *item
}

// Reasons for cutting a batch, as told in Info.Reason.
const (
	ReasonIdle      = "idle"      // an executor was free and nothing else waited
	ReasonFull      = "full"      // the next request would not have fitted
	ReasonPreferred = "preferred" // a preferred size was reached
	ReasonDelay     = "delay"     // the oldest request had waited max_queue_delay
	ReasonShape     = "shape"     // what else waited has other shapes
	ReasonSingle    = "single"    // the model is not batched
)

// Info tells how a request was run.
type Info struct {
	Rows          int
	BatchRows     int
	BatchRequests int
	Reason        string
	Queue         time.Duration
	CopyIn        time.Duration
	Run           time.Duration
	CopyOut       time.Duration
	Executor      int
}

// Result is the answer to one Request.
type Result struct {
	// Outputs alias the batch's output memory until Release.
	Outputs []engine.Tensor
	Info    Info

	memory   *memory
	released atomic.Bool
}

// Release gives the output memory back. It is idempotent; Outputs must not be used afterwards.
func (r *Result) Release() {
	if r.released.CompareAndSwap(false, true) && r.memory != nil {
		r.memory.done()
	}
}

// memory is the output of one run, shared by the results cut from it.
type memory struct {
	refs    atomic.Int32
	release func()
}

func (m *memory) done() {
	if m.refs.Add(-1) == 0 && m.release != nil {
		m.release()
	}
}

// Reasons for refusing a request, as told to Hooks.Rejected.
const (
	RejectQueueFull = "queue_full" // more rows wait than the queue holds
	RejectLate      = "late"       // it would not be done before its deadline
	RejectExpired   = "expired"    // its deadline passed in the queue
	RejectCancelled = "cancelled"  // the caller left while it waited
	RejectDraining  = "draining"   // the batcher is stopping
)

// Hooks report what happens; any may be nil. They are called on the request path and
// must not block.
type Hooks struct {
	// Enqueued is called for every accepted request.
	Enqueued func(rows int)
	// Rejected is called for every request that ends without having been started.
	Rejected func(reason string, rows int)
	// Pending tells the rows that wait, after every change.
	Pending func(rows int)
	// Started is called when a request leaves the queue for an executor.
	Started func(rows int, queued time.Duration)
	// Cut is called for every batch.
	Cut func(reason string, requests, rows int)
	// Finished is called once per started request.
	Finished func(info Info, err error)
}

// Span is a count and a sum of durations.
type Span struct {
	Count int64
	Total time.Duration
}

// SizeStats are the runs of one batch size.
type SizeStats struct {
	BatchSize int
	CopyIn    Span
	Run       Span
	CopyOut   Span
}

// Stats are counters since the batcher was made, in the terms of the protocol's statistics.
type Stats struct {
	// Inferences counts rows of successful requests, Executions counts runs.
	Inferences    int64
	Executions    int64
	LastInference time.Time
	// Success and Fail hold the whole time of requests.
	Success, Fail               Span
	Queue, CopyIn, Run, CopyOut Span
	// Batches by batch size, ascending.
	Batches []SizeStats
	// PendingRows wait at the moment.
	PendingRows int
}
