package batch

import (
	"container/heap"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// maxSpare bounds the empty buckets kept for the next request of their shape.
const maxSpare = 16

type stage uint8

const (
	waiting stage = iota
	running
	settled
)

// item is a request inside the batcher. Its fields are guarded by Batcher.mu, except that
// the caller owns res and err once done was signalled.
type item struct {
	// req must not be touched after its inputs were gathered: the caller may be gone.
	req   *Request
	rows  int
	level int
	cost  int64
	stage stage

	bucket     *bucket
	prev, next *item

	enqueued time.Time
	// expires is when the item has to be given up at its present stage; zero means never.
	expires time.Time
	slot    int // in the deadlines heap; -1 when not in it

	work *work
	done chan struct{} // capacity 1
	res  *Result
	err  error
	// to takes the answer of an item that nobody waits for, and out is told when there are no more;
	// hand is the method deliver, bound once.
	to   Receiver
	out  Flusher
	hand func()
	// gone: abandoned, answered before its run ended. owned: the request has a Free.
	gone, owned bool
}

// list is an intrusive first-in first-out list.
type list struct{ head, tail *item }

func (l *list) push(it *item) {
	it.prev, it.next = l.tail, nil
	if l.tail != nil {
		l.tail.next = it
	} else {
		l.head = it
	}

	l.tail = it
}

func (l *list) remove(it *item) {
	if it.prev != nil {
		it.prev.next = it.next
	} else {
		l.head = it.next
	}

	if it.next != nil {
		it.next.prev = it.prev
	} else {
		l.tail = it.prev
	}

	it.prev, it.next = nil, nil
}

// bucket holds the waiting requests of one shape, by level.
type bucket struct {
	hash   uint64
	shape  []engine.Tensor // shapes of the first request, first dimension ignored
	levels []list
	rows   int
	cost   int64
	items  int
}

// share is what waits at one level, and how much service the level had.
type share struct {
	rows, items int
	cost        int64
	pass        float64
	weight      float64
}

// queue holds everything that waits. It decides nothing.
type queue struct {
	single  bool
	buckets []*bucket
	spare   []*bucket
	levels  []share
	rows    int
	items   int
	cost    int64
	virtual float64 // pass of the level served last
}

func newQueue(levels int, single bool) *queue {
	q := &queue{single: single, levels: make([]share, levels)}
	for i := range q.levels {
		q.levels[i].weight = float64(int64(1) << min(levels-1-i, 20))
	}

	return q
}

func (q *queue) push(it *item) {
	b := q.bucketFor(it.req.Inputs)
	it.bucket = b
	b.levels[it.level].push(it)
	b.rows += it.rows
	b.cost += it.cost
	b.items++

	l := &q.levels[it.level]
	if l.items == 0 {
		l.pass = max(l.pass, q.virtual)
	}

	l.rows += it.rows
	l.cost += it.cost
	l.items++
	q.rows += it.rows
	q.cost += it.cost
	q.items++
}

func (q *queue) remove(it *item) {
	b := it.bucket
	b.levels[it.level].remove(it)
	b.rows -= it.rows
	b.cost -= it.cost
	b.items--

	l := &q.levels[it.level]
	l.rows -= it.rows
	l.cost -= it.cost
	l.items--
	q.rows -= it.rows
	q.cost -= it.cost
	q.items--
	it.bucket = nil

	if b.items == 0 {
		i := slices.Index(q.buckets, b)
		q.buckets[i] = q.buckets[len(q.buckets)-1]
		q.buckets[len(q.buckets)-1] = nil
		q.buckets = q.buckets[:len(q.buckets)-1]

		if len(q.spare) < maxSpare {
			q.spare = append(q.spare, b)
		}
	}
}

// charge books rows as served at the level of it.
func (q *queue) charge(it *item) {
	l := &q.levels[it.level]
	q.virtual = max(q.virtual, l.pass)
	l.pass += float64(it.rows) / l.weight
}

func (q *queue) bucketFor(in []engine.Tensor) *bucket {
	var h uint64
	if !q.single {
		h = hashShapes(in)
	}

	for _, b := range q.buckets {
		if q.single || b.hash == h && sameShapes(b.shape, in) {
			return b
		}
	}

	// Most requests have the shape of those before them.
	for i, b := range q.spare {
		if q.single || b.hash == h && sameShapes(b.shape, in) {
			q.spare[i] = q.spare[len(q.spare)-1]
			q.spare = q.spare[:len(q.spare)-1]
			q.buckets = append(q.buckets, b)

			return b
		}
	}

	if len(q.spare) == maxSpare {
		q.spare = q.spare[1:]
	}

	b := &bucket{hash: h, levels: make([]list, len(q.levels)), shape: make([]engine.Tensor, len(in))}

	for i := range in {
		// The request's memory may be gone while the bucket still stands.
		b.shape[i] = engine.Tensor{Type: in[i].Type, Shape: slices.Clone(in[i].Shape)}
	}

	q.buckets = append(q.buckets, b)

	return b
}

func hashShapes(in []engine.Tensor) uint64 {
	const prime = 1099511628211

	h := uint64(14695981039346656037)
	for i := range in {
		h = (h ^ uint64(in[i].Type)) * prime
		for _, d := range in[i].Shape[1:] {
			h = (h ^ uint64(d)) * prime
		}

		h = (h ^ 0xff) * prime
	}

	return h
}

func sameShapes(a, b []engine.Tensor) bool {
	if len(a) != len(b) {
		return false
	}

	for i := range a {
		if a[i].Type != b[i].Type || len(a[i].Shape) != len(b[i].Shape) || !slices.Equal(a[i].Shape[1:], b[i].Shape[1:]) {
			return false
		}
	}

	return true
}

// deadlines is a heap of items by expires.
type deadlines []*item //nolint:recvcheck // as container/heap wants it

var _ heap.Interface = (*deadlines)(nil)

func (d deadlines) Len() int           { return len(d) }
func (d deadlines) Less(i, j int) bool { return d[i].expires.Before(d[j].expires) }

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].slot, d[j].slot = i, j
}

// Push implements heap.Interface.
func (d *deadlines) Push(x any) {
	it, ok := x.(*item)
	if !ok {
		panic("BUG: not an item")
	}

	it.slot = len(*d)
	*d = append(*d, it)
}

// Pop implements heap.Interface.
func (d *deadlines) Pop() any {
	old := *d
	it := old[len(old)-1]
	old[len(old)-1] = nil
	*d = old[:len(old)-1]
	it.slot = -1

	return it
}

// set gives it a new time; zero takes it out.
func (d *deadlines) set(it *item, t time.Time) {
	it.expires = t

	switch {
	case t.IsZero() && it.slot >= 0:
		heap.Remove(d, it.slot)
	case t.IsZero():
	case it.slot >= 0:
		heap.Fix(d, it.slot)
	default:
		heap.Push(d, it)
	}
}
