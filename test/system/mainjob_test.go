package system_test

import (
	"bytes"
	"fmt"
	"mime/multipart"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func digitsDir(tb testing.TB) string { return filepath.Join(repoRoot(tb), "configs/models/digits") }

func sample(tb testing.TB, digit int) []byte {
	tb.Helper()

	data, err := os.ReadFile(filepath.Join(digitsDir(tb), "samples", strconv.Itoa(digit)+".png"))
	if err != nil {
		tb.Fatal(err)
	}

	return data
}

func multipartOf(tb testing.TB, field string, files ...[]byte) (body []byte, contentType string) {
	tb.Helper()

	var buf bytes.Buffer

	w := multipart.NewWriter(&buf)

	for i, f := range files {
		part, err := w.CreateFormFile(field, fmt.Sprintf("%d.png", i))
		if err != nil {
			tb.Fatal(err)
		}

		part.Write(f)
	}

	w.Close()

	return buf.Bytes(), w.FormDataContentType()
}

func (s *sluice) predictDigit(base, service string, digit int) (string, error) {
	body, ct := multipartOf(s.t, "images", sample(s.t, digit))

	a, err := s.try("POST", base+"/v1/infers/"+service, body, "Content-Type", ct)
	if err != nil {
		return "", err
	}

	if a.Status != http.StatusOK {
		return "", fmt.Errorf("status %d: %s", a.Status, a.Body)
	}

	label, _ := a.json(s.t)["predicted_label"].(string)

	return label, nil
}

// TestMainJob is the whole of the main job: publish, deploy, predict over HTTP and HTTPS, survive kills.
func TestMainJob(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	model, status := s.model("digits-copy", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s: %s", status, s.call("GET", s.api("/models/"+model), nil).Body)
	}

	service := s.deploy("my-digits", model, 2, nil)
	s.waitStatus(service, "running", 30*time.Second)

	for digit := range 10 {
		for _, base := range []string{s.Edge, s.EdgeTLS} {
			label, err := s.predictDigit(base, service, digit)
			if err != nil || label != strconv.Itoa(digit) {
				t.Errorf("digit %d over %s: %q, %v", digit, base, label, err)
			}
		}
	}

	t.Run("killed worker under load", func(t *testing.T) { s.killWorkerUnderLoad(t, service) })
	t.Run("killed tree restarts", func(t *testing.T) { restartAfterKill(t, s, service) })
}

func (s *sluice) killWorkerUnderLoad(t *testing.T, service string) {
	t.Helper()

	var (
		done          atomic.Bool
		served, wrong atomic.Int64
		first         atomic.Value
		wg            sync.WaitGroup
	)

	for i := range 8 {
		wg.Go(func() {
			for n := i; !done.Load(); n++ {
				label, err := s.predictDigit(s.Edge, service, n%10)
				if err != nil || label != strconv.Itoa(n%10) {
					wrong.Add(1)
					first.CompareAndSwap(nil, fmt.Sprintf("digit %d: %q, %v", n%10, label, err))
				}

				served.Add(1)
			}
		})
	}

	s.eventually(10*time.Second, "load", func() bool { return served.Load() > 50 })

	workers := s.workers()
	if len(workers) < 2 {
		t.Fatalf("%d workers, want 2", len(workers))
	}

	syscall.Kill(workers[0], syscall.SIGKILL)

	at := served.Load()
	s.eventually(20*time.Second, "load after the kill", func() bool { return served.Load() > at+200 })
	s.eventually(20*time.Second, "a new worker", func() bool {
		now := s.workers()

		return len(now) >= 2 && !contains(now, workers[0])
	})
	done.Store(true)
	wg.Wait()

	if wrong.Load() > 0 {
		t.Errorf("%d of %d requests failed; the first: %v", wrong.Load(), served.Load(), first.Load())
	}

	s.eventually(10*time.Second, "an event that tells of the death", func() bool {
		events := string(s.call("GET", s.api("/services/"+service+"/events"), nil).Body)

		return strings.Contains(events, "killed")
	})
}

func contains(list []int, v int) bool {
	return slices.Contains(list, v)
}

// workers lists the pids of sluice-runtime processes in the group of s.
func (s *sluice) workers() []int {
	var pids []int

	entries, err := os.ReadDir("/proc")
	if err != nil {
		s.t.Fatal(err)
	}

	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}

		cmd, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil || !bytes.Contains(cmd, []byte("sluice-runtime")) {
			continue
		}

		stat, err := os.ReadFile(filepath.Join("/proc", e.Name(), "stat"))
		if err != nil {
			continue
		}

		rest := string(stat[bytes.LastIndexByte(stat, ')')+1:])
		if f := strings.Fields(rest); len(f) > 1 && f[1] == strconv.Itoa(s.cmd.Process.Pid) && f[0] != "Z" {
			pids = append(pids, pid)
		}
	}

	return pids
}

func restartAfterKill(t *testing.T, s *sluice, service string) {
	t.Helper()

	workers := s.workers()
	// Only the parent is killed: its workers must notice and end by themselves.
	s.cmd.Process.Kill()
	<-s.exited
	s.eventually(10*time.Second, "end of the orphans", func() bool {
		for _, pid := range workers {
			if syscall.Kill(pid, 0) == nil {
				return false
			}
		}

		return true
	})

	began := time.Now()
	again := start(t, s.data, "")
	again.token = s.token // issued before the kill, still valid

	if again.Boot != s.Boot {
		t.Error("the bootstrap credentials changed")
	}

	for digit := range 10 {
		label, err := again.predictDigit(again.Edge, service, digit)
		if err != nil || label != strconv.Itoa(digit) {
			t.Errorf("after the restart, digit %d: %q, %v", digit, label, err)
		}
	}

	if d := time.Since(began); d > 5*time.Second && !raceEnabled {
		t.Errorf("serving again took %v, want at most 5 s", d)
	}

	if code := again.stop(30 * time.Second); code != 0 {
		t.Errorf("exit code %d after SIGTERM\n%s", code, again.log.tail())
	}
}

// TestBadInputIsAClearError sends what clients get wrong; each is a 4xx with its own code.
func TestBadInputIsAClearError(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	model, _ := s.model("digits", "1.0.0", digitsDir(t))
	service := s.deploy("digits", model, 1, nil)
	s.waitStatus(service, "running", 30*time.Second)

	good, goodType := multipartOf(t, "images", sample(t, 1))
	broken, brokenType := multipartOf(t, "images", []byte("\x89PNG\r\n\x1a\nnot really"))
	url := "/v1/infers/" + service

	for _, tc := range []struct {
		name, method, path string
		body               any
		header             []string
		status             int
		code, text         string
	}{
		{"no token", "POST", url, good, []string{"X-Auth-Token", "", "Content-Type", goodType}, 401, "APIG.0301", ""},
		{"wrong token", "POST", url, good, []string{"X-Auth-Token", "nonsense", "Content-Type", goodType}, 401, "APIG.0301", ""},
		{"unknown service", "POST", "/v1/infers/00000000-0000-0000-0000-000000000000", good, []string{"Content-Type", goodType}, 404, "ModelArts.3502", ""},
		{"unknown route", "GET", "/v1/nothing", nil, nil, 404, "APIG.0101", ""},
		{"broken image", "POST", url, broken, []string{"Content-Type", brokenType}, 400, "Sluice.1002", ""},
		{"empty body", "POST", url, nil, []string{"Content-Type", "application/json"}, 400, "ModelArts.4202", ""},
		{"broken JSON", "POST", url, "{", []string{"Content-Type", "application/json"}, 400, "ModelArts.4105", ""},
		{"deep JSON", "POST", url, `{"image":` + strings.Repeat("[", 100_000), []string{"Content-Type", "application/json"}, 400, "ModelArts.", ""},
		{"wrong method", "DELETE", url, nil, nil, 405, "Sluice.1006", ""},
		{"undeclared path", "POST", url + "/nothing", good, []string{"Content-Type", goodType}, 404, "ModelArts.4204", ""},
		{"V2 wrong input", "POST", url + "/v2/models/digits/infer", `{"inputs":[{"name":"bogus","shape":[1],"datatype":"FP32","data":[1]}]}`, nil, 400, "", "bogus"},
	} {
		a := s.call(tc.method, s.Edge+tc.path, tc.body, tc.header...)
		if a.Status != tc.status || !bytes.Contains(a.Body, []byte(tc.code)) || !bytes.Contains(a.Body, []byte(tc.text)) {
			t.Errorf("%s: %d %s, want %d %s %s", tc.name, a.Status, a.Body, tc.status, tc.code, tc.text)
		}

		if a.Header.Get("X-Request-Id") == "" {
			t.Errorf("%s: no request id", tc.name)
		}
	}

	if label, err := s.predictDigit(s.Edge, service, 1); err != nil || label != "1" {
		t.Errorf("after all that: %q, %v", label, err)
	}
}

// TestBrokenModelFailsAlone deploys a file that is no model beside a good service.
func TestBrokenModelFailsAlone(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	good, _ := s.model("digits", "1.0.0", digitsDir(t))
	service := s.deploy("digits", good, 1, nil)
	s.waitStatus(service, "running", 30*time.Second)

	bad, status := s.model("broken", "1.0.0", brokenPackage(t))
	if status == "published" {
		id := s.deploy("broken", bad, 1, nil)
		got := s.waitStatus(id, "failed", 30*time.Second)

		if msg, _ := got["error_msg"].(string); msg == "" {
			t.Errorf("no error_msg in %v", got)
		}

		events := string(s.call("GET", s.api("/services/"+id+"/events"), nil).Body)
		if !strings.Contains(events, "abnormal") {
			t.Errorf("no abnormal event: %s", events)
		}
	}

	if label, err := s.predictDigit(s.Edge, service, 3); err != nil || label != "3" {
		t.Errorf("the good service: %q, %v", label, err)
	}
}

// brokenPackage is a package whose model.onnx is no model.
func brokenPackage(t *testing.T) string {
	t.Helper()

	dir := t.TempDir()
	for name, text := range map[string]string{
		"model.onnx": "this is not a model", "config.json": `{"model_type":"ONNX","model_algorithm":"broken"}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return dir
}

// TestDataDirectoryIsNoModelSource tries to publish the server's own files.
func TestDataDirectoryIsNoModelSource(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	for _, dir := range []string{s.data, filepath.Join(s.data, "tls"), filepath.Dir(s.data)} {
		a := s.call("POST", s.api("/models"), map[string]any{
			"model_name": "thief", "model_version": "1.0.0", "model_type": "ONNX", "source_location": dir,
		})
		if a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "source_location") {
			t.Errorf("%s: %d %s", dir, a.Status, a.Body)
		}
	}

	if !strings.Contains(s.log.String(), `"operation":"CreateModel"`) {
		t.Error("the refused operation is not in the audit log")
	}
}
