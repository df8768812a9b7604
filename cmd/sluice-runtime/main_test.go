package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-gateway/sluice/internal/ortlib"
	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
)

const (
	reexec = "SLUICE_RUNTIME_TEST_MAIN"
	digits = "../../configs/models/digits"
)

// TestMain lets the test binary stand in for the worker, so that the tests see real processes.
func TestMain(m *testing.M) {
	if os.Getenv(reexec) != "" {
		os.Exit(run(context.Background(), os.Args[1:], environment{Stdout: os.Stdout, Stderr: os.Stderr}))
	}

	os.Exit(m.Run())
}

// process is a running worker.
type process struct {
	cmd    *exec.Cmd
	out    *bytes.Buffer
	parent *os.File // the end that the parent keeps
	ready  announcement
	ended  chan error
}

// launch starts a worker as the launcher does.
func launch(t *testing.T, args ...string) *process {
	t.Helper()

	parentRead, parentWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}

	readyRead, readyWrite, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}

	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}

	p := &process{out: &bytes.Buffer{}, parent: parentWrite, ended: make(chan error, 1)}
	args = append([]string{"serve", "--listen", "127.0.0.1:0", "--parent-fd", "3", "--ready-fd", "4", "--model", "digits", "--version", "1.0"}, args...)
	p.cmd = exec.Command(exe, args...)
	p.cmd.Env = append(os.Environ(), reexec+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p.out, p.out
	p.cmd.ExtraFiles = []*os.File{parentRead, readyWrite}

	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}

	_ = parentRead.Close()
	_ = readyWrite.Close()

	go func() { p.ended <- p.cmd.Wait() }()

	t.Cleanup(func() {
		_ = parentWrite.Close()
		_ = p.cmd.Process.Kill()
	})

	line, err := bufio.NewReader(readyRead).ReadBytes('\n')
	if err != nil {
		_ = p.cmd.Process.Kill()
		<-p.ended
		t.Fatalf("no ready line: %v\n%s", err, p.out)
	}

	_ = readyRead.Close()

	if err := json.Unmarshal(line, &p.ready); err != nil || p.ready.PID != p.cmd.Process.Pid {
		t.Fatalf("ready line %s: %v", line, err)
	}

	return p
}

// exit waits for the end and checks its status.
func (p *process) exit(t *testing.T, want int) {
	t.Helper()

	select {
	case <-p.ended:
		if got := p.cmd.ProcessState.ExitCode(); got != want {
			t.Errorf("exit status %d, want %d\n%s", got, want, p.out)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still running")
	}
}

func (p *process) get(t *testing.T, path string) (int, string) {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.ready.HTTP+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}

	return do(t, req)
}

func do(t *testing.T, req *http.Request) (int, string) {
	t.Helper()

	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}

	return resp.StatusCode, string(b)
}

// until polls health until it contains part.
func (p *process) until(t *testing.T, part string) string {
	t.Helper()

	deadline := time.Now().Add(20 * time.Second)

	for {
		_, body := p.get(t, "/health")
		if strings.Contains(body, part) {
			return body
		}

		if time.Now().After(deadline) {
			t.Fatalf("health stays %s\n%s", body, p.out)
		}
	}
}

func needEngine(t *testing.T) {
	t.Helper()

	if _, err := ortlib.Find(); err != nil {
		t.Skipf("no ONNX Runtime: %v", err)
	}
}

func TestWorkerServesAPackageAndDrains(t *testing.T) {
	t.Parallel()
	needEngine(t)

	p := launch(t, "--package", digits, "--grpc", "127.0.0.1:0", "--ops", "127.0.0.1:0", "--drain-delay", "1s")
	p.until(t, `{"health":"true"}`)

	for _, digit := range []string{"0", "3", "7"} {
		picture, err := os.Open(filepath.Join(digits, "samples", digit+".png"))
		if err != nil {
			t.Fatal(err)
		}

		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.ready.HTTP+"/", picture)
		if err != nil {
			t.Fatal(err)
		}

		req.Header.Set("Content-Type", "image/png")

		if status, body := do(t, req); status != 200 || !strings.HasPrefix(body, `{"predicted_label":"`+digit+`","scores":[["`+digit+`","0.`) {
			t.Errorf("%s.png: %d %s", digit, status, body)
		}
	}

	conn, err := grpc.NewClient(p.ready.GRPC, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	res, err := pb.NewGRPCInferenceServiceClient(conn).ModelInfer(t.Context(), &pb.ModelInferRequest{
		ModelName: "digits", Inputs: []*pb.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "FP32", Shape: []int64{2, 1, 8, 8}}},
		RawInputContents: [][]byte{make([]byte, 2*64*4)},
	})
	if err != nil || len(res.GetRawOutputContents()[0]) != 2*10*4 {
		t.Errorf("gRPC: %v %v", res, err)
	}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.ready.Ops+"/metrics", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}

	if status, body := do(t, req); status != 200 || !strings.Contains(body, `nv_inference_request_success{model="digits",version="1.0"} 4`) {
		t.Errorf("metrics: %d\n%s", status, body)
	}

	http.DefaultClient.CloseIdleConnections()

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	p.until(t, "draining")
	p.exit(t, exitOK)
}

func TestWorkerTellsWhyAPackageCannotBeLoaded(t *testing.T) {
	t.Parallel()
	needEngine(t)

	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "model.onnx"), []byte("this is no model"), 0o600); err != nil {
		t.Fatal(err)
	}

	p := launch(t, "--package", dir, "--fail-linger", "2s")

	body := p.until(t, `"state":"failed"`)
	if !strings.Contains(body, `"reason":"`) || strings.Contains(body, `"reason":"Internal`) {
		t.Errorf("health: %s", body)
	}

	if status, body := p.get(t, "/v2/health/live"); status != 200 {
		t.Errorf("live: %d %s", status, body)
	}

	p.exit(t, exitModel)
}

func TestWorkerWithoutEngineSaysSo(t *testing.T) {
	t.Parallel()

	p := launch(t, "--package", digits, "--onnxruntime", "/nonexistent/lib.so", "--fail-linger", "2s")
	if body := p.until(t, `"state":"failed"`); !strings.Contains(body, "/nonexistent/lib.so") {
		t.Errorf("health: %s", body)
	}

	p.exit(t, exitModel)
}

func TestWorkerEndsWithItsParent(t *testing.T) {
	t.Parallel()

	p := launch(t, "--package", digits, "--onnxruntime", "/nonexistent/lib.so", "--fail-linger", "1h", "--drain-delay", "1h", "--grace", "2h")
	p.until(t, `"state":"failed"`)

	if err := p.parent.Close(); err != nil {
		t.Fatal(err)
	}

	p.exit(t, exitOrphaned)
}

// An idle connection does not hold up a worker that is told not to wait for latecomers.
func TestWorkerWithoutDrainDelayEndsAtOnce(t *testing.T) {
	t.Parallel()
	needEngine(t)

	p := launch(t, "--package", digits, "--grpc", "127.0.0.1:0", "--drain-delay", "0s", "--grace", "2h")
	p.until(t, `{"health":"true"}`) // and leaves a connection open

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	p.exit(t, exitOK)
}

func TestSecondSignalEndsTheDrain(t *testing.T) {
	t.Parallel()
	needEngine(t)

	p := launch(t, "--package", digits, "--drain-delay", "1h", "--grace", "2h")
	p.until(t, `{"health":"true"}`)

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	p.until(t, "draining")

	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}

	p.exit(t, exitOK) // nothing was cut
}

func TestUsage(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]struct {
		args []string
		want int
		text string
	}{
		"nothing":  {nil, exitUsage, "Usage:"},
		"help":     {[]string{"serve", "--help"}, exitOK, "-package"},
		"required": {[]string{"serve"}, exitUsage, "--package is required\n--model is required"},
		"unknown":  {[]string{"serve", "--pakage", "x"}, exitUsage, "pakage"},
		"argument": {[]string{"serve", "--package", "x", "--model", "m", "extra"}, exitUsage, `"extra"`},
		"grace":    {[]string{"serve", "--package", "x", "--model", "m", "--drain-delay", "2m", "--grace", "1m"}, exitUsage, "--grace"},
		"link":     {[]string{"serve", "--package", "x", "--model", "m", "--link", "0.0.0.0:1"}, exitUsage, "--link 0.0.0.0:1 can be reached from outside"},
		"any link": {[]string{"serve", "--package", "x", "--model", "m", "--link", ":1"}, exitUsage, "can be reached from outside"},
		"no link":  {[]string{"serve", "--package", "x", "--model", "m", "--link", "somewhere"}, exitUsage, "neither host:port nor"},
		"half":     {[]string{"serve", "--package", "x", "--model", "m", "--link", ":1", "--link-cert", "c"}, exitUsage, "belong together"},
		"unused":   {[]string{"serve", "--package", "x", "--model", "m", "--link-cert", "c", "--link-key", "k", "--link-client-ca", "a"}, exitUsage, "--link-cert needs"},
		"secure":   {[]string{"serve", "--package", "x", "--model", "m", "--link-http"}, exitUsage, "--link-http needs"},
		"files":    {[]string{"serve", "--package", digits, "--model", "m", "--listen", "127.0.0.1:0", "--link", "127.0.0.1:0", "--link-cert", "/nonexistent", "--link-key", "k", "--link-client-ca", "a"}, exitFailed, "certificates of the link"},
		"level":    {[]string{"serve", "--package", "x", "--model", "m", "--log-level", "loud"}, exitUsage, "log-level"},
	} {
		var out bytes.Buffer

		if got := run(t.Context(), c.args, environment{Stdout: &out, Stderr: &out}); got != c.want || !strings.Contains(out.String(), c.text) {
			t.Errorf("%s: %d %s, want %d with %s", name, got, out.String(), c.want, c.text)
		}
	}
}
