package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/ortlib"
)

func TestGPUPartSaysInOneLineWhatIsMissing(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	touch := func(parts ...string) string {
		path := filepath.Join(append([]string{root}, parts...)...)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o750), os.WriteFile(path, nil, 0o600)); err != nil {
			t.Fatal(err)
		}

		return path
	}

	const provider = "libonnxruntime_providers_cuda.so"

	plain := touch("plain", "libonnxruntime.so")
	cuda := touch("cuda", "libonnxruntime.so.1.30.0")
	touch("cuda", provider)

	link := filepath.Join(root, "link.so")
	if err := os.Symlink(cuda, link); err != nil {
		t.Fatal(err)
	}

	fetched := filepath.Join(root, "fetched")
	touch("fetched", ortlib.GPUDir, ortlib.Name)
	touch("fetched", ortlib.GPUDir, provider)

	for name, tc := range map[string]struct {
		gpu     bool
		g       gpuOptions
		env     string
		root    string
		want    string // "" means that all is there
		library string
	}{
		"no GPU":                      {false, gpuOptions{provider: "cuda"}, cuda, root, "there is no NVIDIA GPU here", ""},
		"the CPU will do":             {false, gpuOptions{provider: "cpu"}, plain, root, "", plain},
		"a build without":             {true, gpuOptions{provider: "cuda"}, plain, root, "no " + provider + " beside it; run \"make setup-gpu\"", ""},
		"another provider":            {true, gpuOptions{provider: "tensorrt"}, cuda, root, "no libonnxruntime_providers_tensorrt.so", ""},
		"a library that is not there": {true, gpuOptions{provider: "cuda", library: root + "/none.so"}, "", root, "make setup-gpu", ""},
		"by the environment":          {true, gpuOptions{provider: "cuda"}, cuda, root, "", cuda},
		"by a link":                   {true, gpuOptions{provider: "cuda"}, link, root, "", link},
		"by the flag":                 {true, gpuOptions{provider: "cuda", library: cuda}, plain, root, "", cuda},
		"by make setup-gpu":           {true, gpuOptions{provider: "cuda"}, "", fetched, "", filepath.Join(fetched, ortlib.GPUDir, ortlib.Name)},
	} {
		m := machine{gpus: func() bool { return tc.gpu }, root: tc.root, getenv: func(k string) string {
			return map[string]string{ortlib.Env: tc.env}[k]
		}}

		why := tc.g.missing(m)
		if (why == "") != (tc.want == "") || !strings.Contains(why, tc.want) || strings.Contains(why, "\n") {
			t.Errorf("%s: %q, want %q", name, why, tc.want)
		}

		if tc.library == "" {
			continue
		}

		if got, err := tc.g.find(m); err != nil || got != tc.library {
			t.Errorf("%s: ONNX Runtime %q, %v; want %q", name, got, err, tc.library)
		}
	}
}

func TestGPUPartAloneIsSkippedWithoutAReport(t *testing.T) {
	t.Parallel()

	if gpusHere() {
		t.Skip("there is a GPU here")
	}

	out := filepath.Join(t.TempDir(), "gpu.md")

	var log bytes.Buffer
	if err := run(t.Context(), []string{"-only", "gpu", "-out", out}, &log); err != nil {
		t.Fatal(err)
	}

	if said := log.String(); strings.Count(said, "\n") != 1 || !strings.Contains(said, "gpu: skipped: there is no NVIDIA GPU here") {
		t.Errorf("it said %q", said)
	}

	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a report without a measurement: %v", err)
	}

	if b := (&bench{options: options{gpu: gpuOptions{provider: "cuda"}}}); b.wanted("gpu") || !b.wanted("edge") {
		t.Error("the part gpu is in the suite of a machine without a GPU")
	}
}

// The same code as with a GPU, on a device that every machine has.
func TestGPUPartOnTheCPU(t *testing.T) {
	t.Parallel()

	if testing.Short() {
		t.Skip("builds a worker")
	}

	b := built(t, options{duration: 600 * time.Millisecond, rounds: 2, gpu: gpuOptions{provider: "cpu", batch: 8, rows: 2, steps: 6}},
		"test", "-c", "-o", "ort.test", "../../runtime/ort")

	if err := b.onDevice(); err != nil {
		t.Fatal(err)
	}

	text := b.report.body.String()

	// Provider, device, executors, batch; rows/s of both; the ratio; rows a batch.
	line := regexp.MustCompile(`\| cpu \| 0 \| ([12]) \| 8 \| ([0-9.e+]+) \| ([0-9.e+]+) \| ([0-9.]+) \(.*\) \| ([0-9.]+) \|.* \| 0 \|`)

	found := line.FindAllStringSubmatch(text, -1)
	if len(found) != 2 {
		t.Fatalf("the report has no line for one executor and for two, without failures:\n%s", text)
	}

	for _, m := range found {
		rows, err := strconv.ParseFloat(m[5], 64)
		if err != nil || rows < 2 || rows > 8 {
			t.Errorf("executors %s: %s rows a batch: %v", m[1], m[5], err)
		}
	}
}

// built is a suite with a worker of its own, and with what else is to be built.
func built(t *testing.T, o options, more ...string) *bench {
	t.Helper()

	dir := t.TempDir()
	b := &bench{
		options: o, ctx: t.Context(), log: &strings.Builder{}, dir: dir, report: &report{},
		runtime: filepath.Join(dir, "sluice-runtime"), loop: filepath.Join(dir, "ort.test"),
	}

	for _, args := range [][]string{{"build", "-o", b.runtime, "../../cmd/sluice-runtime"}, more} {
		if len(args) == 0 {
			continue
		}

		if args[0] == "test" {
			args[3] = b.loop
		}

		if out, err := exec.CommandContext(t.Context(), "go", args...).CombinedOutput(); err != nil {
			t.Fatalf("go %s: %v\n%s", args, err, out)
		}
	}

	return b
}

// Over HTTP, with a model that really computes. How much is lost to what else runs here is for make bench to tell.
func TestOverloadIsRefusedWithAHint(t *testing.T) {
	t.Parallel()

	if testing.Short() {
		t.Skip("builds a worker")
	}

	b := built(t, options{duration: 3 * time.Second, rounds: 1})

	w, err := b.withstand(&flood{factor: 3, deadline: 400 * time.Millisecond, steps: 600})
	if err != nil {
		t.Fatal(err)
	}

	if seconds, err := strconv.Atoi(strings.TrimSuffix(w.hint, " s")); err != nil || seconds < 1 {
		t.Errorf("a refusal has the Retry-After %q", w.hint)
	}

	if w.refused == 0 || w.good[0] <= 0 {
		t.Errorf("capacity %v, %v answered in time, %d refused", w.capacity, w.good, w.refused)
	}

	for text := range w.errors {
		if !strings.HasPrefix(text, "HTTP 503") && !strings.HasPrefix(text, "HTTP 504") {
			t.Errorf("%d × %s", w.errors[text], text)
		}
	}

	t.Logf("capacity %.0f/s, in time %.0f/s, late %d, refused %d", w.capacity[0], w.good[0], w.late, w.refused)
}

func TestComparisonRefusesAnotherProvider(t *testing.T) {
	t.Parallel()

	c := contest{loops: 2, provider: "cuda", device: 1}

	config, err := c.config(32)
	if want := `{"serving":{"max_batch_size":32,"instances":2,"execution":{"provider":"cuda","device_id":1,"strict":true}}}`; err != nil || config != want {
		t.Errorf("package %s, %v\nwant %s", config, err, want)
	}
}
