package lifecycle_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/lifecycle"
)

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// journal notes what happened, in order.
type journal struct {
	mu    sync.Mutex
	lines []string
}

func (j *journal) add(s string) {
	j.mu.Lock()
	defer j.mu.Unlock()

	j.lines = append(j.lines, s)
}

func (j *journal) all() []string {
	j.mu.Lock()
	defer j.mu.Unlock()

	return slices.Clone(j.lines)
}

// part runs until its context ends, then takes a while.
func (j *journal) part(name string, stopping time.Duration) func(context.Context) error {
	return func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name + " stopping")
		<-time.After(stopping)
		j.add(name + " stopped")

		return nil
	}
}

func TestPartsStopInReverseOrderOneByOne(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := lifecycle.New(quiet(), time.Minute)
		g.Add("store", j.part("store", time.Second))
		g.Add("workers", j.part("workers", 3*time.Second))
		g.Add("edge", j.part("edge", 2*time.Second))

		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()

		if err := g.Run(ctx); err != nil {
			t.Fatal(err)
		}

		want := "edge stopping,edge stopped,workers stopping,workers stopped,store stopping,store stopped"
		if got := strings.Join(j.all(), ","); got != want {
			t.Fatalf("got %s", got)
		}
	})
}

func TestFirstFailureStopsAllAndSaysWho(t *testing.T) {
	t.Parallel()

	boom := errors.New("boom")

	for name, tc := range map[string]struct {
		run  func(context.Context) error
		want string
	}{
		"an error":          {func(context.Context) error { return boom }, "engine: boom"},
		"an unasked end":    {func(context.Context) error { return nil }, "engine: ended without being asked to"},
		"a panic":           {func(context.Context) error { panic("oh") }, "engine: panic: oh"},
		"an error, wrapped": {func(context.Context) error { return errors.Join(boom) }, "engine: boom"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			synctest.Test(t, func(t *testing.T) {
				j := &journal{}
				g := lifecycle.New(quiet(), time.Minute)
				g.Add("store", j.part("store", 0))
				g.Add("engine", tc.run)
				g.Add("edge", j.part("edge", 0))

				err := g.Run(t.Context())
				if err == nil || err.Error() != tc.want {
					t.Fatalf("got %v, want %s", err, tc.want)
				}

				if len(j.all()) != 4 {
					t.Fatalf("not all stopped: %v", j.all())
				}
			})
		})
	}
}

func TestAStuckPartIsNamedAndDoesNotHoldUpTheRest(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)

		j := &journal{}
		g := lifecycle.New(quiet(), 10*time.Second)
		g.Add("store", j.part("store", 0))
		g.Add("edge", func(context.Context) error { <-release; return nil })

		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		begin := time.Now()
		err := g.Run(ctx)

		if err == nil || !strings.Contains(err.Error(), "edge: did not stop in time") {
			t.Fatalf("got %v", err)
		}

		if took := time.Since(begin); took != 10*time.Second {
			t.Fatalf("took %v", took)
		}

		synctest.Wait()

		if len(j.all()) != 2 {
			t.Fatalf("store was not stopped: %v", j.all())
		}
	})
}

func TestErrorsWhileStoppingAreReportedToo(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		g := lifecycle.New(quiet(), time.Minute)
		g.Add("a", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		g.Add("b", func(ctx context.Context) error { <-ctx.Done(); return errors.New("flush failed") })

		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		if err := g.Run(ctx); err == nil || err.Error() != "b: flush failed" {
			t.Fatalf("got %v", err)
		}
	})
}
