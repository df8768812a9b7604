package runner

import (
	"container/heap"
	"context"
	"sync"
	"time"
)

// queue hands out services that need a step: each to one worker at a time, in the order in
// which they were asked for, again if something came up meanwhile.
type queue struct {
	wall func() time.Time

	mu      sync.Mutex // guards all below
	ready   []string
	waiting map[string]bool // in ready
	busy    map[string]bool // handed out; true: again when done
	timers  timers
	due     map[string]time.Time // the time in timers that counts

	signal chan struct{} // something became ready; capacity 1
	rearm  chan struct{} // the earliest timer changed; capacity 1
}

func newQueue(wall func() time.Time) *queue {
	return &queue{
		wall:    wall,
		waiting: map[string]bool{}, busy: map[string]bool{}, due: map[string]time.Time{},
		signal: make(chan struct{}, 1), rearm: make(chan struct{}, 1),
	}
}

// add asks for a step of id.
func (q *queue) add(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()

	q.addLocked(id)
}

func (q *queue) addLocked(id string) {
	if _, ok := q.busy[id]; ok {
		q.busy[id] = true

		return
	}

	if !q.waiting[id] {
		q.waiting[id] = true
		q.ready = append(q.ready, id)
		poke(q.signal)
	}
}

// addAt asks for a step of id at a time, instead of any time asked for before.
func (q *queue) addAt(id string, at time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()

	if at.IsZero() {
		delete(q.due, id)

		return
	}

	if q.due[id].Equal(at) {
		return
	}

	q.due[id] = at
	heap.Push(&q.timers, timerItem{at, id})

	if q.timers[0].id == id {
		poke(q.rearm)
	}
}

// next waits for a service; ok is false when ctx ends.
func (q *queue) next(ctx context.Context) (id string, ok bool) {
	for {
		q.mu.Lock()
		if len(q.ready) > 0 {
			id = q.ready[0]
			q.ready = q.ready[1:]
			delete(q.waiting, id)
			q.busy[id] = false

			if len(q.ready) > 0 {
				poke(q.signal) // for the other workers
			}
			q.mu.Unlock()

			return id, true
		}
		q.mu.Unlock()

		select {
		case <-q.signal:
		case <-ctx.Done():
			return "", false
		}
	}
}

// done gives id back.
func (q *queue) done(id string) {
	q.mu.Lock()
	defer q.mu.Unlock()

	again := q.busy[id]
	delete(q.busy, id)

	if again {
		q.addLocked(id)
	}
}

// clockCheck bounds how long a timer may be late after the clock was set forward.
const clockCheck = 5 * time.Second

// runTimers moves what is due until ctx ends.
func (q *queue) runTimers(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()

	last := readClock(q.wall)

	for {
		now := readClock(q.wall)
		if now.ahead(last) != 0 {
			q.addWaiting()
		}

		last = now

		timer.Reset(min(q.fire(now.wall), clockCheck))

		select {
		case <-timer.C:
		case <-q.rearm:
		case <-ctx.Done():
			return
		}
	}
}

// addWaiting asks for a step of every service with a timer: its time may be wrong now.
func (q *queue) addWaiting() {
	q.mu.Lock()
	defer q.mu.Unlock()

	for id := range q.due {
		q.addLocked(id)
	}
}

// fire adds what is due and returns the time until the next.
func (q *queue) fire(now time.Time) time.Duration {
	q.mu.Lock()
	defer q.mu.Unlock()

	for len(q.timers) > 0 {
		first := q.timers[0]
		if wait := first.at.Sub(now); wait > 0 {
			return wait
		}

		heap.Pop(&q.timers)

		if q.due[first.id].Equal(first.at) {
			delete(q.due, first.id)
			q.addLocked(first.id)
		}
	}

	return time.Hour
}

func poke(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

type timerItem struct {
	at time.Time
	id string
}

// timers is a heap by time.
type timers []timerItem

// Len implements heap.Interface.
func (t *timers) Len() int { return len(*t) }

// Less implements heap.Interface.
func (t *timers) Less(i, j int) bool { return (*t)[i].at.Before((*t)[j].at) }

// Swap implements heap.Interface.
func (t *timers) Swap(i, j int) { (*t)[i], (*t)[j] = (*t)[j], (*t)[i] }

// Push implements heap.Interface.
func (t *timers) Push(x any) {
	if item, ok := x.(timerItem); ok {
		*t = append(*t, item)
	}
}

// Pop implements heap.Interface.
func (t *timers) Pop() any {
	last := (*t)[len(*t)-1]
	*t = (*t)[:len(*t)-1]

	return last
}
