package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a server that was started for a measurement.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
}

// start runs a command in a process group of its own, with its output in a file.
func start(ctx context.Context, log, name string, args ...string) (*process, error) {
	out, err := os.Create(log)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	defer out.Close() //nolint:errcheck // the child has its own copy

	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 20 * time.Second

	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}

	p := &process{cmd: cmd, done: make(chan struct{})}

	go func() {
		defer close(p.done)
		cmd.Wait() //nolint:errcheck // it is stopped by a signal
	}()

	return p, nil
}

func (p *process) close() {
	const patience = 20 * time.Second

	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // it may have ended

	select {
	case <-p.done:
	case <-time.After(patience):
		p.cmd.Process.Kill() //nolint:errcheck // it may have ended
		<-p.done
	}
}

// tree lists the process and its descendants.
func (p *process) tree() []int {
	pids := []int{p.cmd.Process.Pid}

	for i := 0; i < len(pids); i++ {
		tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pids[i]))
		if err != nil {
			continue
		}

		for _, t := range tasks {
			data, err := os.ReadFile(t)
			if err != nil {
				continue // the thread has ended
			}

			for f := range strings.FieldsSeq(string(data)) {
				if pid, err := strconv.Atoi(f); err == nil {
					pids = append(pids, pid)
				}
			}
		}
	}

	return pids
}

// cpu is the processor time of the whole tree. Threads that have ended are counted by the kernel's slower clock.
func (p *process) cpu() time.Duration {
	var sum time.Duration
	for _, pid := range p.tree() {
		sum += cpuOf(pid)
	}

	return sum
}

// cpuOf reads user and system time, in ticks of 10 ms.
func cpuOf(pid int) time.Duration {
	const tick = 10 * time.Millisecond

	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}

	_, rest, _ := strings.Cut(string(data), ") ")

	const user, system = 11, 12

	f := strings.Fields(rest)
	if len(f) <= system {
		return 0
	}

	u, err1 := strconv.ParseInt(f[user], 10, 64)
	s, err2 := strconv.ParseInt(f[system], 10, 64)

	if errors.Join(err1, err2) != nil {
		return 0
	}

	return time.Duration(u+s) * tick
}

// resident is the memory of one process in bytes.
func resident(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		return 0
	}

	f := strings.Fields(string(data))
	if len(f) < 2 {
		return 0
	}

	pages, err := strconv.ParseInt(f[1], 10, 64)
	if err != nil {
		return 0
	}

	return pages * int64(os.Getpagesize())
}

// freePort asks the kernel for a port. Somebody else may take it before it is used; the start fails then.
func freePort() (int, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // ends at once
	if err != nil {
		return 0, fmt.Errorf("find a port: %w", err)
	}
	defer ln.Close() //nolint:errcheck // nothing was sent

	addr, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("find a port: not a TCP address")
	}

	return addr.Port, nil
}

// answers waits until a URL answers with 200.
func answers(ctx context.Context, url string) error { return answersTo(ctx, http.MethodGet, url) }

// answers waits until a URL of the process answers with 200, which may take as long as loading onto a device, or
// until the process ends.
func (p *process) answers(ctx context.Context, url string) error {
	const patience = time.Minute

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()

	return poll(ctx, http.MethodGet, url)
}

func answersTo(ctx context.Context, method, url string) error {
	const patience = 10 * time.Second

	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()

	return poll(ctx, method, url)
}

func poll(ctx context.Context, method, url string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()

	for {
		req, err := http.NewRequestWithContext(ctx, method, url, http.NoBody)
		if err != nil {
			return fmt.Errorf("wait for %s: %w", url, err)
		}

		resp, err := http.DefaultClient.Do(req)
		if err == nil {
			io.Copy(io.Discard, resp.Body) //nolint:errcheck // only the status counts
			resp.Body.Close()              //nolint:errcheck // read only

			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}

		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s does not answer: %w", url, errors.Join(err, ctx.Err()))
		}
	}
}
