package health

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// execute runs a command as the engine's user; exit status 0 means able to serve.
func execute(ctx context.Context, t Target, pr probe) result {
	cmd := exec.CommandContext(ctx, "/bin/sh", "-c", pr.command) //nolint:gosec // the package's own health command
	cmd.Env = t.Env
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: t.User}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second

	out := &head{max: maxReason}
	cmd.Stdout, cmd.Stderr = out, out

	err := runIn(t.Dir, cmd)
	if err == nil {
		return result{}
	}

	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return result{err: fmt.Errorf("no answer to a probe within %s", pr.timeout)}
	}

	if text := strings.TrimSpace(string(out.text)); text != "" {
		err = fmt.Errorf("%w: %.200s", err, text)
	}

	return result{err: fmt.Errorf("health command: %w", err)}
}

// runIn runs cmd in dir. Another user may be kept out of the directories above it, so that it has to start
// there: a thread of its own enters it before the user changes.
func runIn(dir string, cmd *exec.Cmd) error {
	if cmd.SysProcAttr.Credential == nil {
		cmd.Dir = dir

		return cmd.Run() //nolint:wrapcheck // worded by the caller
	}

	ended := make(chan error, 1)

	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine, its directory with it

		err := unix.Unshare(unix.CLONE_FS)
		if err == nil {
			err = unix.Chdir(dir)
		}

		if err == nil {
			err = cmd.Run()
		}

		ended <- err
	}()

	return <-ended
}

// head keeps the first max bytes that are written to it.
type head struct {
	text []byte
	max  int
}

// Write implements io.Writer; it never fails.
func (h *head) Write(p []byte) (int, error) {
	h.text = append(h.text, p[:min(len(p), h.max-len(h.text))]...)

	return len(p), nil
}
