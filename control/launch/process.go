package launch

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/spec"
)

// exitCannotLoad is the exit status of a worker whose package cannot be loaded.
const exitCannotLoad = 3

const (
	maxReadyLine = 4 << 10
	// outputGrace bounds how long an ended process's last lines are waited for.
	outputGrace = 200 * time.Millisecond
	// lastWords is the time that a worker without an address has to end by itself.
	lastWords = time.Second
)

// process is one task and, from fork to reaping, its process.
type process struct {
	owner *Local
	task  Task
	log   *slog.Logger
	port  int
	tail  tail
	// relay is the door past the gateway of a custom engine, until its supervisor has it.
	relay   *os.File
	relayAt string
	user    *syscall.Credential // of a custom engine, if not ours
	cpus    []int               // that a custom engine is bound to; none for all

	stopping chan struct{} // closed by the first stop
	gone     chan struct{} // closed when the process is reaped
	finished chan struct{} // closed at the end of run

	mu        sync.Mutex // guards the rest
	cmd       *exec.Cmd  // set from fork to reaping
	requested bool
	forced    bool
	muted     bool
	graceEnd  time.Time
	timer     *time.Timer // kills at graceEnd
	tether    *os.File    // of a custom engine that may outlive us: its supervisor reads the other end
	kept      bool
}

func newProcess(owner *Local, t Task) *process {
	return &process{
		owner: owner, task: t,
		log:      owner.log.With(slog.String("service_id", t.ServiceID), slog.String("instance", t.ID)),
		stopping: make(chan struct{}),
		gone:     make(chan struct{}),
		finished: make(chan struct{}),
	}
}

// run takes the process through its whole life and notifies its end exactly once.
func (p *process) run() {
	defer close(p.finished)

	exit := p.live()

	p.mu.Lock()
	exit.Requested, exit.Forced = p.requested, p.forced
	p.mu.Unlock()

	p.owner.forget(p)

	if p.isMute() {
		return
	}

	p.task.Notify(Status{ID: p.task.ID, Phase: PhaseEnded, Exit: exit})
}

func (p *process) live() *Exit {
	select {
	case p.owner.slots <- struct{}{}:
	case <-p.stopping:
		return &Exit{Code: -1, Reason: "stopped before it was started"}
	}

	release := sync.OnceFunc(func() { <-p.owner.slots })
	defer release()

	out, err := p.openOutput()
	if err != nil {
		return &Exit{Code: -1, Reason: err.Error()}
	}
	defer out.close()

	ready, err := p.fork(out)
	if err != nil {
		return &Exit{Code: -1, Reason: err.Error()}
	}

	pid := p.cmd.Process.Pid
	exited := make(chan *Exit, 1)
	listening := p.listen(ready) // before reap, which takes p.cmd away

	go func() { exited <- p.reap(pid) }()

	if limit := p.task.MemoryLimit; limit > 0 {
		p.owner.wg.Go(func() { p.watchMemory(limit) })
	}

	for {
		select {
		case st, ok := <-listening:
			listening = nil

			release()

			if ok {
				p.advertise(&st)
				st.ID, st.Phase, st.PID = p.task.ID, PhaseListening, pid
				p.task.Notify(st)
			}
		case exit := <-exited:
			out.wait(outputGrace)

			if ready != nil {
				_ = ready.Close()
			}

			if listening != nil {
				<-listening // ends, since the pipe is closed
			}

			exit.Reason = p.tail.reason()

			return exit
		}
	}
}

// listen delivers the address of the process, or closes the channel when there is none.
func (p *process) listen(ready *os.File) <-chan Status {
	ch := make(chan Status, 1)

	if ready == nil {
		ch <- Status{
			Network: "tcp", Address: "127.0.0.1:" + strconv.Itoa(p.port), Scheme: p.engineScheme(), Dir: p.cmd.Dir, Env: p.cmd.Env,
			Direct: p.relayAt, User: p.user,
		}

		return ch
	}

	go func() {
		defer close(ch)

		st, err := readReady(ready, p.owner.cfg.StartTimeout)
		if err == nil {
			p.owner.cfg.reachable(&st)

			ch <- st

			return
		}

		if errors.Is(err, os.ErrDeadlineExceeded) {
			p.tail.note(fmt.Sprintf("it did not listen within %s", p.owner.cfg.StartTimeout))
		}

		if !errors.Is(err, io.EOF) && !errors.Is(err, os.ErrClosed) {
			p.log.Warn("worker did not tell its address", slog.Any("error", err))
		}

		// Without an address it is of no use; but it may be about to say why.
		select {
		case <-p.gone:
		case <-time.After(lastWords):
			p.kill()
		}
	}()

	return ch
}

// readyLine is what a worker writes to its ready descriptor.
type readyLine struct {
	HTTP       string `json:"http"`
	Scheme     string `json:"scheme"`
	Link       string `json:"link"`
	Direct     string `json:"direct"`
	DirectGRPC string `json:"direct_grpc"`
	PID        int    `json:"pid"`
}

func readReady(f *os.File, timeout time.Duration) (Status, error) {
	if err := f.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return Status{}, fmt.Errorf("read ready line: %w", err)
	}

	line, err := bufio.NewReader(io.LimitReader(f, maxReadyLine)).ReadBytes('\n')
	if len(bytes.TrimSpace(line)) == 0 {
		return Status{}, fmt.Errorf("read ready line: %w", err)
	}

	var r readyLine
	if err := json.Unmarshal(line, &r); err != nil {
		return Status{}, fmt.Errorf("read ready line %.100q: %w", line, err)
	}

	if r.HTTP == "" {
		return Status{}, fmt.Errorf("ready line %.100q has no http address", line)
	}

	return Status{
		Network: "tcp", Address: r.HTTP, Scheme: cmp.Or(r.Scheme, "http"), Link: r.Link, Direct: r.Direct, DirectGRPC: r.DirectGRPC,
	}, nil
}

// reap waits for the end of the process. The group is killed while the dead leader still
// holds its number, so that the signal cannot reach a stranger.
func (p *process) reap(pid int) *Exit {
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}

	p.mu.Lock()
	defer p.mu.Unlock()

	// ESRCH means that nobody else was left in the group.
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	err := p.cmd.Wait()
	state := p.cmd.ProcessState
	p.cmd = nil

	p.untether()
	close(p.gone)

	if p.timer != nil {
		p.timer.Stop()
	}

	exit := &Exit{Code: -1}

	if state == nil {
		p.tail.note(fmt.Sprint(err))

		return exit
	}

	ws, ok := state.Sys().(syscall.WaitStatus)
	if !ok {
		return exit
	}

	exit.Code = ws.ExitStatus()

	switch {
	case ws.Signaled():
		exit.Signal = unix.SignalName(ws.Signal())
	case p.task.Model.Engine() == spec.EngineCustom && exit.Code > signalBase:
		exit.Signal, exit.Code = unix.SignalName(syscall.Signal(exit.Code-signalBase)), -1
	}

	exit.Permanent = p.task.Model.Engine() == spec.EngineONNX && exit.Code == exitCannotLoad

	return exit
}

// stop asks for the end: a signal at once, a kill after grace. A later call can only
// shorten the grace.
func (p *process) stop(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()

	end := time.Now().Add(grace)
	if p.requested && !end.Before(p.graceEnd) {
		return
	}

	p.graceEnd = end

	if !p.requested {
		p.requested = true

		close(p.stopping)

		if p.cmd != nil && grace > 0 {
			// It may have ended; then there is nothing to tell it.
			_ = p.cmd.Process.Signal(syscall.SIGTERM)
		}
	}

	if p.timer != nil {
		p.timer.Stop()
	}

	if grace <= 0 {
		p.killLocked()
	} else {
		p.timer = time.AfterFunc(grace, p.kill)
	}
}

// done implements handle.
func (p *process) done() <-chan struct{} { return p.finished }

// mute leaves the process to somebody else: its end is nobody's business here but the kernel's.
func (p *process) mute() {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.muted = true
	p.untether()

	if p.timer != nil {
		p.timer.Stop()
	}
}

// hold takes the end of a pipe whose other end a supervisor gets.
func (p *process) hold(w *os.File) {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.tether = w
}

// untether lets the supervisor know that we are gone; mu is held.
func (p *process) untether() {
	if p.tether != nil {
		_ = p.tether.Close()
		p.tether = nil
	}
}

// keep lets the process outlive us; only those that others find may.
func (p *process) keep() {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.kept || p.tether == nil || p.cmd == nil {
		return
	}

	if _, err := p.tether.Write([]byte{'k'}); err != nil { // one byte fits
		p.log.Warn("the engine will end with this process", slog.Any("error", err))

		return
	}

	p.kept = true
}

// leave gives the process to whoever adopts it, and reports whether that is possible.
func (p *process) leave() bool {
	p.mu.Lock()
	able := p.cmd != nil && (p.task.Model.Engine() == spec.EngineONNX || p.kept)
	p.mu.Unlock()

	if able {
		p.mute()
	}

	return able
}

func (p *process) isMute() bool {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.muted
}

// pid is 0 while there is no process.
func (p *process) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()

	if p.cmd == nil {
		return 0
	}

	return p.cmd.Process.Pid
}

func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()

	p.killLocked()
}

// killLocked kills the group; mu is held, which keeps the process from being reaped.
func (p *process) killLocked() {
	if p.cmd == nil {
		return
	}

	p.forced = true
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
}
