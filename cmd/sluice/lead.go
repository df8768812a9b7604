package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/control/rollout/runner"
)

// shared tells whether other control processes may take over the workers of this one.
func (b *builder) shared() bool {
	return b.role == roleControl && b.settings.Runtime.Orphan > 0
}

// election is how the control processes of a state decide which one acts.
func (b *builder) election() runner.Election {
	return runner.Election{
		Key: b.store.Prefix() + "leader/rollout", ID: b.node + "-" + strconv.Itoa(os.Getpid()), Replaced: b.replaced,
		Joined: sync.OnceFunc(func() { close(b.joined) }),
	}
}

// neighbour tells whether the control process with that id runs on this machine. One that was killed
// takes part in elections until its lease ends.
func (b *builder) neighbour(id string) bool {
	number, ok := strings.CutPrefix(id, b.node+"-")
	if !ok {
		return false
	}

	pid, err := strconv.Atoi(number)
	if err != nil {
		return false
	}

	_, err = os.Stat("/proc/" + strconv.Itoa(pid))

	return err == nil
}

// lead runs the rollout; of several processes that share an etcd, one at a time does.
func (b *builder) lead(ctx context.Context) error {
	if b.etcd == nil {
		return b.runner.Run(ctx) //nolint:wrapcheck // it says what it did
	}

	return b.election().Lead(ctx, b.etcd, b.log, b.runner.Run) //nolint:wrapcheck // it says what it did
}

// joinTimeout bounds the wait for a part in the election, which needs etcd.
const joinTimeout = 10 * time.Second

// takePart waits until other control processes see this one: whoever stops one when the next is
// ready must not find that it was too early.
func (s *system) takePart(ctx context.Context) {
	if s.role != roleControl {
		return
	}

	limit := time.NewTimer(joinTimeout)
	defer limit.Stop()

	select {
	case <-s.joined:
	case <-limit.C:
		s.log.Warn("ready without a part in the election of the leader")
	case <-ctx.Done():
	}
}

// replaced hears that another control process leads, after this one did.
func (b *builder) replaced(leader string) {
	if b.shared() && b.neighbour(leader) {
		b.log.Warn("another control process leads now and has taken over the instances of this one", slog.String("leader", leader))
		b.release()

		return
	}

	b.log.Warn("another control process leads now; draining the instances of this one", slog.String("leader", leader))
	b.launcher.Drain(b.settings.Runtime.Grace.D())
}

func (b *builder) release() {
	b.runner.Abandon()
	b.launcher.Release(b.settings.Runtime.Grace.D())
}

// These bound the look for a successor.
const (
	handOverTimeout  = 3 * time.Second
	handOverPatience = time.Second
	handOverPoll     = 50 * time.Millisecond
)

// handOver leaves the workers to another control process of this machine, if there is one, when this
// one stops. The last one ends them all, also those that it was left and had no time to take over.
func (b *builder) handOver(ctx context.Context) {
	if b.etcd == nil || !b.shared() {
		return
	}

	look, cancel := context.WithTimeout(context.WithoutCancel(ctx), handOverTimeout)
	defer cancel()

	// Right after an absence of etcd another one may be on its way back into the election.
	for end := time.Now().Add(handOverPatience); ; {
		others, err := b.election().Others(look, b.etcd)
		if err != nil {
			b.log.Warn("nobody to hand the instances over to", slog.Any("error", err))

			return
		}

		for _, id := range others {
			if b.neighbour(id) {
				b.log.Info("leaving the instances to another control process", slog.String("to", id))
				b.release()

				return
			}
		}

		if time.Now().After(end) {
			break
		}

		again := time.NewTimer(handOverPoll)
		<-again.C
	}

	if err := b.runner.Collect(look); err != nil {
		b.log.Warn("instances of an earlier control process may be left", slog.Any("error", err))
	}
}

// longestSocketDir leaves room for a file name in the 108 bytes that the kernel gives a socket's path.
const longestSocketDir = 90

// socketDir makes a directory for the workers' sockets, for this user alone. What is in it from
// earlier goes, except what belongs to workers that may be taken over.
func (b *builder) socketDir() (string, error) {
	dir, err := filepath.Abs(filepath.Join(b.settings.DataDir, "run"))
	if err != nil {
		return "", fmt.Errorf("directory for sockets: %w", err)
	}

	if len(dir) > longestSocketDir {
		if dir, err = os.MkdirTemp("", "sluice-"); err != nil {
			return "", fmt.Errorf("directory for sockets: %w", err)
		}
	}

	b.closers = append(b.closers, func() {
		if b.launcher == nil || !b.launcher.Released() {
			os.RemoveAll(dir) //nolint:errcheck // emptied by the next start at the latest
		}
	})

	if err := b.clearSockets(dir); err != nil {
		return "", fmt.Errorf("directory for sockets: %w", err)
	}

	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("directory for sockets: %w", err)
	}

	return dir, nil
}

// clearSockets empties dir. The embedded etcd has locked the data directory: nobody else uses what is
// in it; of a control process with an etcd beside it, workers may be alive.
func (b *builder) clearSockets(dir string) error {
	if !b.shared() {
		return os.RemoveAll(dir) //nolint:wrapcheck // wrapped above
	}

	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil {
		return err //nolint:wrapcheck // wrapped above
	}

	for _, f := range files {
		// A worker's socket is named by its process.
		if pid, err := strconv.Atoi(strings.TrimSuffix(filepath.Base(f), ".sock")); err == nil {
			if _, err := os.Stat("/proc/" + strconv.Itoa(pid)); err == nil {
				continue
			}
		}

		if err := os.RemoveAll(f); err != nil {
			return err //nolint:wrapcheck // wrapped above
		}
	}

	return nil
}
