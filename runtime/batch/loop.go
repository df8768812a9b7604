package batch

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// waitMargin before a deadline is not spent on waiting for company.
const waitMargin = time.Millisecond

// Run starts the executors, keeps the deadlines, and blocks until ctx ends and everything
// is answered; what is still queued or running then is refused. It must be called once.
func (b *Batcher) Run(ctx context.Context) error {
	var wg sync.WaitGroup

	for id := range b.cfg.Executors {
		wg.Go(func() { newExecutor(b, id).loop(ctx) })
	}

	b.mu.Lock()
	b.idle = b.cfg.Executors
	b.dispatch(time.Now())
	b.mu.Unlock()

	b.keepTime(ctx)
	b.stop()
	wg.Wait()

	// Batches that no executor took any more.
	for {
		select {
		case w := <-b.ready:
			newExecutor(b, 0).execute(ctx, w)
		default:
			return nil
		}
	}
}

// keepTime is the one timer: it gives up what has expired and cuts batches that waited
// long enough.
func (b *Batcher) keepTime(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-b.kick:
		case <-timer.C:
		}

		now := time.Now()

		b.mu.Lock()
		b.armed = time.Time{}
		expired := b.expire(now)
		b.dispatch(now)

		if len(b.expiry) > 0 {
			b.setArmed(b.expiry[0].expires)
		}

		next := b.armed

		select {
		case <-b.kick: // whatever it asked for is in next
		default:
		}
		b.mu.Unlock()

		for _, rows := range expired {
			b.rejected(RejectExpired, rows)
		}

		if next.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(time.Until(next))
		}
	}
}

// wakeAt makes the timer loop wake at t or before. Caller holds mu.
func (b *Batcher) wakeAt(t time.Time) {
	if b.setArmed(t) {
		select {
		case b.kick <- struct{}{}:
		default:
		}
	}
}

func (b *Batcher) setArmed(t time.Time) bool {
	if !b.armed.IsZero() && !t.Before(b.armed) {
		return false
	}

	b.armed = t

	return true
}

// expire gives up every item whose time is over and lists the rows of those that were
// never started. Caller holds mu.
func (b *Batcher) expire(now time.Time) (rows []int) {
	for len(b.expiry) > 0 && !b.expiry[0].expires.After(now) {
		it := b.expiry[0]
		if it.stage == waiting {
			rows = append(rows, it.rows)
			b.drop(it, fault.New(fault.QueueTimeout, "Request timeout expired: it waited %v for model %q.",
				now.Sub(it.enqueued).Round(time.Millisecond), b.cfg.Name))
		} else {
			b.abandon(it, fault.New(fault.BackendTimeout, "Model %q did not finish before the deadline.", b.cfg.Name))
		}
	}

	return rows
}

// stop refuses everything that waits.
func (b *Batcher) stop() {
	b.mu.Lock()
	b.stopped = true

	var rows []int

	for len(b.queue.buckets) > 0 {
		for i := range b.queue.buckets[0].levels {
			if it := b.queue.buckets[0].levels[i].head; it != nil {
				rows = append(rows, it.rows)
				b.drop(it, fault.New(fault.ShuttingDown, "Model %q is being unloaded.", b.cfg.Name))

				break
			}
		}
	}
	b.mu.Unlock()

	for _, r := range rows {
		b.rejected(RejectDraining, r)
	}
}

// dispatch hands batches to idle executors. Caller holds mu.
func (b *Batcher) dispatch(now time.Time) {
	for b.idle > 0 {
		w := b.form(now)
		if w == nil {
			return
		}

		b.idle--
		b.ready <- w
	}
}

// form cuts the next batch, or arms the timer for when one may be due. Caller holds mu
// and has an idle executor.
func (b *Batcher) form(now time.Time) *work {
	for _, level := range b.order() {
		for _, bk := range b.byAge(level) {
			items, cut := b.consider(bk, level, now)
			if cut.N > 0 {
				return b.take(items[:cut.N], cut.Reason, now)
			}

			if cut.Wait > 0 {
				b.wakeAt(now.Add(cut.Wait))
			}
		}
	}

	return nil
}

// order lists the levels that hold something in the order in which they are to be served.
func (b *Batcher) order() []int {
	levels := b.scratch.levels[:0]
	for i := range b.queue.levels {
		if b.queue.levels[i].items > 0 {
			levels = append(levels, i)
		}
	}

	b.scratch.levels = levels
	if !b.cfg.StrictPriority && len(levels) > 1 {
		slices.SortStableFunc(levels, func(x, y int) int {
			return cmp.Compare(b.queue.levels[x].pass, b.queue.levels[y].pass)
		})
	}

	return levels
}

// byAge lists the buckets that hold something of level, the longest waiting first.
func (b *Batcher) byAge(level int) []*bucket {
	list := b.scratch.buckets[:0]
	for _, bk := range b.queue.buckets {
		if bk.levels[level].head != nil {
			list = append(list, bk)
		}
	}

	b.scratch.buckets = list
	if len(list) > 1 {
		slices.SortStableFunc(list, func(x, y *bucket) int {
			return x.levels[level].head.enqueued.Compare(y.levels[level].head.enqueued)
		})
	}

	return list
}

// consider asks the policy about one bucket, with the given level first in line. Items that
// would end after their deadline are refused if others would not: their place is worth more.
func (b *Batcher) consider(bk *bucket, level int, now time.Time) ([]*item, Cut) {
	takes := b.guess.predict(1, min(bk.cost, bk.cost*int64(b.policy.MaxRows)/int64(max(1, bk.rows))))
	items, late := b.collect(bk, level, now, now.Add(takes))

	if len(items) == 0 {
		items = late
	} else {
		for _, it := range late {
			b.rejected(RejectLate, it.rows)
			b.drop(it, fault.New(fault.Overloaded, "Model %q could not start in time to meet the deadline.", b.cfg.Name).
				After(retryAfter(takes)))
		}
	}

	oldest, slack := now, time.Duration(1<<62)
	rows := b.scratch.rows[:0]

	for _, it := range items {
		rows = append(rows, it.rows)
		if it.enqueued.Before(oldest) {
			oldest = it.enqueued
		}

		if d := it.req.Deadline; !d.IsZero() {
			// A prediction is not a promise: waiting for company leaves some room.
			slack = min(slack, d.Sub(now)-takes-takes/4-waitMargin)
		}
	}

	b.scratch.rows = rows

	age := now.Sub(oldest)
	if slack <= 0 {
		age = max(age, b.policy.Delay) // no time to wait for company
	}

	cut := b.policy.Cut(rows, age, b.queue.items > bk.items)
	cut.Wait = min(cut.Wait, max(slack, time.Microsecond))

	return items, cut
}

// collect lists what could go into the next batch and one more, in order of service, and
// apart from it what would not be ready at done. What has expired is left to the timer.
func (b *Batcher) collect(bk *bucket, level int, now, done time.Time) (items, late []*item) {
	items, late = b.scratch.items[:0], b.scratch.late[:0]
	total := 0

	for i := range bk.levels {
		// The chosen level, then the others from the highest.
		l := i - 1
		if i == 0 {
			l = level
		} else if l >= level {
			l = i
		}

		for it := bk.levels[l].head; it != nil && total <= b.policy.MaxRows; it = it.next {
			if !it.expires.IsZero() && !it.expires.After(now) {
				continue
			}

			if d := it.req.Deadline; !d.IsZero() && d.Before(done) {
				late = append(late, it)

				continue
			}

			items = append(items, it)
			total += it.rows
		}
	}

	b.scratch.items, b.scratch.late = items, late

	return items, late
}

// take moves items from the queue into a batch. Caller holds mu.
func (b *Batcher) take(items []*item, reason string, now time.Time) *work {
	w := &work{items: slices.Clone(items), reason: reason, cut: now, alive: len(items), copying: true}

	for _, it := range w.items {
		b.queue.charge(it)
		b.queue.remove(it)
		it.stage, it.work = running, w
		w.rows += it.rows
		w.cost += it.cost

		if !it.expires.Equal(it.req.Deadline) {
			b.expiry.set(it, it.req.Deadline)
		}
	}

	w.padded = b.policy.Padded(w.rows)
	w.ends = now.Add(b.guess.predict(1, w.cost))
	b.active = append(b.active, w)
	b.changed()

	return w
}
