package batch

import (
	"encoding/binary"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// admit checks r and puts it into the queue. Without a receiver somebody waits for it, and it is
// offered to the executors at once.
func (b *Batcher) admit(r *Request, to Receiver, out Flusher) (*item, error) {
	now := time.Now()

	rows, cost, err := b.check(r)
	if err != nil {
		return nil, err
	}

	it, ok := b.items.Get().(*item)
	if !ok {
		panic("BUG: not an item in the pool")
	}

	it.req, it.rows, it.cost, it.enqueued, it.owned = r, rows, cost, now, r.Free != nil
	it.level, it.to, it.out = b.level(r.Priority), to, out

	b.mu.Lock()
	reason, err := b.refuse(it, now)

	if err == nil {
		b.inflight++
		b.queue.push(it)
		b.expiry.set(it, b.queueLimit(r, now))
		b.changed()

		if to != nil {
			r.item = it
		} else if b.idle > 0 {
			b.dispatch(now)
		}

		if !it.expires.IsZero() {
			b.wakeAt(it.expires)
		}
	}
	b.mu.Unlock()

	if err != nil {
		b.recycle(it)
		b.rejected(reason, rows)

		return nil, err
	}

	if b.hooks.Enqueued != nil {
		b.hooks.Enqueued(rows)
	}

	return it, nil
}

// check validates what gathering relies on and gives rows and input size.
func (b *Batcher) check(r *Request) (rows int, cost int64, err error) {
	if len(r.Inputs) != len(b.inputs) {
		return 0, 0, fault.New(fault.BadTensor, "Model %q takes %d inputs, got %d.", b.cfg.Name, len(b.inputs), len(r.Inputs))
	}

	rows = 1
	if b.cfg.MaxBatchSize > 1 {
		rows = max(1, r.Rows)
	}

	if rows > b.cfg.MaxBatchSize {
		return 0, 0, fault.New(fault.BadTensor, "inference request batch-size must be <= %d for '%s'", b.cfg.MaxBatchSize, b.cfg.Name)
	}

	if r.Priority < 0 || r.Priority > b.cfg.PriorityLevels {
		return 0, 0, fault.New(fault.InvalidArgument, "Priority %d is not within 0 to %d of model %q.",
			r.Priority, b.cfg.PriorityLevels, b.cfg.Name)
	}

	for i := range r.Inputs {
		t := &r.Inputs[i]
		if t.Type != b.inputs[i].Type {
			return 0, 0, fault.New(fault.BadTensor, "inference input '%s' data-type is '%s', but model '%s' expects '%s'",
				b.inputs[i].Name, t.Type, b.cfg.Name, b.inputs[i].Type)
		}

		if b.cfg.MaxBatchSize > 1 && (len(t.Shape) == 0 || t.Shape[0] != int64(rows)) {
			return 0, 0, fault.New(fault.BadTensor, "Input %q has the shape %v; its first dimension must be the batch of %d.",
				b.inputs[i].Name, t.Shape, rows)
		}

		if !filled(t) {
			return 0, 0, fault.New(fault.BadTensor, "Input %q holds %d bytes, which is not what the shape %v of %s takes.",
				b.inputs[i].Name, len(t.Data), t.Shape, t.Type)
		}

		cost += int64(len(t.Data))
	}

	return rows, cost, nil
}

// filled reports whether t's data is what its shape takes.
func filled(t *engine.Tensor) bool {
	n := engine.Elements(t.Shape)
	if n < 0 {
		return false
	}

	if t.Type != engine.Bytes {
		return int64(len(t.Data)) == n*int64(t.Type.Size())
	}

	return skipBytes(t.Data, n) == len(t.Data)
}

// skipBytes gives the length of the first n elements of data, or -1.
func skipBytes(data []byte, n int64) int {
	at := 0

	for ; n > 0; n-- {
		if len(data)-at < 4 {
			return -1
		}

		size := int64(binary.LittleEndian.Uint32(data[at:]))
		if size > int64(len(data)-at-4) {
			return -1
		}

		at += 4 + int(size)
	}

	return at
}

func (b *Batcher) level(priority int) int {
	if priority == 0 {
		priority = b.cfg.DefaultPriority
	}

	return priority - 1
}

// queueLimit is when r has to be given up in the queue.
func (b *Batcher) queueLimit(r *Request, now time.Time) time.Time {
	limit := r.Deadline

	d := r.QueueTimeout
	if d <= 0 {
		d = b.cfg.DefaultTimeout
	}

	if t := now.Add(d); d > 0 && (limit.IsZero() || t.Before(limit)) {
		limit = t
	}

	return limit
}

// refuse tells why it cannot be accepted. Caller holds mu.
func (b *Batcher) refuse(it *item, now time.Time) (reason string, err error) {
	deadline := it.req.Deadline

	switch {
	case b.draining || b.stopped:
		return RejectDraining, fault.New(fault.ShuttingDown, "Model %q is being unloaded.", b.cfg.Name)
	case !deadline.IsZero() && !now.Before(deadline):
		return RejectExpired, fault.New(fault.QueueTimeout, "")
	case b.queue.items == 0:
		// Whatever was learned about times, one request may always try.
		return "", nil
	case b.queue.rows+it.rows > b.cfg.MaxQueueRows:
		return RejectQueueFull, fault.New(fault.Overloaded, "Exceeds maximum queue size: %d rows wait for model %q.",
			b.queue.rows, b.cfg.Name).After(retryAfter(b.waitFor(it, now)))
	}

	if deadline.IsZero() {
		return "", nil
	}

	if wait := b.waitFor(it, now); now.Add(wait).After(deadline) {
		return RejectLate, fault.New(fault.Overloaded, "Model %q would answer in about %v, which is after the deadline.",
			b.cfg.Name, wait.Round(time.Millisecond)).After(retryAfter(wait - deadline.Sub(now)))
	}

	return "", nil
}

// retryAfter keeps a hint within what is useful to a client.
func retryAfter(d time.Duration) time.Duration {
	return min(max(d, 100*time.Millisecond), 30*time.Second)
}

// waitFor predicts when it would be answered if it was accepted now. Caller holds mu.
func (b *Batcher) waitFor(it *item, now time.Time) time.Duration {
	rows, items, cost := b.ahead(it.level)
	batches, before, own := items, cost, it.cost

	if size := b.policy.MaxRows; !b.policy.Single {
		// Full batches go first; its own is full, too, when there is that much.
		batches, before = rows/size, 0
		if own += cost; batches > 0 {
			before = cost * int64(batches*size) / int64(rows)
			own = own * int64(size) / int64(rows+it.rows)
		}
	}

	wait := b.guess.predict(batches, before)/time.Duration(b.cfg.Executors) + b.guess.predict(1, own)

	if b.idle == 0 && len(b.active) > 0 {
		first := b.active[0].ends
		for _, w := range b.active[1:] {
			if w.ends.Before(first) {
				first = w.ends
			}
		}

		wait += max(0, first.Sub(now))
	}

	return wait
}

// ahead tells what is served before a new request of level. Caller holds mu.
func (b *Batcher) ahead(level int) (rows, items int, cost int64) {
	if b.cfg.PriorityLevels == 1 {
		return b.queue.rows, b.queue.items, b.queue.cost
	}

	own := &b.queue.levels[level]
	weights := own.weight

	for i := range b.queue.levels {
		l := &b.queue.levels[i]
		if b.cfg.StrictPriority && i <= level {
			rows, items, cost = rows+l.rows, items+l.items, cost+l.cost
		}

		if i != level && l.items > 0 {
			weights += l.weight
		}
	}

	if b.cfg.StrictPriority {
		return rows, items, cost
	}

	part := weights / own.weight // the others are served in proportion
	limit := func(own, all float64) float64 { return min(own*part, all) }

	return int(limit(float64(own.rows), float64(b.queue.rows))),
		int(limit(float64(own.items), float64(b.queue.items))),
		int64(limit(float64(own.cost), float64(b.queue.cost)))
}
