package system_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestFlaskSample deploys the application of the platform's manual as it is.
func TestFlaskSample(t *testing.T) {
	t.Parallel()

	pythonWith(t, "flask")

	dir := t.TempDir()

	for _, name := range []string{"app.py", "config.json"} {
		link(t, filepath.Join(repoRoot(t), "docs/examples/engines/flask", name), filepath.Join(dir, name))
	}

	s := start(t, "", "")
	s.login()

	id := s.deploy("flask", s.publish("flask", "Custom", dir), 1, map[string]any{})
	s.waitStatus(id, "running", 60*time.Second)

	url := s.Edge + "/v1/infers/" + id

	for _, tc := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "", `{"a":1}`, 200, `{"received":{"a":1}}`},
		{"POST", "/", `{"a":1}`, 200, `{"received":{"a":1}}`},
		{"POST", "/greet", `{"name":"you"}`, 200, `{"message":"Hello you"}`},
		{"GET", "/goodbye", "", 200, `{"message":"Goodbye"}`},
		{"GET", "/greet", "", 405, `Sluice.1006`},
		{"POST", "/goodbye", "{}", 405, `Sluice.1006`},
		{"GET", "/health", "", 404, `ModelArts.4204`},
		{"POST", "/undeclared", "{}", 404, `ModelArts.4204`},
		{"POST", "/greet/", "{}", 404, `ModelArts.4204`},
	} {
		a := s.call(tc.method, url+tc.path, tc.body, "Content-Type", "application/json")
		body := strings.TrimSpace(string(a.Body))

		if a.Status != tc.status || !strings.Contains(body, tc.want) {
			t.Errorf("%s %q: %d %s, want %d %s", tc.method, tc.path, a.Status, body, tc.status, tc.want)
		}

		if tc.status == 405 && a.Header.Get("Allow") == "" {
			t.Errorf("%s %q: 405 without Allow", tc.method, tc.path)
		}
	}
}

type about struct {
	Args   []string
	Dir    string
	Env    map[string]string
	User   string
	PID    int
	TLS    bool
	CPUs   int
	Header http.Header
	Host   string
	URI    string
}

func (s *sluice) about(url string, header ...string) about {
	s.t.Helper()

	a := s.call("GET", url+"/about", nil, header...)
	if a.Status != 200 {
		s.t.Fatalf("about: %d %s", a.Status, a.Body)
	}

	var out about
	if err := json.Unmarshal(a.Body, &out); err != nil {
		s.t.Fatal(err)
	}

	return out
}

// TestCustomEngineStartsAsDeclared looks at a process from within.
func TestCustomEngineStartsAsDeclared(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	dir := engineDir(t, "test/system/engine", engineConfig(map[string]any{
		"command": []string{"../engine", "--port=$PORT", "$HOME", "a b"}, "working_dir": "sub",
		"envs":   map[string]string{"FROM_PACKAGE": "1", "BOTH": "package"},
		"health": map[string]any{"check_method": "EXEC", "command": "test -n \"$PORT\" && test -e ../engine", "period_seconds": "1"},
	}))
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "sub", "data"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}

	id := s.deploy("declared", s.publish("declared", "Custom", dir), 1, map[string]any{})
	s.waitStatus(id, "running", 30*time.Second)

	config := []any{map[string]any{
		"model_id": s.call("GET", s.api("/services/"+id), nil).json(t)["config"].([]any)[0].(map[string]any)["model_id"],
		"weight":   100, "specification": "local.cpu", "instance_count": 1, "envs": map[string]string{"FROM_SERVICE": "2", "BOTH": "service"},
	}}
	if a := s.call("PUT", s.api("/services/"+id), map[string]any{"config": config}); a.Status != 200 {
		t.Fatalf("update: %d %s", a.Status, a.Body)
	}

	url := s.Edge + "/v1/infers/" + id

	var got about

	s.eventually(30*time.Second, "the updated instance", func() bool {
		got = s.about(url)

		return got.Env["FROM_SERVICE"] == "2"
	})

	if len(got.Args) != 3 || got.Args[0] != "--port="+got.Env["PORT"] || got.Args[1] != "$HOME" || got.Args[2] != "a b" {
		t.Errorf("arguments %q", got.Args)
	}

	if filepath.Base(got.Dir) != "sub" || got.Env["FROM_PACKAGE"] != "1" || got.Env["BOTH"] != "service" {
		t.Errorf("dir %s, env %v", got.Dir, got.Env)
	}

	for k := range got.Env {
		if strings.Contains(k, "SECRET") || strings.HasPrefix(k, "SLUICE_RUNTIME") {
			t.Errorf("the environment has %s", k)
		}
	}

	for name := range got.Header {
		if name == "X-Auth-Token" || name == "Authorization" {
			t.Errorf("the engine was given %s", name)
		}
	}
}

// TestShapesPassUntouched sends what clients of Triton and TF Serving send.
func TestShapesPassUntouched(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	url, _ := s.custom("shapes", engineDir(t, "docs/examples/engines/shapes", nil), 1, nil)

	binary := append([]byte(`{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","parameters":{"binary_data_size":4}}]}`), 0, 0, 128, 63)

	for _, tc := range []struct {
		path, contentType string
		body              []byte
	}{
		{"/v2/models/ensemble/infer", "application/octet-stream", binary},
		{"/v2/models/ensemble/versions/1/infer?x=a%2Fb", "application/json", []byte(`{"inputs":[]}`)},
		{"/v1/models/m:predict", "application/json", []byte(`{"instances":[1,2,3]}`)},
		{"/v1/models/m/versions/7:predict", "application/json", []byte("{ \"instances\" : [ ] }\n")},
	} {
		a := s.call("POST", url+tc.path, tc.body, "Content-Type", tc.contentType, "Inference-Header-Content-Length", "93")

		var seen struct {
			Method, URI string
			ContentType string `json:"content_type"`
			Body        []byte
		}
		if err := json.Unmarshal(a.Body, &seen); err != nil || a.Status != 200 {
			t.Fatalf("%s: %d %s", tc.path, a.Status, a.Body)
		}

		if seen.Method != http.MethodPost || seen.URI != tc.path || seen.ContentType != tc.contentType || !bytes.Equal(seen.Body, tc.body) ||
			a.Header.Get("Inference-Header-Content-Length") != "93" {
			t.Errorf("%s: %+v", tc.path, seen)
		}
	}

	if a := s.call("GET", url+"/elsewhere", nil); a.Status != 404 || !bytes.Contains(a.Body, []byte("unknown path")) {
		t.Errorf("the engine's own 404: %d %s", a.Status, a.Body)
	}
}

// TestCustomEngineRestarts kills it, makes it sick and starves it.
func TestCustomEngineRestarts(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	url, id := s.engine("restarts", 1, nil, nil)

	another := func(what string, before int) int {
		t.Helper()

		pid := 0

		s.eventually(20*time.Second, "another instance after it "+what, func() bool {
			a, err := s.try("GET", url+"/about", nil)
			if err != nil || a.Status != 200 {
				return false
			}

			pid = int(a.json(t)["pid"].(float64))

			return pid != before
		})

		return pid
	}

	pid := s.about(url).PID
	if a, err := s.try("POST", url+"/die", nil); err == nil && a.Status < 500 {
		t.Errorf("the engine died, and the answer was %d %s", a.Status, a.Body)
	}

	pid = another("died", pid)
	s.call("POST", url+"/sick", nil)
	pid = another("became sick", pid)

	events := string(s.call("GET", s.api("/services/"+id+"/events"), nil).Body)
	for _, want := range []string{"exit status 7", "/health answers 503"} {
		if !strings.Contains(events, want) {
			t.Errorf("no event tells of %q: %s", want, events)
		}
	}

	_ = pid
}

// TestCustomEngineIsConfined runs an engine as another user and lets it take more memory than it may.
func TestCustomEngineIsConfined(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	config := map[string]any{}
	if os.Getuid() == 0 {
		config["user"] = "nobody"
		// It runs as the engine's user, within the package, which others may not see from above.
		config["health"] = map[string]any{"check_method": "EXEC", "command": `test "$(id -un)" = nobody && test -e config.json && test -n "$PORT"`}
	}

	dir := engineDir(t, "test/system/engine", engineConfig(config))
	model := s.publish("confined", "Custom", dir)

	id := s.deploy("confined", model, 1, map[string]any{"config": []any{map[string]any{
		"model_id": model, "weight": 100, "instance_count": 1, "specification": "custom",
		"custom_spec": map[string]any{"cpu": 1, "memory": 100},
	}}})
	s.waitStatus(id, "running", 30*time.Second)

	url := s.Edge + "/v1/infers/" + id
	if got := s.about(url); config["user"] != nil && got.User != "nobody" {
		t.Errorf("it runs as %q", got.User)
	}

	if got := s.about(url); runtime.NumCPU() > 1 && got.CPUs != 1 {
		t.Errorf("it may use %d processors", got.CPUs)
	}

	s.try("POST", url+"/eat?mb=200", nil)

	s.eventually(20*time.Second, "an event that tells of the memory", func() bool {
		return strings.Contains(string(s.call("GET", s.api("/services/"+id+"/events"), nil).Body), "out of memory")
	})

	// One that takes far more at once gets nothing.
	s.eventually(20*time.Second, "another instance", func() bool {
		a, err := s.try("GET", url+"/about", nil)

		return err == nil && a.Status == 200
	})
	s.try("POST", url+"/eat?mb=3000", nil)
	s.eventually(30*time.Second, "an instance after that", func() bool {
		a, err := s.try("GET", url+"/about", nil)

		return err == nil && a.Status == 200
	})
}

// TestCustomEngineOverHTTPS speaks TLS to the engine, unverified and verified.
func TestCustomEngineOverHTTPS(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	cert, key := selfSigned(t, t.TempDir(), "127.0.0.1")

	for i, tc := range []struct {
		name   string
		config map[string]any
		ok     bool
	}{
		{"unverified", map[string]any{}, true},
		{"verified", map[string]any{"tls_verify": true, "tls_ca_cert": "ca.pem"}, true},
		{"verified without a CA", map[string]any{"tls_verify": true}, false},
	} {
		tc.config["protocol"] = "https"
		tc.config["envs"] = map[string]string{"ENGINE_CERT": "cert.pem", "ENGINE_KEY": "key.pem"}

		dir := engineDir(t, "test/system/engine", engineConfig(tc.config))
		link(t, cert, filepath.Join(dir, "cert.pem"))
		link(t, cert, filepath.Join(dir, "ca.pem"))
		link(t, key, filepath.Join(dir, "key.pem"))

		name := fmt.Sprintf("https-%d", i)
		id := s.deploy(name, s.publish(name, "Custom", dir), 1, nil)
		s.waitStatus(id, "running", 30*time.Second)

		a := s.call("GET", s.Edge+"/v1/infers/"+id+"/about", nil)
		if ok := a.Status == 200; ok != tc.ok {
			t.Errorf("%s: %d %s", tc.name, a.Status, a.Body)
		} else if ok && a.json(t)["tls"] != true {
			t.Errorf("%s: no TLS", tc.name)
		}
	}
}
