package runner

import (
	"context"
	"slices"
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

	q := newQueue()
	for _, id := range []string{"b", "a", "b", "c", "a"} {
		q.add(id)
	}

	if got := take(t, q); !slices.Equal(got, []string{"b", "a", "c"}) {
		t.Errorf("got %q", got)
	}
}

func TestQueueGivesAServiceToOneWorkerAtATime(t *testing.T) {
	t.Parallel()

	q := newQueue()
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

	if id, ok := newQueue().next(ctx); ok {
		t.Errorf("got %q", id)
	}
}

func TestQueueTimers(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()

		q := newQueue()
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

func TestClockThatIsSetIsNoticed(t *testing.T) {
	t.Parallel()

	now := time.Now()
	// Readings without a monotonic part differ as the clock shows.
	if stepped(now, now.Add(time.Minute)) {
		t.Error("time that passes is no step")
	}

	q := newQueue()
	q.addAt("a", now.Add(time.Hour))
	q.addWaiting()

	if got := take(t, q); !slices.Equal(got, []string{"a"}) {
		t.Errorf("got %q", got)
	}
}
