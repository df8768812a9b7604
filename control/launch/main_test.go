package launch_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/spec"
)

// helperEnv makes the test binary play another program.
const helperEnv = "SLUICE_TEST_HELPER"

// orphanEnv tells the launcher for how long engines outlive it.
const orphanEnv = "SLUICE_TEST_ORPHAN"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "supervise" {
		exit(launch.Supervise(os.Args[2:], os.Stderr))
	}

	switch os.Getenv(helperEnv) {
	case "worker":
		exit(worker())
	case "engine":
		exit(engine())
	case "launcher":
		exit(launcher())
	}

	goleak.VerifyTestMain(m)
}

func exit(status int) { os.Exit(status) } //nolint:forbidigo // the test binary plays another program

// worker plays sluice-runtime; the file "mode" of the package says how it behaves.
func worker() int {
	dir := os.Args[3]
	mode, _ := os.ReadFile(filepath.Join(dir, "mode"))

	switch string(mode) {
	case "exit1":
		fmt.Fprintln(os.Stderr, "out of luck")

		return 1
	case "exit3":
		fmt.Fprintln(os.Stderr, `{"level":"ERROR","msg":"load package","error":"model.onnx is not an ONNX file"}`)

		return 3
	case "panic":
		panic("worker went mad")
	case "mute":
		select {}
	}

	go func() {
		_, _ = os.NewFile(3, "parent").Read(make([]byte, 1))
		exit(9)
	}()

	signal.Ignore(syscall.SIGUSR1)

	term := make(chan os.Signal, 4)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGUSR2)

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 1
	}

	ready := os.NewFile(4, "ready")
	_ = json.NewEncoder(ready).Encode(map[string]any{
		"http": ln.Addr().String(), "pid": os.Getpid(), "link": "unix:/x",
	})
	_ = ready.Close()

	fmt.Fprintln(os.Stdout, "worker env", strings.Join(os.Environ(), " "))

	for range term {
		if string(mode) == "stubborn" {
			continue
		}

		select {
		case <-term: // a second signal would cut requests short
			return 7
		case <-time.After(50 * time.Millisecond):
			return 0
		}
	}

	return 1
}

// engine plays a custom engine that has a child of its own.
func engine() int {
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "300"}, &os.ProcAttr{})
	if err != nil {
		return 1
	}

	if err := os.WriteFile("child.pid", fmt.Append(nil, child.Pid), 0o600); err != nil {
		return 1
	}

	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)

	ln, err := net.Listen("tcp", "127.0.0.1:"+os.Args[len(os.Args)-1])
	if err != nil {
		return 1
	}

	go func() {
		_ = http.Serve(ln, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprintf(w, "pid %d port %s", os.Getpid(), os.Getenv("PORT"))
		}))
	}()

	<-term

	return 0
}

// launcher plays control: it starts one worker and one custom engine, tells their addresses,
// and waits to be killed.
func launcher() int {
	cfg := launch.Config{Runtime: os.Args[0], Env: []string{helperEnv + "=worker"}}
	if orphan, err := time.ParseDuration(os.Getenv(orphanEnv)); err == nil {
		cfg.Orphan, cfg.LogDir = orphan, filepath.Join(os.Args[1], "logs")
	}

	l, err := launch.NewLocal(cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return 1
	}

	notify := make(chan launch.Status, 8)
	tell := func(s launch.Status) { notify <- s }

	model := customModel(os.Args[1])
	tasks := []launch.Task{
		{ID: "worker", ServiceID: "s", Notify: tell, Model: workerModel(os.Args[1])},
		{ID: "engine", ServiceID: "s", Notify: tell, Model: model},
	}
	for _, task := range tasks {
		if err := l.Start(task); err != nil {
			return 1
		}
	}

	for range tasks {
		s := <-notify
		l.Keep(s.ID)
		fmt.Fprintln(os.Stdout, s.ID, s.PID, s.Address)
	}

	select {}
}

func workerModel(dir string) *spec.Model {
	return &spec.Model{Name: "m", Version: "1.0.0", Package: spec.PackageRef{Dir: dir}, Config: spec.PackageConfig{ModelType: "ONNX"}}
}

func customModel(dir string) *spec.Model {
	m := workerModel(dir)
	m.Config = spec.PackageConfig{
		ModelType: "Custom", Command: []string{os.Args[0], "$PORT"}, Envs: map[string]string{helperEnv: "engine"},
	}

	return m
}

// lines reads n lines of r.
func lines(t *testing.T, r io.Reader, n int) []string {
	t.Helper()

	var out []string

	sc := bufio.NewScanner(r)
	for len(out) < n && sc.Scan() {
		out = append(out, sc.Text())
	}

	if len(out) < n {
		t.Fatalf("got %d lines of %d: %q", len(out), n, out)
	}

	return out
}
