package launch_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/launch"
)

// shellModel is an engine in the words of a shell; $0 is its port.
func shellModel(t *testing.T, script string) launch.Task {
	t.Helper()

	m := customModel(t.TempDir())
	m.Config.Command = []string{"/bin/sh", "-c", script, "$PORT"}

	return launch.Task{ID: "e", ServiceID: "svc", Model: m}
}

// chatty prints numbers until it is told to end.
const chatty = `trap 'echo told; exit 0' TERM; echo $$ >pid; i=0; while :; do i=$((i+1)); echo line $i; sleep 0.02; done`

func orphans(d time.Duration) func(*launch.Config) {
	return func(c *launch.Config) { c.Orphan, c.OrphanGrace = d, 5*time.Second }
}

// run starts a task and returns what it tells.
func run(t *testing.T, l *launch.Local, task launch.Task) (<-chan launch.Status, launch.Status) {
	t.Helper()

	ch := make(chan launch.Status, 16)
	task.Notify = func(s launch.Status) { ch <- s }

	if err := l.Start(task); err != nil {
		t.Fatal(err)
	}

	return ch, next(t, ch, launch.PhaseListening)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()

	for end := time.Now().Add(20 * time.Second); !is(); pause() {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func TestAdoptedEngineGoesOnWithItsLog(t *testing.T) {
	t.Parallel()

	former, heir, third := newLocal(t, orphans(time.Minute)), newLocal(t, orphans(time.Minute)), newLocal(t, orphans(time.Minute))
	task := shellModel(t, chatty)
	task.Model.Config.Envs = map[string]string{"COLOUR": "green"}

	first, started := run(t, former, task)
	former.Keep("e")
	eventually(t, "a line of the engine", func() bool { return strings.Contains(logOf(t, former, "e", -1), "line 3\n") })
	former.Release(time.Minute)

	if !former.Released() || former.Running("e") || gone(started.PID) {
		t.Fatal("the engine was not left to others")
	}

	for _, l := range []*launch.Local{heir, third} {
		ch := make(chan launch.Status, 16)
		task.Notify = func(s launch.Status) { ch <- s }

		st, err := l.Adopt(task, started.PID)
		if err != nil {
			t.Fatal(err)
		}

		if st.Dir != started.Dir || !contains(st.Env, "COLOUR=green") || !contains(st.Env, "PORT="+portOf(started.Address)) {
			t.Errorf("probes are told %q %q", st.Dir, st.Env)
		}

		before := lastLine(logOf(t, l, "e", 1))
		eventually(t, "a new line", func() bool { return lastLine(logOf(t, l, "e", 1)) > before+3 })

		if use, err := l.Usage(); err != nil || use["e"].MemoryBytes == 0 {
			t.Errorf("usage %v, %v", use, err)
		}

		if l == heir {
			l.Release(time.Minute)

			continue
		}

		l.Stop("e", time.Minute)
		l.Stop("e", 50*time.Second) // SIGTERM again would be "at once" to many engines

		exit := next(t, ch, launch.PhaseEnded).Exit
		if !exit.Requested || exit.Forced || !exit.Adopted || !strings.Contains(exit.String(), "ended with status 0") {
			t.Errorf("exit %+v", exit)
		}

		if text := logOf(t, l, "e", -1); strings.Count(text, "told\n") != 1 {
			t.Errorf("the log does not end with one SIGTERM: %q", logOf(t, l, "e", 3))
		}

		l.Forget("svc")
	}

	if _, err := os.Stat(former.LogFile("svc", "e")); !os.IsNotExist(err) {
		t.Errorf("a log outlives its service: %v", err)
	}

	if len(first) != 0 {
		t.Errorf("the former launcher tells of %+v", <-first)
	}
}

func TestLogOfAnAdoptedEngineIsBounded(t *testing.T) {
	t.Parallel()

	small := func(c *launch.Config) {
		orphans(time.Minute)(c)

		c.MaxLogBytes = 600
	}
	former, heir := newLocal(t, small), newLocal(t, small)
	task := shellModel(t, chatty)
	_, started := run(t, former, task)

	former.Keep("e")
	former.Release(time.Minute)

	// At once: its supervisor may not have begun to listen to signals.
	task.Notify = func(launch.Status) {}
	if _, err := heir.Adopt(task, started.PID); err != nil {
		t.Fatal(err)
	}

	eventually(t, "rotation", func() bool { return lastLine(logOf(t, heir, "e", 1)) > 120 })

	for _, suffix := range []string{"", ".1"} {
		info, err := os.Stat(heir.LogFile("svc", "e") + suffix)
		if err != nil || info.Size() > 600 {
			t.Errorf("%s: %v, %v", suffix, info, err)
		}
	}
}

func TestEngineThatNobodyFindsEndsWithItsLauncher(t *testing.T) {
	t.Parallel()

	l := newLocal(t, orphans(time.Minute))
	ch, started := run(t, l, shellModel(t, chatty))

	l.Release(time.Minute) // without Keep: no record tells of it

	if exit := next(t, ch, launch.PhaseEnded).Exit; !exit.Requested {
		t.Errorf("exit %+v", exit)
	}

	waitGone(t, started.PID)
}

func TestEngineThatNobodyAdoptsEnds(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		script  string
		orphan  time.Duration
		atLeast time.Duration
	}{
		"it drains":      {chatty, 700 * time.Millisecond, 700 * time.Millisecond},
		"it will not":    {`trap '' TERM; echo $$ >pid; while :; do echo deaf; sleep 0.05; done`, 300 * time.Millisecond, 800 * time.Millisecond},
		"it has a child": {`echo $$ >pid; sleep 300 & echo $! >child.pid; wait`, 300 * time.Millisecond, 300 * time.Millisecond},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			l := newLocal(t, func(c *launch.Config) { c.Orphan, c.OrphanGrace = tc.orphan, 500*time.Millisecond })
			task := shellModel(t, tc.script)
			_, started := run(t, l, task)
			pids := []int{started.PID, written(t, filepath.Join(started.Dir, "pid"))}

			if strings.Contains(tc.script, "child") {
				pids = append(pids, written(t, filepath.Join(started.Dir, "child.pid")))
			}

			l.Keep("e")

			began := time.Now()

			l.Release(time.Minute)

			for _, pid := range pids {
				waitGone(t, pid)
			}

			if d := time.Since(began); d < tc.atLeast {
				t.Errorf("it ended after %v", d)
			}
		})
	}
}

func TestEndOfAnAdoptedEngineIsExplained(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		script string
		limit  int64
		end    func(t *testing.T, l *launch.Local, pid int)
		want   string
	}{
		"it fails": {
			`echo $$ >pid; sleep 300 & echo $! >child.pid; until [ -e fail ]; do sleep 0.02; done; echo out of luck >&2; exit 3`, 0,
			func(t *testing.T, _ *launch.Local, pid int) {
				t.Helper()

				dir, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
				if err != nil {
					t.Fatal(err)
				}

				if err := os.WriteFile(filepath.Join(dir, "fail"), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}, "the engine ended with status 3: out of luck",
		},
		"somebody kills its supervisor": {
			`echo $$ >pid; sleep 300 & echo $! >child.pid; echo busy; wait`, 0,
			func(t *testing.T, l *launch.Local, pid int) {
				t.Helper()
				eventually(t, "its words in the log", func() bool { return strings.Contains(logOf(t, l, "e", -1), "busy\n") })

				_ = syscall.Kill(pid, syscall.SIGKILL)
			}, "busy",
		},
		"it is killed": {
			`trap '' TERM; echo $$ >pid; sleep 300 & echo $! >child.pid; while :; do wait; done`, 0,
			func(_ *testing.T, l *launch.Local, _ int) { l.Kill("e") }, "",
		},
		"it takes too much memory": {
			`echo $$ >pid; sleep 300 & echo $! >child.pid; wait`, 1 << 20,
			func(*testing.T, *launch.Local, int) {}, "out of memory",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			former, heir := newLocal(t, orphans(time.Minute)), newLocal(t, orphans(time.Minute))
			task := shellModel(t, tc.script)
			_, started := run(t, former, task)
			pids := []int{started.PID, written(t, filepath.Join(started.Dir, "pid")), written(t, filepath.Join(started.Dir, "child.pid"))}

			former.Keep("e")
			former.Release(time.Minute)

			ch := make(chan launch.Status, 16)
			task.Notify, task.MemoryLimit = func(s launch.Status) { ch <- s }, tc.limit

			if _, err := heir.Adopt(task, started.PID); err != nil {
				t.Fatal(err)
			}

			tc.end(t, heir, started.PID)

			if exit := next(t, ch, launch.PhaseEnded).Exit; !strings.Contains(exit.String(), tc.want) {
				t.Errorf("exit %q, want %q", exit, tc.want)
			}

			for _, pid := range pids {
				waitGone(t, pid)
			}
		})
	}
}

// TestEngineOutlivesAKilledLauncher kills the whole launcher, not only its hold on the engine.
func TestEngineOutlivesAKilledLauncher(t *testing.T) {
	t.Parallel()

	dir := packageDir(t, "")
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), helperEnv+"=launcher", orphanEnv+"=1m")

	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	var (
		name, addr string
		pid        int
	)

	for _, line := range lines(t, out, 2) {
		if strings.HasPrefix(line, "engine ") {
			if _, err := fmt.Sscan(line, &name, &pid, &addr); err != nil {
				t.Fatal(err)
			}
		}
	}

	t.Cleanup(func() { _ = syscall.Kill(-pid, syscall.SIGKILL) })

	was := get(t, "http://"+addr)

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	_ = cmd.Wait()

	heir := newLocal(t, orphans(time.Minute))
	ch := make(chan launch.Status, 16)
	task := launch.Task{ID: "engine", ServiceID: "s", Model: customModel(dir), Notify: func(s launch.Status) { ch <- s }}

	if _, err := heir.Adopt(task, pid); err != nil {
		t.Fatal(err)
	}

	if is := get(t, "http://"+addr); is != was {
		t.Errorf("the engine says %q, before %q", is, was)
	}

	heir.Stop("engine", time.Minute)

	if exit := next(t, ch, launch.PhaseEnded).Exit; exit.Forced {
		t.Errorf("exit %+v", exit)
	}

	waitGone(t, pid)
	waitGone(t, readPID(t, filepath.Join(dir, "child.pid")))
}

// written waits for the number of a process in a file.
func written(t *testing.T, path string) (pid int) {
	t.Helper()
	eventually(t, path, func() bool {
		data, err := os.ReadFile(path)
		if err == nil && strings.HasSuffix(string(data), "\n") {
			pid, err = strconv.Atoi(strings.TrimSpace(string(data)))
		}

		return err == nil && pid > 0
	})

	return pid
}

func contains(list []string, want string) bool {
	for _, s := range list {
		if s == want {
			return true
		}
	}

	return false
}

func portOf(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }

// lastLine is the number in the last line of a log.
func lastLine(text string) int {
	words := strings.Fields(text)
	if len(words) == 0 {
		return 0
	}

	n, err := strconv.Atoi(words[len(words)-1])
	if err != nil {
		return 0
	}

	return n
}
