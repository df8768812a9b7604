package launch_test

import (
	"errors"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/launch"
)

func adopt(t *testing.T, l *launch.Local, id string, pid int) <-chan launch.Status {
	t.Helper()

	ch := make(chan launch.Status, 16)
	task := launch.Task{ID: id, ServiceID: "svc", Model: workerModel(""), Notify: func(s launch.Status) { ch <- s }}

	if _, err := l.Adopt(task, pid); err != nil {
		t.Fatal(err)
	}

	return ch
}

func TestAdoptedWorkerIsLookedAfterAndStopped(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		mode   string
		grace  time.Duration
		forced bool
	}{{"", time.Minute, false}, {"stubborn", 200 * time.Millisecond, true}, {"", 0, true}} {
		former, heir := newLocal(t, nil), newLocal(t, nil)
		first := start(t, former, "a", workerModel(packageDir(t, tc.mode)))
		pid := next(t, first, launch.PhaseListening).PID

		former.Release(time.Minute)

		if !former.Released() || former.Count() != 0 || former.Running("a") {
			t.Error("the former launcher has not let go")
		}

		ch := adopt(t, heir, "a", pid)

		if _, err := heir.Adopt(launch.Task{ID: "a", Model: workerModel("")}, pid); err == nil {
			t.Error("adopted twice")
		}

		if use, err := heir.Usage(); err != nil || use["a"].MemoryBytes == 0 {
			t.Errorf("usage %v, %v", use, err)
		}

		heir.Stop("a", tc.grace)
		heir.Stop("a", tc.grace+time.Minute)

		exit := next(t, ch, launch.PhaseEnded).Exit
		if !exit.Requested || exit.Forced != tc.forced || !exit.Adopted {
			t.Errorf("%+v: exit %+v", tc, exit)
		}

		if heir.Count() != 0 {
			t.Error("still there after its end")
		}

		select {
		case s := <-first:
			t.Errorf("the former launcher tells of %+v", s)
		default:
		}
	}
}

func TestAdoptedWorkerPassesOnAndBack(t *testing.T) {
	t.Parallel()

	a, b := newLocal(t, nil), newLocal(t, nil)
	pid := next(t, start(t, a, "a", workerModel(packageDir(t, ""))), launch.PhaseListening).PID

	a.Release(time.Minute)

	fromB := adopt(t, b, "a", pid)

	b.Release(time.Minute)

	// It is a's own child again, by adoption.
	ch := adopt(t, a, "a", pid)

	a.Kill("a")

	if exit := next(t, ch, launch.PhaseEnded).Exit; !exit.Forced {
		t.Errorf("exit %+v", exit)
	}

	if len(fromB) != 0 {
		t.Errorf("who released it hears of its end: %+v", <-fromB)
	}
}

func TestStrangersAreNotAdopted(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", workerModel(packageDir(t, "")))
	pid := next(t, ch, launch.PhaseListening).PID

	for name, tc := range map[string]struct {
		id  string
		pid int
	}{
		"another instance": {"b", pid}, "a number nobody has": {"a", 1 << 22}, "a process that is no instance": {"a", 1},
	} {
		_, err := newLocal(t, nil).Adopt(launch.Task{ID: tc.id, Model: workerModel("")}, tc.pid)
		if !errors.Is(err, launch.ErrNotThere) {
			t.Errorf("%s: %v", name, err)
		}
	}

	if _, err := newLocal(t, nil).Adopt(launch.Task{ID: "a", Model: customModel("")}, pid); !errors.Is(err, launch.ErrNotThere) {
		t.Errorf("custom engine: %v", err)
	}
}
