package launch_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/spec"
)

const patience = 20 * time.Second

func newLocal(t *testing.T, change func(*launch.Config)) *launch.Local {
	t.Helper()

	cfg := launch.Config{Runtime: os.Args[0], Env: []string{helperEnv + "=worker"}, LogDir: t.TempDir()}
	if change != nil {
		change(&cfg)
	}

	l, err := launch.NewLocal(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = l.Close() })

	return l
}

func packageDir(t *testing.T, mode string) string {
	t.Helper()

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mode"), []byte(mode), 0o600); err != nil {
		t.Fatal(err)
	}

	return dir
}

// start runs a task and returns what it notifies.
func start(t *testing.T, l *launch.Local, id string, m *spec.Model) <-chan launch.Status {
	t.Helper()

	ch := make(chan launch.Status, 16)
	if err := l.Start(launch.Task{ID: id, ServiceID: "svc", Model: m, Notify: func(s launch.Status) { ch <- s }}); err != nil {
		t.Fatal(err)
	}

	return ch
}

func next(t *testing.T, ch <-chan launch.Status, want launch.Phase) launch.Status {
	t.Helper()

	select {
	case s := <-ch:
		if s.Phase != want {
			t.Fatalf("got phase %d (%v), want %d", s.Phase, s.Exit, want)
		}

		return s
	case <-time.After(patience):
		t.Fatal("no change of status")

		return launch.Status{}
	}
}

func TestWorkerTellsItsAddressAndDrainsOnStop(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", workerModel(packageDir(t, "")))

	s := next(t, ch, launch.PhaseListening)
	if s.PID == 0 || !strings.HasPrefix(s.Address, "127.0.0.1:") || s.Network != "tcp" || s.Link != "unix:/x" {
		t.Errorf("status %+v", s)
	}

	// Two stops: the worker would answer a second signal with status 7.
	l.Stop("a", time.Minute)
	l.Stop("a", time.Minute)

	exit := next(t, ch, launch.PhaseEnded).Exit
	if exit.Code != 0 || !exit.Requested || exit.Forced {
		t.Errorf("exit %+v", exit)
	}

	if l.Running("a") || l.Count() != 0 {
		t.Error("still there after its end")
	}
}

func TestStartTwiceStartsOnce(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	m := workerModel(packageDir(t, ""))
	ch := start(t, l, "a", m)
	again := start(t, l, "a", m)

	next(t, ch, launch.PhaseListening)

	if l.Count() != 1 {
		t.Errorf("%d processes", l.Count())
	}

	l.Kill("a")
	next(t, ch, launch.PhaseEnded)

	select {
	case s := <-again:
		t.Errorf("the second start notified %+v", s)
	default:
	}
}

func TestExitTellsWhy(t *testing.T) {
	t.Parallel()

	tests := []struct {
		mode, reason string
		code         int
		permanent    bool
	}{
		{mode: "exit1", code: 1, reason: "out of luck"},
		{mode: "exit3", code: 3, reason: "load package: model.onnx is not an ONNX file", permanent: true},
		{mode: "panic", code: 2, reason: "panic: worker went mad"},
	}
	for _, tt := range tests {
		t.Run(tt.mode, func(t *testing.T) {
			t.Parallel()

			l := newLocal(t, nil)
			exit := next(t, start(t, l, "a", workerModel(packageDir(t, tt.mode))), launch.PhaseEnded).Exit

			if exit.Code != tt.code || exit.Reason != tt.reason || exit.Permanent != tt.permanent || exit.Requested {
				t.Errorf("exit %+v", exit)
			}
		})
	}
}

func TestKilledWorkerIsReportedWithItsSignal(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", workerModel(packageDir(t, "")))

	s := next(t, ch, launch.PhaseListening)
	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	killed := time.Now()
	exit := next(t, ch, launch.PhaseEnded).Exit

	if exit.Signal != "SIGKILL" || exit.Requested || exit.Forced || !strings.Contains(exit.String(), "out of memory") {
		t.Errorf("exit %+v", exit)
	}

	if d := time.Since(killed); d > 2*time.Second {
		t.Errorf("noticed after %s", d)
	}
}

func TestStubbornWorkerIsKilledAfterItsGrace(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", workerModel(packageDir(t, "stubborn")))
	next(t, ch, launch.PhaseListening)

	l.Stop("a", time.Hour)
	l.Stop("a", 50*time.Millisecond) // shortens

	exit := next(t, ch, launch.PhaseEnded).Exit
	if !exit.Requested || !exit.Forced || exit.Signal != "SIGKILL" {
		t.Errorf("exit %+v", exit)
	}
}

func TestWorkerThatNeverListensIsKilled(t *testing.T) {
	t.Parallel()

	l := newLocal(t, func(c *launch.Config) { c.StartTimeout = 100 * time.Millisecond })
	exit := next(t, start(t, l, "a", workerModel(packageDir(t, "mute"))), launch.PhaseEnded).Exit

	if !exit.Forced || exit.Requested || !strings.Contains(exit.Reason, "did not listen within 100ms") {
		t.Errorf("exit %+v", exit)
	}
}

func TestWhatCannotBeStartedEndsWithAReason(t *testing.T) {
	t.Parallel()

	l := newLocal(t, func(c *launch.Config) { c.Runtime = "/nonexistent/runtime" })

	exit := next(t, start(t, l, "a", workerModel(t.TempDir())), launch.PhaseEnded).Exit
	if exit.Code != -1 || !strings.Contains(exit.String(), "could not be started: start /nonexistent/runtime") {
		t.Errorf("exit %v", exit)
	}

	escaping := customModel(t.TempDir())
	escaping.Config.WorkingDir = "../elsewhere"

	exit = next(t, start(t, l, "b", escaping), launch.PhaseEnded).Exit
	if !strings.Contains(exit.Reason, "leaves the package") {
		t.Errorf("exit %v", exit)
	}
}

func TestEnvironmentHoldsNoSecretOfOurs(t *testing.T) {
	t.Setenv("SLUICE_KEYRING", "top-secret")
	t.Setenv("ONNXRUNTIME_LIB", "/lib/ort.so")

	l := newLocal(t, nil)
	ch := make(chan launch.Status, 4)
	task := launch.Task{
		ID: "a", ServiceID: "svc", Model: workerModel(packageDir(t, "")), Notify: func(s launch.Status) { ch <- s },
		Envs: map[string]string{"MODE": "fast", "LD_PRELOAD": "/evil.so", "ONNXRUNTIME_LIB": "/evil.so", "GODEBUG": "evil=1", "A=B": "x"},
	}

	if err := l.Start(task); err != nil {
		t.Fatal(err)
	}

	next(t, ch, launch.PhaseListening)
	l.Stop("a", time.Minute)
	next(t, ch, launch.PhaseEnded)

	text, err := os.ReadFile(l.LogFile("svc", "a"))
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{"MODE=fast", "ONNXRUNTIME_LIB=/lib/ort.so", "SLUICE_INSTANCE=a", "GODEBUG=schedtrace="} {
		if !strings.Contains(string(text), want) {
			t.Errorf("environment lacks %s", want)
		}
	}

	for _, bad := range []string{"top-secret", "evil", "A=B"} {
		if strings.Contains(string(text), bad) {
			t.Errorf("environment holds %s", bad)
		}
	}
}

func TestCustomEngineRunsInItsPackageWithAPort(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	l := newLocal(t, nil)
	ch := start(t, l, "a", customModel(dir))
	s := next(t, ch, launch.PhaseListening)

	body := get(t, "http://"+s.Address)
	if !strings.HasSuffix(body, "port "+s.Address[strings.LastIndex(s.Address, ":")+1:]) {
		t.Errorf("engine says %q at %s", body, s.Address)
	}

	child := readPID(t, filepath.Join(dir, "child.pid"))

	l.Stop("a", time.Minute)

	exit := next(t, ch, launch.PhaseEnded).Exit
	if exit.Code != 0 || exit.Forced {
		t.Errorf("exit %+v", exit)
	}

	waitGone(t, child) // a child of the engine does not outlive the instance
}

func TestCustomEngineTellsItsSignal(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	m := customModel(t.TempDir())
	m.Config.Command = []string{"/bin/sh", "-c", "echo too big >&2; kill -SEGV $$"}

	ch := start(t, l, "a", m)
	next(t, ch, launch.PhaseListening)

	exit := next(t, ch, launch.PhaseEnded).Exit
	if exit.Signal != "SIGSEGV" || exit.Reason != "too big" {
		t.Errorf("exit %+v", exit)
	}
}

func TestShutdownDrainsEverythingAndRefusesMore(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	chans := make([]<-chan launch.Status, 0, 4)

	for i := range 4 {
		chans = append(chans, start(t, l, strconv.Itoa(i), workerModel(packageDir(t, ""))))
	}

	for _, ch := range chans {
		next(t, ch, launch.PhaseListening)
	}

	if err := l.Shutdown(t.Context(), time.Minute); err != nil {
		t.Fatal(err)
	}

	for _, ch := range chans {
		if exit := next(t, ch, launch.PhaseEnded).Exit; exit.Code != 0 || exit.Forced {
			t.Errorf("exit %+v", exit)
		}
	}

	err := l.Start(launch.Task{ID: "late", Model: workerModel(t.TempDir()), Notify: func(launch.Status) {}})
	if !errors.Is(err, launch.ErrClosed) {
		t.Errorf("start after shutdown: %v", err)
	}
}

func TestShutdownKillsWhatIsLeftWhenItsContextEnds(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", workerModel(packageDir(t, "stubborn")))
	next(t, ch, launch.PhaseListening)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	if err := l.Shutdown(ctx, time.Hour); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("shutdown: %v", err)
	}

	if exit := next(t, ch, launch.PhaseEnded).Exit; !exit.Forced {
		t.Errorf("exit %+v", exit)
	}
}

func TestNothingOutlivesAKilledLauncher(t *testing.T) {
	t.Parallel()

	dir := packageDir(t, "")
	cmd := exec.CommandContext(t.Context(), os.Args[0], dir)
	cmd.Env = append(os.Environ(), helperEnv+"=launcher")

	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	var pids []int

	for _, line := range lines(t, out, 2) {
		var (
			name, addr string
			pid        int
		)
		if _, err := fmt.Sscan(line, &name, &pid, &addr); err != nil {
			t.Fatal(err)
		}

		pids = append(pids, pid)

		if name == "engine" {
			fields := strings.Fields(get(t, "http://"+addr))

			engine, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}

			pids = append(pids, engine, readPID(t, filepath.Join(dir, "child.pid")))
		}
	}

	for _, pid := range pids {
		if gone(pid) {
			t.Fatalf("process %d has ended too early", pid)
		}
	}

	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}

	_ = cmd.Wait()

	for _, pid := range pids {
		waitGone(t, pid)
	}
}

func TestKilledSupervisorTakesItsEngineAlong(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", customModel(t.TempDir()))
	s := next(t, ch, launch.PhaseListening)
	engine, _ := strconv.Atoi(strings.Fields(get(t, "http://"+s.Address))[1])

	if err := syscall.Kill(s.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}

	next(t, ch, launch.PhaseEnded)
	waitGone(t, engine)
}

func TestLogFileIsBounded(t *testing.T) {
	t.Parallel()

	l := newLocal(t, func(c *launch.Config) { c.MaxLogBytes = 10_000 })
	m := customModel(t.TempDir())
	m.Config.Command = []string{"/bin/sh", "-c", "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done; " +
		"head -c 100000 /dev/zero | tr '\\0' x; echo; echo last >&2"}

	ch := start(t, l, "a", m)
	next(t, ch, launch.PhaseListening)

	if exit := next(t, ch, launch.PhaseEnded).Exit; exit.Reason != "last" {
		t.Errorf("exit %+v", exit)
	}

	files, err := filepath.Glob(l.LogFile("svc", "*")[:len(l.LogFile("svc", "*"))-len(".log")] + "*")
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, %v", files, err)
	}

	for _, f := range files {
		// One line may be as long as the longest line that is kept.
		if info, err := os.Stat(f); err != nil || info.Size() > 10_000+16<<10 {
			t.Errorf("%s: %v bytes, %v", f, info.Size(), err)
		}
	}
}

func TestUsageCountsTheWholeGroup(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", workerModel(packageDir(t, "")))
	next(t, ch, launch.PhaseListening)

	// An engine below its supervisor, two Go programs, takes more than one of them.
	ch = start(t, l, "b", customModel(t.TempDir()))
	get(t, "http://"+next(t, ch, launch.PhaseListening).Address)

	all, err := l.Usage()
	if err != nil {
		t.Fatal(err)
	}

	if a, b := all["a"].MemoryBytes, all["b"].MemoryBytes; len(all) != 2 || a < 1<<20 || b < a*3/2 {
		t.Errorf("usage %+v", all)
	}
}

func TestInstanceThatTakesTooMuchMemoryIsKilled(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := make(chan launch.Status, 4)
	err := l.Start(launch.Task{
		ID: "a", ServiceID: "svc", Model: workerModel(packageDir(t, "")), MemoryLimit: 1 << 20,
		Notify: func(s launch.Status) { ch <- s },
	})
	if err != nil {
		t.Fatal(err)
	}

	next(t, ch, launch.PhaseListening)

	exit := next(t, ch, launch.PhaseEnded).Exit
	if !exit.Forced || exit.Requested || !strings.Contains(exit.Reason, "its specification allows 1 MiB") {
		t.Errorf("exit %+v", exit)
	}
}

func TestForgetRemovesLogs(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)
	ch := start(t, l, "a", workerModel(packageDir(t, "exit1")))
	next(t, ch, launch.PhaseEnded)

	if _, err := os.Stat(l.LogFile("svc", "a")); err != nil {
		t.Fatal(err)
	}

	l.Forget("../svc") // leaves what is not its own
	l.Forget("svc")

	if _, err := os.Stat(filepath.Dir(l.LogFile("svc", "a"))); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("logs are still there: %v", err)
	}
}

func TestSuperviseRefusesNonsense(t *testing.T) {
	t.Parallel()

	for _, args := range [][]string{
		nil, {"--parent-fd", "3"}, {"--parent-fd", "3", "--"}, {"--parent-fd", "x", "--", "true"}, {"--parent-fd", "1", "--", "true"},
	} {
		if got := launch.Supervise(args, io.Discard); got != 2 {
			t.Errorf("Supervise(%q) = %d", args, got)
		}
	}
}

// get asks until the server answers.
func get(t *testing.T, url string) string {
	t.Helper()

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: time.Second}

	for end := time.Now().Add(patience); time.Now().Before(end); {
		resp, err := client.Get(url)
		if err != nil {
			pause()

			continue
		}

		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()

		if err != nil {
			t.Fatal(err)
		}

		return string(body)
	}

	t.Fatalf("no answer from %s", url)

	return ""
}

func readPID(t *testing.T, path string) int {
	t.Helper()

	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	pid, err := strconv.Atoi(string(text))
	if err != nil {
		t.Fatal(err)
	}

	return pid
}

// gone reports whether the process has ended, reaped or not.
func gone(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}

	_, rest, _ := strings.Cut(string(stat), ") ")

	return strings.HasPrefix(rest, "Z") || strings.HasPrefix(rest, "X")
}

func waitGone(t *testing.T, pid int) {
	t.Helper()

	for end := time.Now().Add(patience); !gone(pid); pause() {
		if time.Now().After(end) {
			t.Fatalf("process %d still runs", pid)
		}
	}
}

// pause waits between looks at another process, which no virtual clock can speed up.
func pause() { <-time.After(5 * time.Millisecond) }
