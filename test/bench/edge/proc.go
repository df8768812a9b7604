package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a started program and what it has started in turn.
type process struct {
	name string
	cmd  *exec.Cmd
	out  bytes.Buffer
	done chan struct{}
}

// spawn starts a program in a process group of its own. It ends in order when ctx does, and also when this
// process is killed; for that it has to be called on a locked thread, because the kernel watches threads.
func spawn(ctx context.Context, stdout io.Writer, name string, args ...string) (*process, error) {
	p := &process{name: filepath.Base(name), cmd: exec.CommandContext(ctx, name, args...), done: make(chan struct{})}
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	p.cmd.Cancel = func() error { return p.cmd.Process.Signal(syscall.SIGTERM) } // killed, nginx would leave its children behind
	p.cmd.WaitDelay = killAfter
	p.cmd.Stderr = &p.out
	p.cmd.Stdout = stdout

	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", p.name, err)
	}

	go func() {
		defer close(p.done)

		p.cmd.Wait() //nolint:errcheck // an early end shows where its port is waited for
	}()

	return p, nil
}

// killAfter is how long a program may take to stop.
const killAfter = 10 * time.Second

// stop ends the program in order, or all of its group by force.
func (p *process) stop() {
	p.cmd.Process.Signal(syscall.SIGTERM) //nolint:errcheck // ended already

	late := time.NewTimer(killAfter)
	defer late.Stop()

	select {
	case <-p.done:
	case <-late.C:
	}

	syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) //nolint:errcheck // nothing is left in the best case
	<-p.done
}

// waitPort waits until addr accepts or the program is gone.
func (p *process) waitPort(ctx context.Context, addr string) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()

	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			return conn.Close() //nolint:wrapcheck // never seen
		}

		select {
		case <-tick.C:
		case <-p.done:
			return fmt.Errorf("%s ended: %s", p.name, bytes.TrimSpace(p.out.Bytes()))
		case <-ctx.Done():
			return fmt.Errorf("%s does not listen on %s: %w", p.name, addr, err)
		}
	}
}

// freePort finds a port that nobody listens on now.
func freePort(ctx context.Context) (int, error) {
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer ln.Close() //nolint:errcheck // nothing was sent

	addr, ok := ln.Addr().(*net.TCPAddr)
	if !ok {
		return 0, errors.New("find a free port: not a TCP address")
	}

	return addr.Port, nil
}

// stat is one line of /proc/PID/stat.
type stat struct {
	pid, parent int
	name        string
	cpu         time.Duration // user and system, of all threads
}

// tick is the unit of CPU time in /proc: USER_HZ is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// Positions after the name, which may hold spaces: state is 0.
const (
	statParent = 1
	statUser   = 11
	statSystem = 12
)

func parseStat(line string) (stat, error) {
	open, end := strings.IndexByte(line, '('), strings.LastIndexByte(line, ')')
	if open < 1 || end < open {
		return stat{}, fmt.Errorf("not a line of /proc/PID/stat: %q", line)
	}

	f := strings.Fields(line[end+1:])
	if len(f) <= statSystem {
		return stat{}, fmt.Errorf("a short line of /proc/PID/stat: %q", line)
	}

	pid, err1 := strconv.Atoi(strings.TrimSpace(line[:open]))
	parent, err2 := strconv.Atoi(f[statParent])
	user, err3 := strconv.ParseInt(f[statUser], 10, 64)
	system, err4 := strconv.ParseInt(f[statSystem], 10, 64)

	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return stat{}, fmt.Errorf("read /proc/PID/stat: %w", err)
	}

	return stat{pid: pid, parent: parent, name: line[open+1 : end], cpu: time.Duration((user + system) * int64(tick))}, nil
}

// family reads a process and all that descends from it.
func family(root int) ([]stat, error) {
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}

	all := make(map[int]stat, len(files))

	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended since
		}

		s, err := parseStat(string(data))
		if err != nil {
			return nil, err
		}

		all[s.pid] = s
	}

	var out []stat

	for _, s := range all {
		for p := s; ; p = all[p.parent] {
			if p.pid == root {
				out = append(out, s)

				break
			}

			if p.pid == 0 {
				break
			}
		}
	}

	return out, nil
}

// cpuOf is the CPU time of a family: of its root, and of the rest.
func cpuOf(p *process) (own, rest time.Duration, err error) {
	members, err := family(p.cmd.Process.Pid)
	if err != nil {
		return 0, 0, err
	}

	for _, s := range members {
		if s.pid == p.cmd.Process.Pid {
			own += s.cpu
		} else {
			rest += s.cpu
		}
	}

	return own, rest, nil
}
