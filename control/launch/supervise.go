package launch

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalBase is added to the number of the signal that ended a supervised command, as shells do.
const signalBase = 128

const (
	exitUsage    = 2
	exitNotFound = 127
)

// Supervise runs a custom engine on behalf of a launcher: args are "--parent-fd N -- COMMAND…", and before
// the dashes what opens a door past the gateway, see openRelay.
// It passes SIGTERM, SIGINT and SIGHUP on, and returns the exit status of the command (128 and
// the number of the signal that ended it). When the launcher is gone (EOF on the descriptor) it
// kills its whole process group, itself included, unless the engine may outlive it, see attend; when it is
// killed itself, the kernel kills the command. It must be called from the main goroutine of a process of its
// own, which exits with the result.
func Supervise(args []string, stderr io.Writer) int {
	o, command, err := superviseArgs(args)
	if err != nil {
		fmt.Fprintln(stderr, "supervise:", err) //nolint:errcheck // nobody else to tell

		return exitUsage
	}

	syscall.CloseOnExec(o.parent)

	door, err := o.openRelay(slog.New(slog.NewTextHandler(stderr, nil)))
	if err != nil {
		fmt.Fprintln(stderr, "supervise:", err) //nolint:errcheck // nobody else to tell

		return exitUsage
	}
	defer door.close()

	// Before anybody can know that the engine is there.
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, o.signals()...)

	// Pdeathsig fires when the thread that forked ends, so it must be one that stays.
	runtime.LockOSThread()

	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // running it is the purpose; signals end it
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	s := &supervised{o: &o, cmd: cmd, door: door, signals: signals}

	if err := s.start(); err != nil {
		fmt.Fprintln(stderr, "supervise:", err.err) //nolint:errcheck // nobody else to tell

		return err.status
	}

	go s.attend()

	return s.end(cmd.Wait())
}

// supervised is an engine that runs.
type supervised struct {
	o       *superviseOptions
	cmd     *exec.Cmd
	door    *relay
	signals chan os.Signal
	out     *capture // nil if the launcher captures what it prints
	alone   atomic.Bool
}

// startError is why there is no engine, and the exit status that says so.
type startError struct {
	err    error
	status int
}

func (s *supervised) start() *startError {
	if err := s.o.confine(s.cmd.SysProcAttr); err != nil {
		return &startError{err, exitUsage}
	}

	if s.o.orphan > 0 {
		out, err := openCapture(s.o.log, s.o.logMax)
		if err != nil {
			return &startError{err, exitUsage}
		}

		s.out = out
		s.cmd.Stdout, s.cmd.Stderr = out.streams[0].w, out.streams[1].w
	}

	if err := s.cmd.Start(); err != nil {
		return &startError{err, exitNotFound}
	}

	if s.out != nil {
		s.out.started()
	}

	return nil
}

// end tells how the engine ended.
func (s *supervised) end(err error) int {
	status := exitStatus(err)

	if s.out != nil {
		s.out.wait(outputGrace)
	}

	if s.alone.Load() {
		// No launcher waits for the status, and none ends what the engine has left.
		s.out.note(fmt.Sprintf("the engine ended with status %d", status))
		killGroup(s.cmd.Process)
	}

	return status
}

const (
	// dataFactor and dataSpare make a wall far behind the limit that the launcher watches: it stops an
	// engine that takes memory faster than anybody can look, and leaves room for stacks and reserves.
	dataFactor = 4
	dataSpare  = 1 << 30
)

// confine sets the user and the limits of the command.
func (o *superviseOptions) confine(attr *syscall.SysProcAttr) (err error) {
	if o.user != "" {
		if attr.Credential, err = credential(o.user); err != nil {
			return err
		}
	}

	if o.cpus != "" {
		if err := bind(o.cpus); err != nil {
			return err
		}
	}

	// A dump of an engine helps nobody here, and may fill the disk.
	limits := map[int]uint64{unix.RLIMIT_CORE: 0}
	if o.dataLimit > 0 {
		limits[unix.RLIMIT_DATA] = dataFactor*uint64(o.dataLimit) + dataSpare
	}

	// The command inherits them.
	for resource, most := range limits {
		if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: most, Max: most}); err != nil {
			return fmt.Errorf("limit the engine: %w", err)
		}
	}

	return nil
}

// waitForEOF returns when the descriptor cannot give anything any more, and tells whether it gave anything.
func waitForEOF(fd int) (heard bool) {
	buf := make([]byte, 1)

	for {
		n, err := syscall.Read(fd, buf)
		if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) {
			continue
		}

		if n <= 0 {
			return heard
		}

		heard = true
	}
}

func killGroup(p *os.Process) {
	if pid := os.Getpid(); syscall.Getpgrp() == pid {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}

	_ = p.Kill()
}

func exitStatus(err error) int {
	var exit *exec.ExitError

	switch {
	case err == nil:
		return 0
	case !errors.As(err, &exit):
		return 1
	}

	if ws, ok := exit.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
		return signalBase + int(ws.Signal())
	}

	return exit.ExitCode()
}
