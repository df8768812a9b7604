package pool

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Pool is the set of instances of one model version.
type Pool struct {
	name  string
	cfg   Config
	epoch time.Time
	view  atomic.Pointer[view]
	whole atomic.Bool // there are endpoints, and none of them drains: Ready needs to look at nothing else

	rotor     atomic.Uint64 // round robin and scan starts
	sickUntil atomic.Int64  // until when some endpoint may be unhealthy
	sick      atomic.Bool   // some breaker is not closed
	nextLook  atomic.Int64
	lookMu    sync.Mutex // one outlier evaluation at a time
	panicking atomic.Bool

	waiting atomic.Int64
	mu      sync.Mutex // guards queue
	queue   waitList
}

// view is one generation of the list. It never changes.
type view struct {
	picker    Picker
	endpoints []*Endpoint
	near, far []*Endpoint // both set only if some are near and some are not
	equal     bool        // all weights are alike
	total     float64     // of the weights
}

// New returns an empty pool. name says whose it is, in hooks.
func New(name string, cfg Config) (*Pool, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("pool %s: %w", name, err)
	}

	p := &Pool{name: name, cfg: cfg.Defaults(), epoch: time.Now()}
	p.view.Store(&view{})

	return p, nil
}

func (p *Pool) now() int64 { return int64(time.Since(p.epoch)) + 1 }

// Opener makes the connections to an instance; it must not dial yet.
type Opener func(spec.Instance) (Backend, error)

// Update replaces the list of instances. Those that stay keep their state. An instance
// that cannot be opened is left out and reported; the others are used. One goroutine at a time.
func (p *Pool) Update(picker Picker, instances []spec.Instance, open Opener) error {
	old := p.view.Load()

	known := make(map[string]*Endpoint, len(old.endpoints))
	for _, e := range old.endpoints {
		known[e.ID] = e
	}

	next := &view{picker: picker, endpoints: make([]*Endpoint, 0, len(instances))}

	var (
		errs  []error
		since int64 // the first instances of a pool have nobody to leave the work to meanwhile
	)

	if len(old.endpoints) > 0 && p.cfg.SlowStart > 0 {
		since = p.now()
	}

	for i := range instances {
		in := &instances[i]

		e, stays := known[in.ID]
		if stays && sameAddress(&e.Instance, in) {
			delete(known, in.ID)
			next.endpoints = append(next.endpoints, e)

			continue
		}

		e, err := p.open(in, open, since)
		if err != nil {
			errs = append(errs, err)

			continue
		}

		next.endpoints = append(next.endpoints, e)
	}

	next.split()
	p.whole.Store(false)
	p.view.Store(next)
	p.whole.Store(len(next.endpoints) > 0)

	// One that was told to drain meanwhile may have done so before the line above.
	for _, e := range next.endpoints {
		if e.draining.Load() {
			p.whole.Store(false)
		}
	}

	for _, e := range known {
		e.Drain()

		if err := e.Backend.Close(); err != nil {
			errs = append(errs, fmt.Errorf("close instance %s: %w", e.ID, err))
		}
	}

	p.wake(len(next.endpoints) * p.cfg.MaxInFlight)

	return errors.Join(errs...)
}

func sameAddress(a, b *spec.Instance) bool {
	return a.Network == b.Network && a.Address == b.Address && a.Scheme == b.Scheme &&
		a.LinkAddress == b.LinkAddress && a.StartedAt == b.StartedAt && reflect.DeepEqual(a.Endpoint, b.Endpoint)
}

func (p *Pool) open(in *spec.Instance, open Opener, since int64) (*Endpoint, error) {
	backend, err := open(*in)
	if err != nil {
		return nil, fmt.Errorf("open instance %s at %s: %w", in.ID, in.Address, err)
	}

	e := &Endpoint{
		ID: in.ID, idBytes: []byte(in.ID), Instance: *in, Backend: backend, pool: p, weight: 1, seed: HashString(in.ID),
		since: since, near: p.cfg.Node != "" && in.Node == p.cfg.Node,
	}
	if in.Endpoint != nil && in.Endpoint.Weight > 0 {
		e.weight = float64(in.Endpoint.Weight)
	}
	e.breaker.init(p.cfg.Breaker, p.now, func(state string) {
		p.sick.Store(true)

		if p.cfg.Hooks.BreakerChanged != nil {
			p.cfg.Hooks.BreakerChanged(e.ID, state)
		}
	})

	return e, nil
}

func (v *view) split() {
	v.equal = true

	var near, far []*Endpoint

	for _, e := range v.endpoints {
		v.total += e.weight
		v.equal = v.equal && e.weight == v.endpoints[0].weight

		if e.near {
			near = append(near, e)
		} else {
			far = append(far, e)
		}
	}

	if len(near) > 0 && len(far) > 0 {
		v.near, v.far = near, far
	}
}

// Close closes the connections of every instance. Leases that are out stay valid.
func (p *Pool) Close() error {
	return p.Update(p.view.Load().picker, nil, nil)
}

// Ready reports whether there is an instance that could be picked.
func (p *Pool) Ready() bool {
	if p.whole.Load() {
		return true
	}

	for _, e := range p.view.Load().endpoints {
		if !e.draining.Load() {
			return true
		}
	}

	return false
}

// Endpoints returns the present list; it must not be changed.
func (p *Pool) Endpoints() []*Endpoint { return p.view.Load().endpoints }

// Picker is the pool's way of choosing.
func (p *Pool) Picker() Picker { return p.view.Load().picker }

// Errors of Acquire; constant, so that refusing allocates nothing.
var (
	ErrNone = fault.New(fault.NoInstance, "")
	errFull = fault.New(fault.Overloaded, "").After(time.Second)
	errLate = fault.New(fault.QueueTimeout, "").After(time.Second)
	errGone = fault.New(fault.ClientGone, "")
)

// Acquire picks an instance for r and fills l. If all are busy it waits in a bounded
// queue, no longer than until deadline. It returns ErrNone if there is no instance left
// that was not tried.
func (p *Pool) Acquire(ctx context.Context, r *Request, deadline time.Time, l *Lease) error {
	switch p.try(r, l) {
	case picked:
		return nil
	case none:
		return ErrNone
	case busy:
		return p.wait(ctx, r, deadline, l)
	default:
		panic("BUG: unknown verdict")
	}
}

// wait queues until an instance has room again.
func (p *Pool) wait(ctx context.Context, r *Request, deadline time.Time, l *Lease) error {
	n := p.waiting.Add(1)
	defer p.waiting.Add(-1)

	if n > int64(p.cfg.MaxQueue) {
		return errFull
	}

	if p.cfg.Hooks.Queued != nil {
		p.cfg.Hooks.Queued(p.name, int(n))
	}

	timer := time.NewTimer(min(p.cfg.QueueWait, time.Until(deadline)))
	defer timer.Stop()

	for front := false; ; front = true {
		w := p.enqueue(front)
		// Room may have come between the failed try and joining the queue.
		verdict := p.try(r, l)
		if verdict == busy {
			select {
			case <-w.ready:
				verdict = p.try(r, l)
			case <-timer.C:
				p.leave(w)

				return errLate
			case <-ctx.Done():
				p.leave(w)

				return errGone
			}
		} else {
			p.leave(w)
		}

		switch verdict {
		case picked:
			return nil
		case none:
			return ErrNone
		case busy: // somebody was faster: wait on, at the front
		}
	}
}

type waiter struct {
	ready      chan struct{}
	next, prev *waiter
	queued     bool
}

// waitList is a first-in-first-out list of waiters.
type waitList struct{ head, tail *waiter }

func (p *Pool) enqueue(front bool) *waiter {
	w := &waiter{ready: make(chan struct{}), queued: true}

	p.mu.Lock()
	defer p.mu.Unlock()

	q := &p.queue

	switch {
	case q.head == nil:
		q.head, q.tail = w, w
	case front:
		w.next, q.head.prev = q.head, w
		q.head = w
	default:
		w.prev, q.tail.next = q.tail, w
		q.tail = w
	}

	return w
}

// leave takes w out; a wake-up that it got already goes to the next one.
func (p *Pool) leave(w *waiter) {
	p.mu.Lock()

	was := w.queued
	if was {
		p.queue.remove(w)
	}

	p.mu.Unlock()

	if !was {
		p.wake(1)
	}
}

func (q *waitList) remove(w *waiter) {
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		q.head = w.next
	}

	if w.next != nil {
		w.next.prev = w.prev
	} else {
		q.tail = w.prev
	}

	w.next, w.prev, w.queued = nil, nil, false
}

// wake lets up to n waiters try again.
func (p *Pool) wake(n int) {
	if p.waiting.Load() == 0 {
		return
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	for ; n > 0 && p.queue.head != nil; n-- {
		w := p.queue.head
		p.queue.remove(w)
		close(w.ready)
	}
}
