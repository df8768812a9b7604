package registry_test

import (
	"archive/tar"
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/registry"
	"github.com/sluice-gateway/sluice/internal/pkgsource"
	"github.com/sluice-gateway/sluice/spec"
)

func archiveOf(t *testing.T, content map[string]string) []byte {
	t.Helper()

	var buf bytes.Buffer

	w := tar.NewWriter(&buf)

	for name, text := range content {
		must(t, w.WriteHeader(&tar.Header{Name: name, Size: int64(len(text)), Mode: 0o644, Typeflag: tar.TypeReg}))

		_, err := w.Write([]byte(text))
		must(t, err)
	}

	must(t, w.Close())

	return buf.Bytes()
}

func fetching(t *testing.T, cache int64) (cfg registry.Config, dir string) {
	t.Helper()

	dir = t.TempDir()
	f, err := pkgsource.New(pkgsource.Config{Dir: dir, AllowPrivate: true, Backoff: time.Millisecond, Retries: 1})
	must(t, err)

	return registry.Config{Fetch: f, CacheBytes: cache}, dir
}

func TestPublishesFromElsewhere(t *testing.T) {
	t.Parallel()

	data := archiveOf(t, map[string]string{"model.onnx": "weights"})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/missing") {
			w.WriteHeader(http.StatusNotFound)

			return
		}

		_, _ = w.Write(data)
	}))
	t.Cleanup(server.Close)

	cfg, dir := fetching(t, 0)
	w := newWorld(t, cfg)
	w.run()

	first := w.model("ONNX", server.URL+"/a/p.tar", "")
	must(t, w.reg.Create(t.Context(), first))

	got := w.settled(first.ID)
	if got.Status != spec.ModelPublished || len(got.Package.Files) != 1 {
		t.Fatalf("got %+v", got)
	}

	second := w.model("ONNX", files(t, map[string]string{"model.onnx": "weights"}), "")
	must(t, w.reg.Create(t.Context(), second))

	if same := w.settled(second.ID); same.Package.Dir != got.Package.Dir {
		t.Fatalf("the same content is kept twice: %s, %s", same.Package.Dir, got.Package.Dir)
	}

	missing := w.model("ONNX", server.URL+"/missing/p.tar", "")
	must(t, w.reg.Create(t.Context(), missing))

	if bad := w.settled(missing.ID); bad.Status != spec.ModelFailed || !strings.Contains(bad.FailReason, "404") {
		t.Fatalf("got %s: %s", bad.Status, bad.FailReason)
	}

	if err := w.reg.Create(t.Context(), w.model("ONNX", "http://u:p@h/x", "")); err == nil {
		t.Fatal("accepted a password in a URL")
	}

	eventually(t, func() bool { left, err := os.ReadDir(dir); return err == nil && len(left) == 0 })
}

func TestFetchDoesNotHoldUpOthersAndEndsWithItsModel(t *testing.T) {
	t.Parallel()

	var asked, gone atomic.Int64

	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000000")
		_, _ = w.Write(make([]byte, 1000))
		_ = http.NewResponseController(w).Flush()

		asked.Add(1)
		<-r.Context().Done()
		gone.Add(1)
	}))
	t.Cleanup(server.Close)

	cfg, dir := fetching(t, 0)
	w := newWorld(t, cfg)
	w.run()

	slow := w.model("ONNX", server.URL+"/p.tar", "")
	must(t, w.reg.Create(t.Context(), slow))
	eventually(t, func() bool {
		p, ok := w.reg.Progress(slow.ID)
		return ok && p == registry.Progress{Stage: "fetching", Bytes: 1000, Total: 1_000_000}
	})

	if n, here, total := w.reg.Fetching(); n != 1 || here != 1000 || total != 1_000_000 {
		t.Errorf("%d fetches, %d of %d bytes", n, here, total)
	}

	local := w.model("ONNX", files(t, map[string]string{"model.onnx": "weights"}), "")
	must(t, w.reg.Create(t.Context(), local))

	published := w.settled(local.ID)
	if published.Status != spec.ModelPublished {
		t.Fatalf("got %+v", published)
	}

	must(t, w.reg.Delete(t.Context(), local.ID)) // needs no fetch to end
	must(t, w.reg.Delete(t.Context(), slow.ID))
	eventually(t, func() bool {
		left, err := os.ReadDir(dir)
		_, running := w.reg.Progress(slow.ID)

		return err == nil && len(left) == 0 && gone.Load() == asked.Load() && !running
	})
}

func TestKeepsPackagesOfDeletedModelsUpToALimit(t *testing.T) {
	t.Parallel()

	cfg, _ := fetching(t, 150)
	w := newWorld(t, cfg)
	w.run()

	var dirs []string

	for _, text := range []string{"a", "b", "c"} {
		m := w.model("ONNX", files(t, map[string]string{"model.onnx": strings.Repeat(text, 100)}), "")
		must(t, w.reg.Create(t.Context(), m))
		dirs = append(dirs, w.settled(m.ID).Package.Dir)

		if text != "c" {
			must(t, w.reg.Delete(t.Context(), m.ID))
		}
	}

	for i, want := range []bool{false, true, true} {
		if _, err := os.Stat(filepath.Join(dirs[i], "model.onnx")); (err == nil) != want {
			t.Errorf("package %d: %v", i, err)
		}
	}
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()

	for end := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(end) {
			t.Fatal("it never happens")
		}

		time.Sleep(5 * time.Millisecond) //nolint:forbidigo // waits for real files
	}
}
