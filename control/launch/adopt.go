package launch

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/spec"
)

// ErrNotThere means that the process to adopt does not exist any more, or cannot be adopted.
var ErrNotThere = errors.New("the process is not there")

// Signals to workers that may outlive the process that started them, see --orphan of sluice-runtime.
const (
	sigLookedAfter = unix.SIGUSR1
	sigDrain       = unix.SIGUSR2
)

// lookAfter is how often an adopted worker hears that somebody looks after it.
const lookAfter = 2 * time.Second

// instanceEnv names the variable that tells a process which instance it is.
const instanceEnv = "SLUICE_INSTANCE"

// Adopt takes over the worker with pid that another launcher of this machine started for the
// instance of t and left. It hears of its end only.
func (l *Local) Adopt(t Task, pid int) error {
	if t.Model.Engine() != spec.EngineONNX {
		return ErrNotThere // its supervisor ends with the launcher
	}

	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("adopt %s: %w: %w", t.ID, ErrNotThere, err)
	}

	// The descriptor stands for the process that has the number now: is it the one?
	if !isInstance(pid, t.ID) {
		_ = unix.Close(fd)

		return fmt.Errorf("adopt %s: %w", t.ID, ErrNotThere)
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	if l.closed || l.procs[t.ID] != nil {
		_ = unix.Close(fd)

		return fmt.Errorf("adopt %s: %w", t.ID, ErrClosed)
	}

	a := &adopted{owner: l, task: t, number: pid, fd: fd, changed: make(chan struct{}, 1), finished: make(chan struct{})}
	l.procs[t.ID] = a
	l.wg.Go(a.run)

	return nil
}

// Release leaves the workers to another control process of this machine, which adopts them, and
// lets go of them: nobody hears of their end. What cannot be adopted is stopped.
func (l *Local) Release(grace time.Duration) {
	l.mu.Lock()

	var rest []handle

	for id, h := range l.procs {
		switch p := h.(type) {
		case *process:
			if p.task.Model.Engine() != spec.EngineONNX {
				rest = append(rest, h)

				continue
			}

			p.mute()
		case *adopted:
			p.leave()
		}

		delete(l.procs, id)
		l.released = true
	}
	l.mu.Unlock()

	for _, h := range rest {
		h.stop(grace)
	}
}

// Released reports whether workers were left to another control process.
func (l *Local) Released() bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.released
}

// isInstance tells whether the process runs that instance.
func isInstance(pid int, id string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return false
	}

	want := []byte(instanceEnv + "=" + id)

	for v := range bytes.SplitSeq(env, []byte{0}) {
		if bytes.Equal(v, want) {
			return true
		}
	}

	return false
}

// adopted is a worker that another process started.
type adopted struct {
	owner    *Local
	task     Task
	number   int
	fd       int // stands for the process, dead or alive; closed by run
	changed  chan struct{}
	finished chan struct{}

	mu        sync.Mutex // guards the rest
	requested bool
	forced    bool
	left      bool
	end       time.Time // when it is killed
	ended     bool
}

func (a *adopted) pid() int {
	a.mu.Lock()
	defer a.mu.Unlock()

	if a.ended {
		return 0
	}

	return a.number
}

// signal tells the process something, unless it has ended; mu is held.
func (a *adopted) signal(sig unix.Signal) {
	if !a.ended {
		_ = unix.PidfdSendSignal(a.fd, sig, nil, 0) // it may have ended just now
	}
}

// stop implements handle.
func (a *adopted) stop(grace time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()

	end := time.Now().Add(grace)
	if a.requested && !end.Before(a.end) {
		return
	}

	a.end, a.requested = end, true

	if grace > 0 {
		a.signal(sigDrain)
	}

	a.wake()
}

// done implements handle.
func (a *adopted) done() <-chan struct{} { return a.finished }

func (a *adopted) leave() {
	a.mu.Lock()
	defer a.mu.Unlock()

	a.left = true
	a.wake()
}

func (a *adopted) wake() {
	select {
	case a.changed <- struct{}{}:
	default:
	}
}

// adoptedTick bounds how late an end is noticed.
const adoptedTick = 50 * time.Millisecond

// run looks after the worker until it ends or is left.
func (a *adopted) run() {
	defer close(a.finished)
	defer func() { _ = unix.Close(a.fd) }()

	tick := time.NewTicker(adoptedTick)
	defer tick.Stop()

	var told, measured time.Time

	for !a.gone() {
		now := time.Now()

		a.mu.Lock()

		if a.left {
			a.ended = true // nothing is told any more
			a.mu.Unlock()

			return
		}

		if a.requested && !now.Before(a.end) {
			a.forced = true
			a.signal(unix.SIGKILL)
		}

		if now.Sub(told) >= lookAfter {
			told = now

			a.signal(sigLookedAfter)
		}

		a.mu.Unlock()

		if a.task.MemoryLimit > 0 && now.Sub(measured) >= memoryCheck {
			measured = now

			a.measure()
		}

		select {
		case <-tick.C:
		case <-a.changed:
		}
	}

	a.mu.Lock()
	exit := &Exit{Code: -1, Requested: a.requested, Forced: a.forced, Reason: "it has ended", Adopted: true}
	left := a.left
	a.ended = true
	a.mu.Unlock()

	if left { // and ended before that was noticed here
		return
	}

	a.owner.drop(a)
	a.task.Notify(Status{ID: a.task.ID, Phase: PhaseEnded, Exit: exit})
}

// gone tells whether the process has ended, reaped or not.
func (a *adopted) gone() bool {
	fds := []unix.PollFd{{Fd: int32(a.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, 0)

	return err == nil && n > 0
}

func (a *adopted) measure() {
	all, err := a.owner.Usage()
	if err == nil && all[a.task.ID].MemoryBytes > a.task.MemoryLimit {
		a.stop(0)
	}
}

// drop forgets an adopted worker.
func (l *Local) drop(a *adopted) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.procs[a.task.ID] == a {
		delete(l.procs, a.task.ID)
	}
}
