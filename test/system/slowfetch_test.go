package system_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// dripping serves a file up to a byte and then waits until it may go on. It can resume.
type dripping struct {
	data []byte

	mu     sync.Mutex
	upTo   int
	more   chan struct{} // closed when upTo rises
	ranges []string
	sent   int
}

func (d *dripping) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	from := 0
	asked := r.Header.Get("Range")
	w.Header().Set("Etag", `"1"`)

	if n, err := fmt.Sscanf(asked, "bytes=%d-", &from); n == 1 && err == nil {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(d.data)-1, len(d.data)))
	}

	w.Header().Set("Content-Length", fmt.Sprint(len(d.data)-from))

	if from > 0 {
		w.WriteHeader(http.StatusPartialContent)
	}

	d.mu.Lock()
	d.ranges = append(d.ranges, asked)
	d.mu.Unlock()

	for at := from; at < len(d.data); {
		d.mu.Lock()
		to, more := d.upTo, d.more
		d.mu.Unlock()

		if at >= to {
			select {
			case <-more:
				continue
			case <-r.Context().Done():
				return
			}
		}

		n, err := w.Write(d.data[at:to])
		at += n

		d.mu.Lock()
		d.sent += n
		d.mu.Unlock()

		if err != nil || http.NewResponseController(w).Flush() != nil {
			return
		}
	}
}

func (d *dripping) release(upTo int) {
	d.mu.Lock()
	defer d.mu.Unlock()

	d.upTo = upTo
	close(d.more)
	d.more = make(chan struct{})
}

// TestKilledFetchShowsItsProgressAndGoesOn publishes from a slow server, looks at what operators see meanwhile, kills everything in
// the middle, twice, and starts again: nothing that is not complete is taken for a package, and no byte that was safe is fetched twice.
func TestKilledFetchShowsItsProgressAndGoesOn(t *testing.T) {
	t.Parallel()

	const safe = 64 << 20 // what comes is made durable in steps of this

	ballast := make([]byte, 2*safe+2<<20)
	if _, err := rand.NewChaCha8([32]byte{7}).Read(ballast); err != nil {
		t.Fatal(err)
	}

	d := &dripping{data: packed(t, digitsDir(t), map[string][]byte{"ballast.bin": ballast}), more: make(chan struct{})}
	server := httptest.NewServer(d)
	t.Cleanup(server.Close)

	s := start(t, "", "models:\n  allow_private: true\n")
	s.login()

	began := time.Now()
	trees := filepath.Join(s.data, "packages", "sha256")
	before := entries(t, trees)

	a := s.call("POST", s.api("/models"), map[string]any{
		"model_name": "slow", "model_version": "1.0.0", "model_type": "ONNX", "source_location": server.URL + "/p.tar",
	})
	id, _ := a.json(t)["model_id"].(string)

	for i, upTo := range []int{1 << 20, safe + 1<<20, 2*safe + 1<<20} {
		d.release(upTo)
		s.waitFetched(id, float64(upTo), float64(len(d.data)))

		t.Logf("%d bytes after %v", upTo, time.Since(began))

		if i == 0 {
			s.looksSlow(t, id)

			continue
		}

		s.kill()
		<-s.exited

		if now := entries(t, trees); len(now) != len(before) {
			t.Fatalf("half a package looks complete: %v, had %v", now, before)
		}

		s = start(t, s.data, "models:\n  allow_private: true\n")
		s.login()
		t.Logf("up again after %v", time.Since(began))
	}

	d.release(len(d.data))

	var status string

	s.eventually(60*time.Second, "published model", func() bool {
		m := s.call("GET", s.api("/models/"+id), nil).json(t)
		status, _ = m["model_status"].(string)

		if _, ok := m["fetch_progress"]; ok && status != "publishing" {
			t.Errorf("a model that is %s has progress: %v", status, m["fetch_progress"])
		}

		return status == "published" || status == "failed"
	})

	if status != "published" {
		t.Fatalf("model is %s: %s", status, s.call("GET", s.api("/models/"+id), nil).Body)
	}

	t.Logf("published after %v", time.Since(began))

	d.mu.Lock()
	ranges, sent := d.ranges, d.sent
	d.mu.Unlock()

	// 64 MiB were durable when it was killed for the first time, and 128 MiB the second time. The second request is that of looksSlow.
	if got := strings.Join(ranges, ","); !regexp.MustCompile(`^,,bytes=6\d{7}-,bytes=13\d{7}-$`).MatchString(got) || sent > len(d.data)+8<<20 {
		t.Errorf("asked for %q, %d bytes were sent of %d", got, sent, len(d.data))
	}

	service := s.deploy("slow", id, 1, nil)
	s.waitStatus(service, "running", 30*time.Second)

	if label, err := s.predictDigit(s.Edge, service, 7); err != nil || label != "7" {
		t.Errorf("%q, %v", label, err)
	}
}

func entries(t *testing.T, dir string) []os.DirEntry {
	t.Helper()

	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}

	return list
}

func (s *sluice) waitFetched(id string, want, total float64) {
	s.t.Helper()

	var p map[string]any

	s.eventually(30*time.Second, fmt.Sprintf("fetch at %.0f of %.0f", want, total), func() bool {
		p, _ = s.call("GET", s.api("/models/"+id), nil).json(s.t)["fetch_progress"].(map[string]any)

		return p["stage"] == "fetching" && p["bytes"] == want && p["total"] == total
	})
}

// looksSlow looks at a fetch that stands still the ways that operators do.
func (s *sluice) looksSlow(t *testing.T, id string) {
	t.Helper()

	if list := s.cli(nil, "model", "list"); !strings.Contains(list, "publishing, fetching 1.0 MB of 13") {
		t.Errorf("sluice model list tells no progress:\n%s", list)
	}

	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}

	// A client that waits for a model that is still on its way.
	cmd := exec.Command(filepath.Join(bin, "sluice"), "model", "create", "slow", s.source(t, id), "--version", "1.0.1", "--wait", "2s", "--data", s.data)

	out, err := cmd.CombinedOutput()
	if lines := strings.Count(string(out), "\n"); err == nil || lines > 4 || !regexp.MustCompile(`publishing, fetching 1\.0 MB of 13\d MB \(1%\) \d`).Match(out) {
		t.Errorf("sluice model create: %v, %d lines:\n%s", err, lines, out)
	}

	body := map[string]any{
		"service_name": "early", "infer_type": "real-time",
		"config": []any{map[string]any{"model_id": id, "weight": "100", "specification": "local.cpu", "instance_count": 1}},
	}
	if a := s.call("POST", s.api("/services"), body); a.Status < 400 || !bytes.Contains(a.Body, []byte("still being published: fetching, 1048576 of 13")) {
		t.Errorf("a service of a model that is on its way: %d %s", a.Status, a.Body)
	}

	a, err := s.try("GET", s.Ops+"/metrics", nil)
	if err != nil || !bytes.Contains(a.Body, []byte("\nsluice_package_fetches 2\n")) {
		t.Errorf("metrics: %v\n%s", err, regexp.MustCompile(`(?m)^sluice_package.*$`).FindAll(a.Body, -1))
	}

	// The second one is not wanted any more.
	for _, m := range s.cliJSON(nil, "model", "list")["models"].([]any) {
		if m := m.(map[string]any); m["model_version"] == "1.0.1" {
			s.cli(nil, "model", "delete", m["model_id"].(string))
		}
	}
}

// source is where a model comes from.
func (s *sluice) source(t *testing.T, id string) string {
	t.Helper()

	location, _ := s.call("GET", s.api("/models/"+id), nil).json(t)["source_location"].(string)

	return location
}
