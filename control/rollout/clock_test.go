package rollout_test

import (
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// TestClockThatIsSetEndsNoUpgrade sets the clock by an hour while an instance of the new version starts
// (the deployment timeout is 20 minutes): nothing is given up for it, and the time that really is over
// still counts.
func TestClockThatIsSetEndsNoUpgrade(t *testing.T) {
	t.Parallel()

	for name, set := range map[string]time.Duration{"forward": time.Hour, "back": -time.Hour} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			w := newWorld()
			w.deploy(entry("a", 1))
			w.settle()
			w.ready(t)

			w.deploy(entry("b", 1))
			w.settle()

			w.now = w.now.Add(time.Minute)
			w.settle()

			before := *w.state.Upgrade

			w.now, w.ahead = w.now.Add(set), set
			w.settle()

			if w.state.Upgrade == nil || w.state.Upgrade.Rollback || w.failed() > 0 {
				t.Fatalf("the clock that was set ended the upgrade: %+v, %d failed", w.state.Upgrade, w.failed())
			}

			since := w.now.UnixMilli() - w.state.Upgrade.ProgressAt
			if since < 0 || since > time.Minute.Milliseconds() {
				t.Errorf("progress was %d ms ago, after a minute (before %+v)", since, before)
			}

			// Nobody is ready in the whole of the timeout: now it is over.
			w.now = w.now.Add(21 * time.Minute)
			w.settle()

			if !strings.Contains(w.allEvents(), "timed out") && w.failed() == 0 && (w.state.Upgrade == nil || !w.state.Upgrade.Rollback) {
				t.Errorf("the timeout never ends: %+v", w.state.Upgrade)
			}
		})
	}
}

// TestScheduledStopGoesByTheTimeOfDay: a stop at a time of day is due when the clock shows it.
func TestScheduledStopGoesByTheTimeOfDay(t *testing.T) {
	t.Parallel()

	w := newWorld()
	w.deploy(entry("a", 1))
	w.settle()
	w.ready(t)

	w.service.StopAt = w.now.Add(30 * time.Minute).UnixMilli()
	w.now, w.ahead = w.now.Add(-time.Hour), -time.Hour
	w.settle()

	if w.service.Stopped {
		t.Fatal("stopped before its time")
	}

	w.now, w.ahead = w.now.Add(2*time.Hour), 2*time.Hour
	w.settle()

	if !w.service.Stopped {
		t.Fatal("not stopped though the clock shows its time")
	}
}

// ready makes every instance ready.
func (w *world) ready(t *testing.T) {
	t.Helper()

	for id := range w.observed {
		w.listen(id, spec.InstanceReady, "")
	}

	w.settle()

	for _, inst := range w.instances {
		if inst.State != spec.InstanceReady {
			t.Fatalf("instance %+v is not ready", inst)
		}
	}
}

func (w *world) failed() (n int) {
	for _, inst := range w.instances {
		if inst.State == spec.InstanceFailed || inst.Failures > 0 {
			n++
		}
	}

	return n
}

func (w *world) allEvents() string {
	var b strings.Builder
	for _, e := range w.events {
		b.WriteString(e.Info + "\n")
	}

	return b.String()
}
