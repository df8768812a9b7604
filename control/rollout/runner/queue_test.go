package runner

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// take takes everything that is ready now and gives it back at once.
func take(t *testing.T, q *queue) []string {
	t.Helper()

	var got []string

	for {
		q.mu.Lock()
		n := len(q.ready)
		q.mu.Unlock()

		if n == 0 {
			return got
		}

		id, ok := q.next(t.Context())
		if !ok {
			t.Fatal("the queue has ended")
		}

		got = append(got, id)
		q.done(id)
	}
}

func TestQueueKeepsOrderAndMergesRequests(t *testing.T) {
	t.Parallel()

	q := newQueue(time.Now)
	for _, id := range []string{"b", "a", "b", "c", "a"} {
		q.add(id)
	}

	if got := take(t, q); !slices.Equal(got, []string{"b", "a", "c"}) {
		t.Errorf("got %q", got)
	}
}

func TestQueueGivesAServiceToOneWorkerAtATime(t *testing.T) {
	t.Parallel()

	q := newQueue(time.Now)
	q.add("a")

	if id, ok := q.next(t.Context()); !ok || id != "a" {
		t.Fatalf("got %q", id)
	}

	q.add("a") // while it is busy
	q.add("b")

	if got := take(t, q); !slices.Equal(got, []string{"b"}) {
		t.Errorf("got %q while a is busy", got)
	}

	q.done("a")

	if got := take(t, q); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %q afterwards", got)
	}
}

func TestQueueEndsWithItsContext(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	if id, ok := newQueue(time.Now).next(ctx); ok {
		t.Errorf("got %q", id)
	}
}

func TestQueueTimers(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		q := newQueue(time.Now)
		go q.runTimers(ctx)

		start := time.Now()
		q.addAt("late", start.Add(time.Hour))
		q.addAt("moved", start.Add(time.Minute))
		q.addAt("dropped", start.Add(time.Minute))
		q.addAt("soon", start.Add(time.Second))
		q.addAt("moved", start.Add(3*time.Minute)) // replaces
		q.addAt("dropped", time.Time{})

		for _, step := range []struct {
			after time.Duration
			want  []string
		}{
			{999 * time.Millisecond, nil},
			{time.Millisecond, []string{"soon"}},
			{2 * time.Minute, nil},
			{time.Minute, []string{"moved"}},
			{time.Hour, []string{"late"}},
			{24 * time.Hour, nil},
		} {
			time.Sleep(step.after) //nolint:forbidigo // virtual time
			synctest.Wait()

			if got := take(t, q); !slices.Equal(got, step.want) {
				t.Errorf("at %s got %q, want %q", time.Since(start), got, step.want)
			}
		}
	})
}

// TestClockThatIsSet sets the clock an hour forward or back: every service with a timer is asked for
// within seconds, and reading the clock tells by how much.
func TestClockThatIsSet(t *testing.T) {
	t.Parallel()

	for name, set := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				var offset atomic.Int64

				wall := func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
				last := readClock(wall)

				q := newQueue(wall)
				q.addAt("a", wall().Add(2*time.Hour))

				go q.runTimers(ctx)

				time.Sleep(time.Hour) //nolint:forbidigo // virtual time
				synctest.Wait()

				if got := readClock(wall).ahead(last); got != 0 {
					t.Errorf("an hour that passed was taken for a clock that was set by %s", got)
				}

				if got := take(t, q); got != nil {
					t.Errorf("asked for %q before the clock was set", got)
				}

				offset.Store(int64(set))
				time.Sleep(clockCheck) //nolint:forbidigo // virtual time
				synctest.Wait()

				if got := readClock(wall).ahead(last); got != set {
					t.Errorf("the clock was set by %s, noticed %s", set, got)
				}

				if got := take(t, q); !slices.Equal(got, []string{"a"}) {
					t.Errorf("asked for %q after the clock was set", got)
				}
			})
		})
	}

	if got := readClock(time.Now).ahead(reading{}); got != 0 {
		t.Errorf("without an earlier reading: %s", got)
	}
}
