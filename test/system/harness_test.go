package system_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// repoRoot is the module root, seen from this package.
func repoRoot(tb testing.TB) string {
	tb.Helper()

	root, err := filepath.Abs("../..")
	if err != nil {
		tb.Fatal(err)
	}

	return root
}

var binaries = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "sluice-bin-")
	if err != nil {
		return "", err
	}

	for name, cgo := range map[string]string{"sluice": "0", "sluice-runtime": "1"} {
		cmd := exec.Command("go", "build", "-o", filepath.Join(dir, name), "./cmd/"+name)
		cmd.Dir = "../.."
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)

		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build %s: %w\n%s", name, err, out)
		}
	}

	return dir, nil
})

func TestMain(m *testing.M) {
	code := m.Run()

	if dir, err := binaries(); err == nil {
		os.RemoveAll(dir)
	}

	os.Exit(code)
}

// sluice is one running `sluice serve`.
type sluice struct {
	t    testing.TB
	cmd  *exec.Cmd
	data string
	root string // where the process sees the root directory, if not here
	log  *syncBuffer
	// From DATA/endpoints.json and DATA/bootstrap.json.
	Edge, EdgeTLS, Control, Ops string
	Boot                        bootstrap
	token                       string
	exited                      chan struct{}
}

type bootstrap struct {
	Domain      string `json:"domain"`
	ProjectID   string `json:"project_id"`
	ProjectName string `json:"project_name"`
	User        string `json:"user"`
	Password    string `json:"password"`
	AccessKey   string `json:"access_key"`
	SecretKey   string `json:"secret_key"`
}

type syncBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.buf.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()

	return b.buf.String()
}

// tail is the end of the log, for failure messages.
func (b *syncBuffer) tail() string {
	s := b.String()
	if len(s) > 6000 {
		s = "…" + s[len(s)-6000:]
	}

	return s
}

const minimalConfig = "log: {level: debug}\n"

// start runs the binary on data (a new directory if empty) and waits for "sluice ready".
func start(tb testing.TB, data, config string, args ...string) *sluice {
	tb.Helper()

	return startAs(tb, "serve", data, config, args...)
}

// startAs is start for one of the roles serve, control and gateway.
func startAs(tb testing.TB, role, data, config string, args ...string) *sluice {
	tb.Helper()

	return startIn(tb, nil, role, data, config, args...)
}

// keepLog leaves what the process has said in the directory CHAOS_LOGS, if its test has failed.
func (s *sluice) keepLog() {
	dir := os.Getenv("CHAOS_LOGS")
	if dir == "" || !s.t.Failed() {
		return
	}

	path := filepath.Join(dir, fmt.Sprintf("%s-%d.log", filepath.Base(s.data), s.cmd.Process.Pid))
	if err := os.WriteFile(path, []byte(s.log.String()), 0o600); err != nil {
		s.t.Logf("keep a log: %v", err)
	}
}

// startIn is startAs below a command that runs what follows it, in a mount namespace for example.
func startIn(tb testing.TB, prefix []string, role, data, config string, args ...string) *sluice {
	tb.Helper()

	bin, err := binaries()
	if err != nil {
		tb.Fatal(err)
	}

	if data == "" {
		data = filepath.Join(tb.TempDir(), "data")
	}

	if config == "" {
		config = minimalConfig
	}

	file := filepath.Join(tb.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		tb.Fatal(err)
	}

	all := append(append([]string{}, prefix...), filepath.Join(bin, "sluice"),
		role, "--config", file, "--data", data,
		"--edge-http", "127.0.0.1:0", "--edge-https", "127.0.0.1:0", "--control", "127.0.0.1:0", "--ops", "127.0.0.1:0",
	)
	all = append(all, args...)

	s := &sluice{t: tb, data: data, log: &syncBuffer{}, exited: make(chan struct{})}
	s.cmd = exec.Command(all[0], all[1:]...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Env = append(os.Environ(), "SLUICE_RUNTIME="+filepath.Join(bin, "sluice-runtime"))
	s.cmd.Stderr = s.log

	out, err := s.cmd.StdoutPipe()
	if err != nil {
		tb.Fatal(err)
	}

	if err := s.cmd.Start(); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(s.kill)
	tb.Cleanup(s.keepLog)

	if prefix != nil {
		s.root = fmt.Sprintf("/proc/%d/root", s.cmd.Process.Pid)
	}

	ready := make(chan struct{})

	go func() {
		defer close(s.exited)

		sc := bufio.NewScanner(out)
		for once := false; sc.Scan(); {
			fmt.Fprintln(s.log, sc.Text())

			if sc.Text() == "sluice ready" && !once {
				once = true

				close(ready)
			}
		}

		s.cmd.Wait()
	}()

	select {
	case <-ready:
	case <-s.exited:
		tb.Fatalf("sluice ended before it was ready: %v\n%s", s.cmd.ProcessState, s.log.tail())
	case <-time.After(60 * time.Second):
		tb.Fatalf("sluice is not ready after 60 s\n%s", s.log.tail())
	}

	s.readFiles(role)

	return s
}

func (s *sluice) readFiles(role string) {
	s.t.Helper()

	var e struct{ EdgeHTTP, EdgeHTTPS, Control, Ops string }

	raw := map[string]string{}
	s.readJSON("endpoints.json", &raw)
	e.EdgeHTTP, e.EdgeHTTPS, e.Control, e.Ops = raw["edge_http"], raw["edge_https"], raw["control"], raw["ops"]
	s.Edge, s.EdgeTLS, s.Control, s.Ops = e.EdgeHTTP, e.EdgeHTTPS, e.Control, e.Ops

	// Only the first control process of a state makes the first user.
	if _, err := os.Stat(filepath.Join(s.root, s.data, "bootstrap.json")); err == nil || role == "serve" {
		s.readJSON("bootstrap.json", &s.Boot)
	}
}

func (s *sluice) readJSON(name string, dst any) {
	s.t.Helper()

	data, err := os.ReadFile(filepath.Join(s.root, s.data, name))
	if err != nil {
		s.t.Fatal(err)
	}

	if err := json.Unmarshal(data, dst); err != nil {
		s.t.Fatalf("%s: %v", name, err)
	}
}

// kill ends the whole process group at once, as a power cut would, and waits.
func (s *sluice) kill() {
	syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.exited
}

// stop sends SIGTERM and returns the exit code.
func (s *sluice) stop(within time.Duration) int {
	s.t.Helper()

	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}

	select {
	case <-s.exited:
	case <-time.After(within):
		s.t.Fatalf("still running %v after SIGTERM\n%s", within, s.log.tail())
	}

	return s.cmd.ProcessState.ExitCode()
}

var client = &http.Client{
	Timeout: 60 * time.Second,
	Transport: &http.Transport{
		MaxIdleConnsPerHost: 64,
		TLSClientConfig:     &tls.Config{InsecureSkipVerify: true},
	},
}

type answer struct {
	Status int
	Header http.Header
	Body   []byte
}

func (a answer) json(tb testing.TB) map[string]any {
	tb.Helper()

	out := map[string]any{}
	if err := json.Unmarshal(a.Body, &out); err != nil {
		tb.Fatalf("not JSON (%v): %d %s", err, a.Status, a.Body)
	}

	return out
}

// call sends one request; body may be nil, []byte or anything that marshals to JSON.
func (s *sluice) call(method, url string, body any, header ...string) answer {
	s.t.Helper()

	a, err := s.try(method, url, body, header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", method, url, err, s.log.tail())
	}

	return a
}

func (s *sluice) try(method, url string, body any, header ...string) (answer, error) {
	var r io.Reader

	switch b := body.(type) {
	case nil:
	case []byte:
		r = bytes.NewReader(b)
	case string:
		r = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return answer{}, err
		}

		r = bytes.NewReader(data)
	}

	req, err := http.NewRequestWithContext(context.Background(), method, url, r)
	if err != nil {
		return answer{}, err
	}

	if s.token != "" {
		req.Header.Set("X-Auth-Token", s.token)
	}

	for i := 0; i+1 < len(header); i += 2 {
		if header[i+1] == "" {
			req.Header.Del(header[i])
		} else {
			req.Header.Set(header[i], header[i+1])
		}
	}

	resp, err := client.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()

	data, err := io.ReadAll(resp.Body)

	return answer{Status: resp.StatusCode, Header: resp.Header, Body: data}, err
}

// login gets a project token as the bootstrap admin.
func (s *sluice) login() {
	s.t.Helper()

	a := s.call("POST", s.Control+"/v3/auth/tokens", map[string]any{"auth": map[string]any{
		"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{
			"name": s.Boot.User, "password": s.Boot.Password, "domain": map[string]any{"name": s.Boot.Domain},
		}}},
		"scope": map[string]any{"project": map[string]any{"id": s.Boot.ProjectID}},
	}})
	if a.Status != http.StatusCreated || a.Header.Get("X-Subject-Token") == "" {
		s.t.Fatalf("token: %d %s", a.Status, a.Body)
	}

	s.token = a.Header.Get("X-Subject-Token")
}

func (s *sluice) api(path string) string { return s.Control + "/v1/" + s.Boot.ProjectID + path }

// model publishes a package directory and waits until it is published or failed.
func (s *sluice) model(name, version, dir string) (id, status string) {
	s.t.Helper()

	return s.modelOf(name, version, "ONNX", dir)
}

func (s *sluice) modelOf(name, version, kind, dir string) (id, status string) {
	s.t.Helper()

	a := s.call("POST", s.api("/models"), map[string]any{
		"model_name": name, "model_version": version, "model_type": kind, "source_location": dir,
	})
	if a.Status != http.StatusOK {
		s.t.Fatalf("create model: %d %s", a.Status, a.Body)
	}

	id, _ = a.json(s.t)["model_id"].(string)
	s.eventually(20*time.Second, "model "+name+" published or failed", func() bool {
		status, _ = s.call("GET", s.api("/models/"+id), nil).json(s.t)["model_status"].(string)

		return status == "published" || status == "failed"
	})

	return id, status
}

// deploy makes a service of one model.
func (s *sluice) deploy(name, modelID string, instances int, extra map[string]any) string {
	s.t.Helper()

	body := map[string]any{
		"service_name": name, "infer_type": "real-time",
		"config": []any{map[string]any{
			"model_id": modelID, "weight": "100", "specification": "local.cpu", "instance_count": instances,
		}},
	}
	maps.Copy(body, extra)

	a := s.call("POST", s.api("/services"), body)
	if a.Status != http.StatusOK {
		s.t.Fatalf("create service: %d %s", a.Status, a.Body)
	}

	id, _ := a.json(s.t)["service_id"].(string)

	return id
}

// waitStatus waits until the service has the status.
func (s *sluice) waitStatus(id, want string, within time.Duration) map[string]any {
	s.t.Helper()

	var last map[string]any

	s.eventually(within, "service "+want, func() bool {
		last = s.call("GET", s.api("/services/"+id), nil).json(s.t)

		return last["status"] == want
	})

	return last
}

// eventually polls f until it is true; a failure shows what was waited for and the log.
func (s *sluice) eventually(within time.Duration, what string, f func() bool) {
	s.t.Helper()

	deadline := time.Now().Add(within)
	tick := time.NewTicker(20 * time.Millisecond)

	defer tick.Stop()

	for range tick.C {
		if f() {
			return
		}

		if time.Now().After(deadline) {
			s.t.Fatalf("no %s within %v\n%s", what, within, s.log.tail())
		}
	}
}
