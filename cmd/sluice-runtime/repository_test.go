package main

import (
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// put writes a model that multiplies or whatever else op does, at path in dir.
func put(t *testing.T, op string, path ...string) {
	t.Helper()

	dir := filepath.Join(path...)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}

	if err := onnxgen.Unary(op, onnxgen.Float, onnxgen.Batch(1)).WriteFile(filepath.Join(dir, "model.onnx")); err != nil {
		t.Fatal(err)
	}
}

// post gives the status and the body of an answer.
func (p *process) post(t *testing.T, path, body string) (int, string) {
	t.Helper()

	resp, err := http.Post("http://"+p.ready.HTTP+path, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	data, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}

	return resp.StatusCode, string(data)
}

// index is the repository index: "name/version" to state.
func (p *process) index(t *testing.T) map[string]string {
	t.Helper()

	var list []struct{ Name, Version, State string }

	_, body := p.post(t, "/v2/repository/index", "")
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		t.Fatalf("%s: %v", body, err)
	}

	got := map[string]string{}
	for _, l := range list {
		got[l.Name+"/"+l.Version] = l.State
	}

	return got
}

func (p *process) waitReady(t *testing.T) {
	t.Helper()

	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		resp, err := http.Get("http://" + p.ready.HTTP + "/v2/health/ready")
		if err == nil {
			resp.Body.Close()

			if resp.StatusCode == http.StatusOK {
				return
			}
		}

		if time.Now().After(deadline) {
			t.Fatalf("not ready: %v\n%s", err, p.out)
		}
	}
}

const minusTwo = `{"inputs":[{"name":"x","shape":[1,1],"datatype":"FP32","data":[-2]}]}`

// answers checks what a model makes of -2.
func (p *process) answers(t *testing.T, path, want string) {
	t.Helper()

	status, body := p.post(t, "/v2/models/"+path+"/infer", minusTwo)
	if status != http.StatusOK || !strings.Contains(body, `"data":[`+want+`]`) {
		t.Errorf("%s: %d %s, want %s", path, status, body, want)
	}
}

func TestSeveralModelsAndVersions(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	put(t, "Neg", dir, "a", "9")
	put(t, "Abs", dir, "a", "10")
	put(t, "Relu", dir, "b") // a package by itself
	put(t, "Neg", dir, "c", "1")
	put(t, "Abs", dir, "c", "2")
	put(t, "Relu", dir, "c", "3")
	put(t, "Neg", dir, "latest", "1")
	put(t, "Abs", dir, "latest", "2")
	put(t, "Neg", dir, ".hidden", "1")

	broken := filepath.Join(dir, "broken", "1")
	if err := os.MkdirAll(broken, 0o700); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(broken, "model.onnx"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}

	needEngine(t)

	p := launch(t, "--repository", dir, "--model", "a", "--version-policy", "c=specific:1,3", "--version-policy", "latest=latest:1")
	p.waitReady(t)

	want := map[string]string{
		"a/9": "READY", "a/10": "READY", "b/1": "READY", "c/1": "READY", "c/2": "UNAVAILABLE", "c/3": "READY",
		"latest/1": "UNAVAILABLE", "latest/2": "READY", "broken/1": "UNAVAILABLE",
	}
	if got := p.index(t); !maps.Equal(got, want) {
		t.Errorf("index %v\nwant  %v", got, want)
	}

	p.answers(t, "a", "2") // 10 is newer than 9
	p.answers(t, "a/versions/9", "2")
	p.answers(t, "b", "0")
	p.answers(t, "c/versions/1", "2")
	p.answers(t, "latest", "2")

	if status, body := p.post(t, "/v2/models/c/versions/2/infer", minusTwo); status/100 == 2 {
		t.Errorf("a version that the policy leaves out: %d %s", status, body)
	}

	// A new version takes over when it is loaded, and the old one goes.
	put(t, "Relu", dir, "latest", "3")

	if status, body := p.post(t, "/v2/repository/models/latest/load", ""); status != http.StatusOK {
		t.Fatalf("load: %d %s", status, body)
	}

	p.answers(t, "latest", "0")

	// A model that comes later, and one that is mended.
	put(t, "Neg", dir, "new", "1")
	put(t, "Neg", broken)

	for _, name := range []string{"new", "broken"} {
		if status, body := p.post(t, "/v2/repository/models/"+name+"/load", ""); status != http.StatusOK {
			t.Fatalf("load %s: %d %s", name, status, body)
		}

		p.answers(t, name, "2")
	}

	// A version whose directory is gone is unloaded; a load that fails changes nothing.
	if err := os.RemoveAll(filepath.Join(dir, "a", "10")); err != nil {
		t.Fatal(err)
	}

	if status, body := p.post(t, "/v2/repository/models/a/load", ""); status != http.StatusOK {
		t.Fatalf("load: %d %s", status, body)
	}

	if err := os.WriteFile(filepath.Join(dir, "b", "model.onnx"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}

	if status, _ := p.post(t, "/v2/repository/models/b/load", ""); status/100 == 2 {
		t.Error("rubbish is loaded")
	}

	p.answers(t, "b", "0")

	if got := p.index(t); got["a/10"] != "UNAVAILABLE" || got["a/9"] != "READY" || got["b/1"] != "READY" {
		t.Errorf("index %v", got)
	}

	for _, name := range []string{"..", "%2e%2e", ".hidden", "none", strings.Repeat("x", 300), "a%2f9"} {
		if status, body := p.post(t, "/v2/repository/models/"+name+"/load", ""); status/100 == 2 {
			t.Errorf("load %s: %d %s", name, status, body)
		}
	}
}

func TestARepositoryOfNothingThatWorks(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "m", "1"), 0o700); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "m", "1", "model.onnx"), []byte("rubbish"), 0o600); err != nil {
		t.Fatal(err)
	}

	needEngine(t)

	launch(t, "--repository", dir, "--fail-linger", "10ms").exit(t, exitModel)

	// An empty one is fine: models may come.
	launch(t, "--repository", t.TempDir()).waitReady(t)
}

func TestVersionPolicyFlag(t *testing.T) {
	t.Parallel()

	var p policies

	for _, good := range []string{"all", "latest", "latest:3", "specific:1,2.0", "m=latest:2", "n=all"} {
		if err := p.Set(good); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}

	if p.models["m"].Latest != 2 || !slices.Equal(p.all.Specific, []string{"1", "2.0"}) {
		t.Errorf("got %+v", p)
	}

	for _, bad := range []string{"", "none", "latest:0", "latest:x", "latest:-1", "specific:", "specific", "specific:1,", "=all", "all:2"} {
		if err := p.Set(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}
