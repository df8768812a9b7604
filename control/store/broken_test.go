package store_test

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/spec"
)

const brokenEnv = "SLUICE_TEST_BROKEN"

// inOwnProcess runs the test again in a process of its own.
func inOwnProcess(t *testing.T, env string) {
	t.Helper()

	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.timeout=1m")
	cmd.Env = append(os.Environ(), env)

	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestBrokenStateAnswersAtOnce: a database that cannot be written stops with its locks held, and
// nobody may wait for it, neither who called before nor who calls after.
func TestBrokenStateAnswersAtOnce(t *testing.T) {
	t.Parallel()

	if os.Getenv(brokenEnv) == "" {
		inOwnProcess(t, brokenEnv+"=1")

		return
	}

	e := storetest.Start(t, t.TempDir())
	s := store.New(e.Client(), "")
	must(t, s.Models.Put(t.Context(), "m", spec.Model{}))

	if err := e.Err(); err != nil {
		t.Fatal(err)
	}

	watching, stop := context.WithCancel(t.Context())
	defer stop()

	var watches []<-chan struct{}

	for range 10 {
		watches = append(watches, ended(s.Changed(watching)), ended(s.Models.Watch(watching, 0)))
	}

	const callers = 20

	answers := make(chan error, callers)

	for range callers {
		go func() {
			for {
				if err := s.Models.Put(context.Background(), "m", spec.Model{}); err != nil {
					answers <- err

					return
				}
			}
		}()
	}

	e.Break("no space left on device")

	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()

	select {
	case <-e.Failed():
	case <-limit.C:
		t.Fatal("nobody hears of it")
	}

	_, getErr := s.Models.Get(context.Background(), "m")
	_, _, listErr := s.Models.List(context.Background())
	all := []error{
		e.Err(), getErr, listErr, s.Ping(context.Background()), s.Models.Delete(context.Background(), "m"),
		s.Revocations.PutTTL(context.Background(), "r", spec.Revocation{}, time.Minute),
	}

	for range callers {
		select {
		case err := <-answers:
			all = append(all, err)
		case <-limit.C:
			t.Fatal("a caller waits for a member that cannot go on")
		}
	}

	for i, err := range all {
		if err == nil || !strings.Contains(err.Error(), "no space left on device") {
			t.Errorf("answer %d: %v", i, err)
		}
	}

	stop()

	for range 10 { // new ones end, too
		watches = append(watches, ended(s.Changed(watching)), ended(s.Models.Watch(watching, 1)))
	}

	for i, w := range watches {
		select {
		case <-w:
		case <-limit.C:
			t.Fatalf("watch %d does not end", i)
		}
	}

	began := time.Now()
	e.Close()

	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("closing took %v", d)
	}
}

// ended is closed when c is.
func ended[T any](c <-chan T) <-chan struct{} {
	done := make(chan struct{})

	go func() {
		defer close(done)

		for range c {
		}
	}()

	return done
}
