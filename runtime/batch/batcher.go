package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Batcher queues requests for one session and runs them in batches.
type Batcher struct {
	cfg    Config
	sess   engine.Session
	hooks  Hooks
	inputs []engine.Info

	ready chan *work    // to executors; room for one each
	kick  chan struct{} // wakes the timer loop; room for one
	empty chan struct{} // closed when drained

	items sync.Pool // of *item

	mu       sync.Mutex // guards what follows, and items
	policy   Policy
	queue    *queue
	expiry   deadlines
	armed    time.Time // when the timer loop wakes; zero: never
	idle     int       // executors without work
	active   []*work
	inflight int // accepted and not answered
	draining bool
	stopped  bool
	guess    estimate
	stats    counters
	scratch  scratch
}

// scratch is memory that forming a batch needs.
type scratch struct {
	rows    []int
	items   []*item
	late    []*item
	levels  []int
	buckets []*bucket
}

// work is one batch on its way through an executor.
type work struct {
	items  []*item
	rows   int
	padded int // rows to run
	cost   int64
	reason string
	cut    time.Time
	ends   time.Time // expected

	// Guarded by Batcher.mu.
	alive   int  // items whose caller still waits
	copying bool // the items' inputs are being read
	cancel  context.CancelFunc
}

// waited is how long an item was in the queue. An item that came while the batch was being cut has
// the later time of the two.
func (w *work) waited(it *item) time.Duration { return max(0, w.cut.Sub(it.enqueued)) }

// New returns a Batcher over sess, which it borrows. Requests wait until Run is called.
func New(cfg Config, sess engine.Session, hooks Hooks) (*Batcher, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("configure batching of %q: %w", cfg.Name, err)
	}

	single := cfg.Alone || cfg.MaxBatchSize == 1
	b := &Batcher{
		cfg:    cfg,
		sess:   sess,
		hooks:  hooks,
		inputs: sess.Inputs(),
		ready:  make(chan *work, cfg.Executors),
		kick:   make(chan struct{}, 1),
		empty:  make(chan struct{}),
		policy: Policy{
			MaxRows: cfg.MaxBatchSize, Single: single,
			Preferred: cfg.PreferredBatchSizes, Delay: cfg.MaxQueueDelay, Pad: cfg.PadToBuckets,
		},
		queue: newQueue(cfg.PriorityLevels, single),
	}
	b.items.New = func() any { return b.newItem() }

	return b, nil
}

// Teach tells how long a run over inputs of cost bytes took, so that the first deadlines
// can be judged before the first request was run.
func (b *Batcher) Teach(cost int64, d time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.guess.observe(cost, d)
}

// Infer runs one request and returns when it is answered, refused or given up: at its
// deadline or when ctx ends, whatever the executor does then. Faults: BadTensor, Overloaded,
// QueueTimeout, BackendTimeout, ClientGone, ShuttingDown, and those of the engine.
func (b *Batcher) Infer(ctx context.Context, r *Request) (*Result, error) {
	it, err := b.admit(r, nil, nil)
	if err != nil {
		if r.Free != nil {
			r.Free()
		}

		return nil, err
	}

	select {
	case <-it.done:
	case <-ctx.Done():
		b.leave(it, ctx.Err())
		<-it.done
	}

	res, err := it.res, it.err
	if it.work == nil && r.Free != nil {
		r.Free() // it never ran
	}

	if !it.gone {
		b.recycle(it)
	}

	return res, err
}

func (b *Batcher) recycle(it *item) {
	*it = item{slot: -1, done: it.done, hand: it.hand}
	b.items.Put(it)
}

// leave gives it up because its caller does.
func (b *Batcher) leave(it *item, cause error) {
	b.mu.Lock()
	b.leaveLocked(it, cause)
}

// leaveLocked is called with the lock held and releases it.
func (b *Batcher) leaveLocked(it *item, cause error) {
	queued, rows := it.stage == waiting, it.rows

	switch it.stage {
	case waiting:
		b.drop(it, leaveFault(cause, fault.QueueTimeout))
	case running:
		b.abandon(it, leaveFault(cause, fault.BackendTimeout))
	case settled:
	}
	b.mu.Unlock()

	if queued {
		b.rejected(RejectCancelled, rows)
	}
}

func leaveFault(cause error, late fault.Code) *fault.Error {
	if errors.Is(cause, context.DeadlineExceeded) {
		return fault.Wrap(late, cause, "")
	}

	return fault.Wrap(fault.ClientGone, cause, "")
}

// drop takes a waiting item out of the queue. Caller holds mu.
func (b *Batcher) drop(it *item, err error) {
	b.queue.remove(it)
	b.settle(it, nil, err)
	b.changed()
}

// abandon answers a running item before its run ends; when it was the last one, the run is
// terminated. Caller holds mu.
func (b *Batcher) abandon(it *item, err error) {
	w := it.work
	it.gone = true
	it.err = err
	b.expiry.set(it, time.Time{})
	b.stats.fail(time.Since(it.enqueued))

	if w.alive--; w.alive == 0 && w.cancel != nil {
		w.cancel()
	}

	it.stage = settled
	it.detach()

	// Borrowed inputs are still being read; the executor answers when they are not.
	if !w.copying || it.owned {
		b.answer(it)
	}
}

// settle ends an item that is not abandoned, and answers it. Caller holds mu.
func (b *Batcher) settle(it *item, res *Result, err error) {
	b.decide(it, res, err)
	it.signal()
}

// decide ends an item that is not abandoned; signal is still to be called, with or without the lock.
// Caller holds mu.
func (b *Batcher) decide(it *item, res *Result, err error) {
	it.stage = settled
	it.res, it.err = res, err
	b.expiry.set(it, time.Time{})
	it.detach()

	if err != nil {
		b.stats.fail(time.Since(it.enqueued))
	}

	b.ended()
}

// answer ends an abandoned item. Caller holds mu.
func (b *Batcher) answer(it *item) {
	it.signal()
	b.ended()
}

// ended counts an accepted request out. Caller holds mu.
func (b *Batcher) ended() {
	if b.inflight--; b.inflight == 0 && b.draining {
		close(b.empty)
	}
}

// changed tells what waits. Caller holds mu.
func (b *Batcher) changed() {
	if b.hooks.Pending != nil {
		b.hooks.Pending(b.queue.rows)
	}
}

func (b *Batcher) rejected(reason string, rows int) {
	if b.hooks.Rejected != nil {
		b.hooks.Rejected(reason, rows)
	}
}

// Drain refuses new requests and returns when all accepted ones are answered.
func (b *Batcher) Drain(ctx context.Context) error {
	b.mu.Lock()
	if !b.draining {
		b.draining = true
		if b.inflight == 0 {
			close(b.empty)
		}
	}
	b.mu.Unlock()

	select {
	case <-b.empty:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("drain model %q: %w", b.cfg.Name, ctx.Err())
	}
}
