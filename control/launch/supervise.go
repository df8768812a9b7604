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
// kills its whole process group, itself included; when it is killed itself, the kernel kills the
// command. It must be called from the main goroutine of a process of its own, which exits with the result.
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

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)

	// Pdeathsig fires when the thread that forked ends, so it must be one that stays.
	runtime.LockOSThread()

	cmd := exec.Command(command[0], command[1:]...) //nolint:gosec,noctx // running it is the purpose; signals end it
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}

	if err := o.confine(cmd.SysProcAttr); err != nil {
		fmt.Fprintln(stderr, "supervise:", err) //nolint:errcheck // nobody else to tell

		return exitUsage
	}

	if err := cmd.Start(); err != nil {
		fmt.Fprintln(stderr, "supervise:", err) //nolint:errcheck // nobody else to tell

		return exitNotFound
	}

	go func() {
		for sig := range signals {
			door.drain()

			_ = cmd.Process.Signal(sig) // it may have ended
		}
	}()

	go func() {
		waitForEOF(o.parent)
		killGroup(cmd.Process)
	}()

	return exitStatus(cmd.Wait())
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

// waitForEOF returns when the descriptor cannot give anything any more.
func waitForEOF(fd int) {
	buf := make([]byte, 1)

	for {
		n, err := syscall.Read(fd, buf)
		if errors.Is(err, syscall.EINTR) || errors.Is(err, syscall.EAGAIN) {
			continue
		}

		if n <= 0 {
			return
		}
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
