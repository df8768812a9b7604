package launch

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"
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

// Keep lets the process of an instance outlive this one, for another launcher to adopt. It is for
// an instance that is recorded: one that nobody finds would stay in vain.
func (l *Local) Keep(id string) {
	if p, ok := l.find(id).(*process); ok {
		p.keep()
	}
}

// Adopt takes over the process with pid that another launcher of this machine started for the
// instance of t and left. It hears of its end only. The status holds what a probe needs to know.
func (l *Local) Adopt(t Task, pid int) (Status, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return Status{}, fmt.Errorf("adopt %s: %w: %w", t.ID, ErrNotThere, err)
	}

	a := &adopted{owner: l, task: t, number: pid, fd: fd, changed: make(chan struct{}, 1), finished: make(chan struct{})}

	// The descriptor stands for the process that has the number now: is it the one?
	st, err := a.identify()
	if err == nil {
		err = l.admit(a)
	}

	if err != nil {
		_ = unix.Close(fd)

		return Status{}, fmt.Errorf("adopt %s: %w", t.ID, err)
	}

	return st, nil
}

func (l *Local) admit(a *adopted) error {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.closed || l.procs[a.task.ID] != nil {
		return ErrClosed
	}

	l.procs[a.task.ID] = a
	l.cpus.occupy(a.cpus)

	if a.port > 0 {
		l.ports[a.port] = struct{}{}
	}

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
			if !p.leave() {
				rest = append(rest, h)

				continue
			}
		case *adopted:
			p.leave()
			delete(l.ports, p.port)
			l.cpus.give(p.cpus)
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

// adopted is a worker, or the supervisor of an engine, that another process started.
type adopted struct {
	owner    *Local
	task     Task
	number   int
	port     int    // that an engine was told to use
	cpus     []int  // that it is bound to
	log      string // file that its supervisor writes
	fd       int    // stands for the process, dead or alive; closed by run
	changed  chan struct{}
	finished chan struct{}

	mu        sync.Mutex // guards the rest
	requested bool
	forced    bool
	left      bool
	listens   bool      // to our signals, which would kill it before
	drain     bool      // it is to be told that it shall drain
	end       time.Time // when it is killed
	ended     bool
	noted     string // our own remark on its end
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

	a.drain = a.drain || grace > 0
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

		if a.listens = a.listens || a.catches(sigLookedAfter, sigDrain); a.listens {
			if now.Sub(told) >= lookAfter {
				told = now

				a.signal(sigLookedAfter)
			}

			if a.drain {
				a.drain = false

				a.signal(sigDrain)
			}
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

	a.endGroup()

	reason := a.lastWords()

	a.mu.Lock()
	if a.noted != "" {
		reason = a.noted
	}

	exit := &Exit{Code: -1, Requested: a.requested, Forced: a.forced, Reason: reason, Adopted: true}
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
	if err != nil {
		return // tried again
	}

	used := all[a.task.ID].MemoryBytes
	if used <= a.task.MemoryLimit {
		return
	}

	a.mu.Lock()
	defer a.mu.Unlock()

	if !a.requested && !a.forced {
		a.noted = outOfMemory(used, a.task.MemoryLimit)
	}

	a.forced = true
	a.signal(unix.SIGKILL)
}

// drop forgets an adopted worker.
func (l *Local) drop(a *adopted) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.procs[a.task.ID] == a {
		delete(l.procs, a.task.ID)
	}

	delete(l.ports, a.port)
	l.cpus.give(a.cpus)
}
