package main

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// With --orphan a worker outlives its parent for a while, so that another control process can take
// it over. SIGUSR1 says that one looks after it, SIGUSR2 tells it to drain as SIGTERM does, but may be
// repeated: who takes over does not know what was said before.

// watch waits for the end of serving, which stop asks for; a worker whose parent is gone ends,
// at once or when nobody has looked after it for the time of --orphan.
func (w *worker) watch(done <-chan error, orphaned <-chan struct{}, stop context.CancelFunc) error {
	heard := make(chan os.Signal, 1)

	signal.Notify(heard, syscall.SIGUSR1)
	defer signal.Stop(heard)

	if w.opt.orphan > 0 {
		signal.Ignore(syscall.SIGPIPE) // the other end of standard output goes with the parent
	}

	timer := time.NewTimer(time.Hour)
	timer.Stop()

	alone := false

	for {
		select {
		case err := <-done:
			return err
		case <-orphaned:
			if state, _ := w.state.Report(); w.opt.orphan <= 0 || state != "ready" && state != "draining" {
				return errOrphaned // nobody uses it
			}

			w.log.Warn("the parent process is gone; serving on", slog.Duration("for", w.opt.orphan))
			timer.Reset(w.opt.orphan)

			orphaned, alone = nil, true
		case <-heard:
			if alone {
				timer.Reset(w.opt.orphan)
			}
		case <-timer.C:
			w.log.Warn("nobody looks after this worker; draining")
			stop()
		}
	}
}
