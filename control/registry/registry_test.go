package registry_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/control/registry"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

type world struct {
	t    *testing.T
	st   *store.Store
	pkgs *pkgstore.Store
	dir  string
	reg  *registry.Registry
	n    int
}

func newWorld(t *testing.T, cfg registry.Config) *world {
	t.Helper()

	w := &world{t: t, st: storetest.New(t), dir: t.TempDir()}

	var err error

	w.pkgs, err = pkgstore.New(pkgstore.Config{Dir: w.dir})
	must(t, err)
	must(t, w.st.Projects.Put(t.Context(), "p", spec.Project{ID: "p"}))

	w.reg = registry.New(cfg, w.st, w.pkgs, slog.New(slog.DiscardHandler))

	return w
}

// run lets the workers work until the test ends.
func (w *world) run() {
	w.t.Helper()

	ctx, cancel := context.WithCancel(w.t.Context())
	done := make(chan error, 1)

	go func() { done <- w.reg.Run(ctx) }()

	w.t.Cleanup(func() {
		cancel()

		if err := <-done; err != nil {
			w.t.Error(err)
		}
	})
}

func (w *world) model(kind, source, config string) *spec.Model {
	w.n++

	return &spec.Model{
		ID: fmt.Sprint("m", w.n), ProjectID: "p", Name: fmt.Sprint("n", w.n), Version: "1.0.0", Type: kind,
		SourceLocation: source, ConfigJSON: config,
	}
}

// settled waits until a model is not being published any more.
func (w *world) settled(id string) spec.Model {
	w.t.Helper()

	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	defer cancel()

	var got spec.Model

	changes := w.st.Models.Watch(ctx, 0)
	for c := range changes {
		for _, it := range append(c.Items, c.Item) {
			if it.ID == id && it.Value.Status != spec.ModelPublishing {
				got = it.Value

				cancel()
			}
		}
	}

	if got.ID == "" {
		w.t.Fatalf("model %s stays publishing", id)
	}

	return got
}

func files(t *testing.T, content map[string]string) string {
	t.Helper()

	dir := t.TempDir()
	for name, text := range content {
		must(t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}

	return dir
}

func TestModelsArePublished(t *testing.T) {
	t.Parallel()

	w := newWorld(t, registry.Config{})
	w.run()

	for name, m := range map[string]*spec.Model{
		"directory":      w.model("ONNX", files(t, map[string]string{"config.json": `{"model_type":"ONNX"}`, "model.onnx": "x"}), ""),
		"file URL":       w.model("ONNX", "file://"+files(t, map[string]string{"model.onnx": "y"}), ""),
		"bare file":      w.model("ONNX", filepath.Join(files(t, map[string]string{"d.onnx": "z"}), "d.onnx"), ""),
		"initial config": w.model("Custom", files(t, map[string]string{"config.json": "broken", "run": "x"}), `{"command":["./run"]}`),
		"no source":      w.model("External", "", `{"endpoints":[{"url":"http://127.0.0.1:9"}]}`),
		"external URL":   w.model("External", "http://127.0.0.1:9000/x", ""),
	} {
		if err := w.reg.Create(t.Context(), m); err != nil {
			t.Errorf("%s: %v", name, err)

			continue
		}

		got := w.settled(m.ID)
		if got.Status != spec.ModelPublished {
			t.Errorf("%s: %s, %s", name, got.Status, got.FailReason)
		}

		switch name {
		case "directory":
			if data, err := os.ReadFile(filepath.Join(got.Package.Dir, "model.onnx")); err != nil || string(data) != "x" {
				t.Errorf("package holds %q, %v", data, err)
			}
		case "initial config":
			if data, err := os.ReadFile(filepath.Join(got.Package.Dir, "config.json")); err != nil || string(data) != m.ConfigJSON || got.Config.Command[0] != "./run" {
				t.Errorf("config.json is %q, %v", data, err)
			}
		case "external URL":
			if got.Config.Endpoints[0].URL != "http://127.0.0.1:9000/x" {
				t.Errorf("endpoints %+v", got.Config.Endpoints)
			}
		}
	}
}

func TestBadPackagesAreRefusedAtOnce(t *testing.T) {
	t.Parallel()

	hidden := t.TempDir()
	w := newWorld(t, registry.Config{Hidden: []string{hidden}})
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(hidden, link))

	onnx := func(config string) string {
		return files(t, map[string]string{"config.json": config, "model.onnx": "x"})
	}

	for name, c := range map[string]struct {
		kind, source, config, text string
	}{
		"no source":          {"ONNX", "", "", "[source_location] is required"},
		"relative":           {"ONNX", "models/x", "", "[source_location] must be an absolute path"},
		"obs":                {"ONNX", "https://bucket.obs/x", "", "[source_location]"},
		"host in URL":        {"ONNX", "file://elsewhere/x", "", "[source_location]"},
		"missing":            {"ONNX", "/no/such/place", "", "does not exist"},
		"device":             {"ONNX", "/dev/null", "", "neither a directory nor a file"},
		"no model":           {"ONNX", files(t, map[string]string{"config.json": "{}"}), "", "holds no file model.onnx"},
		"no JSON":            {"ONNX", onnx("{"), "", "config.json"},
		"unknown serving":    {"ONNX", onnx(`{"serving":{"max_bach_size":3}}`), "", "serving.max_bach_size"},
		"bad api":            {"ONNX", onnx(`{"apis":[{"url":"x","method":"post"}]}`), "", "apis[0].url"},
		"other type":         {"ONNX", onnx(`{"model_type":"Custom","command":["x"]}`), "", "[model_type]"},
		"missing labels":     {"ONNX", onnx(`{"serving":{"labels_file":"l.txt"}}`), "", "serving.labels_file"},
		"other model file":   {"ONNX", onnx(`{"serving":{"model_file":"m.onnx"}}`), "", "m.onnx"},
		"custom, no command": {"Custom", onnx("{}"), "", "command"},
		"external, no URL":   {"External", "", "{}", "endpoints"},
		"hidden":             {"ONNX", hidden, "", "data directory"},
		"link to hidden":     {"ONNX", link, "", "data directory"},
		"inside hidden":      {"ONNX", filepath.Join(hidden, "x"), "", "data directory"},
		"file as directory":  {"ONNX", filepath.Join(onnx("{}"), "model.onnx", "x"), "", "does not exist"},
	} {
		err := w.reg.Create(t.Context(), w.model(c.kind, c.source, c.config))
		if !errors.Is(err, &fault.Error{Code: fault.ModelInvalid}) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}

	if models, _, err := w.st.Models.List(t.Context()); err != nil || len(models) > 0 {
		t.Errorf("refused models were stored: %v, %v", models, err)
	}
}

func TestSourceRootsAreKept(t *testing.T) {
	t.Parallel()

	good := files(t, map[string]string{"model.onnx": "x"})
	w := newWorld(t, registry.Config{SourceRoots: []string{filepath.Dir(good)}})

	must(t, w.reg.Create(t.Context(), w.model("ONNX", good, "")))

	bad := files(t, map[string]string{"model.onnx": "x"})
	if strings.HasPrefix(bad, filepath.Dir(good)+"/") {
		bad = "/etc"
	}

	if err := w.reg.Create(t.Context(), w.model("ONNX", bad, "")); err == nil || !strings.Contains(err.Error(), "outside") {
		t.Fatalf("got %v", err)
	}
}

func TestFailedImportTellsWhy(t *testing.T) {
	t.Parallel()

	w := newWorld(t, registry.Config{})
	src := files(t, map[string]string{"model.onnx": "x"})
	must(t, os.Symlink("/etc/passwd", filepath.Join(src, "link")))

	m := w.model("ONNX", src, "")
	must(t, w.reg.Create(t.Context(), m))
	w.run()

	got := w.settled(m.ID)
	if got.Status != spec.ModelFailed || !strings.Contains(got.FailReason, "link") {
		t.Fatalf("got %s, %q", got.Status, got.FailReason)
	}
}

func TestInterruptedImportIsDoneAgain(t *testing.T) {
	t.Parallel()

	w := newWorld(t, registry.Config{})
	m := w.model("ONNX", files(t, map[string]string{"model.onnx": "x"}), "")
	must(t, w.reg.Create(t.Context(), m)) // nobody works: as if killed right after the answer
	must(t, os.MkdirAll(filepath.Join(w.dir, "tmp", "half"), 0o700))

	orphan, err := w.pkgs.Import(t.Context(), "", map[string][]byte{"a": []byte("b")})
	must(t, err)

	w.reg = registry.New(registry.Config{}, w.st, w.pkgs, slog.New(slog.DiscardHandler))
	w.run()

	if got := w.settled(m.ID); got.Status != spec.ModelPublished {
		t.Fatalf("got %s", got.Status)
	}

	for _, gone := range []string{filepath.Join(w.dir, "tmp", "half"), orphan.Dir} {
		if _, err := os.Stat(gone); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is still there: %v", gone, err)
		}
	}
}

func TestNameAndVersionAreUnique(t *testing.T) {
	t.Parallel()

	w := newWorld(t, registry.Config{})
	src := files(t, map[string]string{"model.onnx": "x"})
	first, second := w.model("ONNX", src, ""), w.model("ONNX", src, "")
	second.Name = first.Name

	must(t, w.reg.Create(t.Context(), first))

	if err := w.reg.Create(t.Context(), second); !errors.Is(err, &fault.Error{Code: fault.ModelExists}) {
		t.Fatalf("got %v", err)
	}

	must(t, w.reg.Delete(t.Context(), first.ID))
	must(t, w.reg.Create(t.Context(), second))
}

func TestDeleteSparesWhatIsUsed(t *testing.T) {
	t.Parallel()

	w := newWorld(t, registry.Config{})
	w.run()

	src := files(t, map[string]string{"model.onnx": "x"})
	a, b := w.model("ONNX", src, ""), w.model("ONNX", src, "")
	must(t, w.reg.Create(t.Context(), a))
	must(t, w.reg.Create(t.Context(), b))

	dir := w.settled(a.ID).Package.Dir
	if w.settled(b.ID).Package.Dir != dir {
		t.Fatal("equal packages are stored twice")
	}

	entries := []spec.Entry{{ModelID: a.ID}}
	inUse := &fault.Error{Code: fault.ModelInUse}

	must(t, w.st.Services.Put(t.Context(), "s", spec.Service{ID: "s", Entries: entries}))

	if err := w.reg.Delete(t.Context(), a.ID); !errors.Is(err, inUse) {
		t.Fatalf("used by a service: %v", err)
	}

	must(t, w.st.Services.Delete(t.Context(), "s"))
	must(t, w.st.ServiceStates.Put(t.Context(), "s", spec.ServiceState{ServiceID: "s", Active: entries}))

	if err := w.reg.Delete(t.Context(), a.ID); !errors.Is(err, inUse) {
		t.Fatalf("a service may go back to it: %v", err)
	}

	if it, err := w.st.Models.Get(t.Context(), a.ID); err != nil || it.Value.Deleting {
		t.Fatalf("a refused deletion leaves its mark: %v", err)
	}

	must(t, w.st.ServiceStates.Delete(t.Context(), "s"))
	must(t, w.reg.Delete(t.Context(), a.ID))

	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the package of another model is gone: %v", err)
	}

	must(t, w.reg.Delete(t.Context(), b.ID))

	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the package stays: %v", err)
	}

	if err := w.reg.Delete(t.Context(), b.ID); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("second deletion: %v", err)
	}
}

func TestCutOffDeletionIsFinished(t *testing.T) {
	t.Parallel()

	w := newWorld(t, registry.Config{})
	m := w.model("ONNX", files(t, map[string]string{"model.onnx": "x"}), "")
	must(t, w.reg.Create(t.Context(), m))

	_, err := w.st.Models.Update(t.Context(), m.ID, func(m *spec.Model) error {
		m.Deleting = true

		return nil
	})
	must(t, err)

	w.run()

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	for range w.st.Models.Watch(ctx, 0) {
		if _, err := w.st.Models.Get(ctx, m.ID); errors.Is(err, store.ErrNotFound) {
			cancel()
		}
	}

	if _, err := w.st.Models.Get(t.Context(), m.ID); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
