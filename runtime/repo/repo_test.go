package repo_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/spec"
)

// A source may be a model file by itself, with nothing beside it.
func TestASourceMayBeAFile(t *testing.T) {
	t.Parallel()

	r := start(t, repo.Config{}, fake(enginetest.Echo(1)), repo.Hooks{})
	add(t, r, "m", "1", filepath.Join(pkg(t, ""), "model.onnx"))

	h, err := r.Acquire("m", "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()

	res, err := h.Infer(t.Context(), request(7))
	if err != nil {
		t.Fatal(err)
	}

	res.Release()
}

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pkg writes a package; config "" means a bare model.
func pkg(t *testing.T, config string, files ...string) string {
	t.Helper()

	dir := t.TempDir()
	write := func(name, data string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	write("model.onnx", "a model")

	if config != "" {
		write("config.json", config)
	}

	for i := 0; i+1 < len(files); i += 2 {
		write(files[i], files[i+1])
	}

	return dir
}

// fake opens every model as m.
func fake(m enginetest.Model) *enginetest.Engine {
	return &enginetest.Engine{Open: func(context.Context, engine.LoadSpec) (enginetest.Model, error) { return m, nil }}
}

// start runs a repository for the length of the test and checks that it closes everything.
func start(t *testing.T, cfg repo.Config, e *enginetest.Engine, hooks repo.Hooks) *repo.Repo {
	t.Helper()

	r, err := repo.New(cfg, e, hooks, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- r.Run(ctx) }()

	t.Cleanup(func() {
		cancel()

		if err := <-done; err != nil {
			t.Error(err)
		}

		for i, s := range e.Sessions() {
			if !s.Closed() || s.Unreleased() != 0 {
				t.Errorf("session %d: closed %v, %d runs not released", i, s.Closed(), s.Unreleased())
			}
		}
	})

	return r
}

func add(t *testing.T, r *repo.Repo, name, version, dir string) {
	t.Helper()

	if err := r.Add(t.Context(), repo.Source{Name: name, Version: version, Dir: dir}); err != nil {
		t.Fatal(err)
	}
}

func request(v float32) *batch.Request {
	data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(v))

	return &batch.Request{Rows: 1, Inputs: []engine.Tensor{{Name: "x", Type: engine.FP32, Shape: []int64{1, 1}, Data: data}}}
}

// ask runs one request of model m and gives the answer's first value.
func ask(r *repo.Repo, version string, v float32) (float32, string, error) {
	h, err := r.Acquire("m", version)
	if err != nil {
		return 0, "", err
	}
	defer h.Release()

	res, err := h.Infer(context.Background(), request(v))
	if err != nil {
		return 0, "", err
	}
	defer res.Release()

	return math.Float32frombits(binary.LittleEndian.Uint32(res.Outputs[0].Data)), h.Meta().Version, nil
}

func states(r *repo.Repo) string {
	var b strings.Builder
	for _, s := range r.Index() {
		fmt.Fprintf(&b, "%s/%s %s|", s.Name, s.Version, s.State)
	}

	return b.String()
}

func TestBareModelServesWithDefaults(t *testing.T) {
	t.Parallel()

	e := fake(enginetest.Echo(1))
	r := start(t, repo.Config{}, e, repo.Hooks{})
	add(t, r, "m", "", pkg(t, ""))

	v, version, err := ask(r, "", 7)
	if err != nil || v != 7 || version != "1" {
		t.Fatalf("got %v from version %q, %v", v, version, err)
	}

	h, err := r.Acquire("m", "1")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()

	m := h.Meta()
	if !m.Batchable || m.MaxBatchSize != 64 || m.Provider != "cpu" || m.Name != "m" || len(m.Inputs) != 1 ||
		m.Config.ModelType != "ONNX" || m.Platform != "onnxruntime_onnx" || m.LoadedAt.IsZero() {
		t.Errorf("meta %+v", m)
	}

	if s := h.Stats(); s.Inferences != 1 || s.Executions != 1 {
		t.Errorf("stats %+v: warm-up must not count", s)
	}

	if runs := e.Sessions()[0].Runs(); runs[len(runs)-2] != 64 {
		t.Errorf("runs %v: not warmed up with the largest batch", runs)
	}
}

func TestAcquireTellsWhatIsMissing(t *testing.T) {
	t.Parallel()

	r := start(t, repo.Config{}, fake(enginetest.Echo(1)), repo.Hooks{})
	add(t, r, "m", "1", pkg(t, ""))

	broken := repo.Source{Name: "b", Version: "1", Dir: filepath.Join(t.TempDir(), "none")}
	if err := r.Add(t.Context(), broken); fault.From(err).Code != fault.ModelInvalid {
		t.Errorf("got %v", err)
	}

	for _, tc := range []struct {
		name, version string
		code          fault.Code
		text          string
	}{
		{"x", "", fault.ModelNotFound, `"x" does not exist`},
		{"x", "1", fault.ModelNotFound, `"x" has no version "1"`},
		{"m", "2", fault.ModelNotFound, `"m" has no version "2"`},
		{"b", "", fault.ModelNotReady, "failed: The package cannot be read."},
		{"b", "1", fault.ModelNotReady, "failed"},
	} {
		_, err := r.Acquire(tc.name, tc.version)
		if f := fault.From(err); f == nil || f.Code != tc.code || !strings.Contains(f.Message(), tc.text) {
			t.Errorf("%s/%s: %v", tc.name, tc.version, err)
		}
	}
}

func TestStatesInOrder(t *testing.T) {
	t.Parallel()

	var got []string

	hooks := repo.Hooks{State: func(s repo.Status) { got = append(got, string(s.State)) }}
	cfg := repo.Config{Fetch: func(_ context.Context, s repo.Source) (string, error) { return s.Dir, nil }}
	r := start(t, cfg, fake(enginetest.Echo(1)), hooks)
	add(t, r, "m", "1", pkg(t, ""))

	if err := r.Unload(t.Context(), "m", ""); err != nil {
		t.Fatal(err)
	}

	want := "queued fetching verifying loading warming ready draining unloaded"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got %s", s)
	}

	if _, err := r.Acquire("m", ""); fault.From(err).Code != fault.ModelNotReady {
		t.Errorf("after unload: %v", err)
	}

	if err := r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}

	if _, _, err := ask(r, "", 1); err != nil {
		t.Errorf("after loading again: %v", err)
	}
}

func TestFailedReloadLeavesTheOldOneServing(t *testing.T) {
	t.Parallel()

	var broken atomic.Bool

	e := &enginetest.Engine{Open: func(context.Context, engine.LoadSpec) (enginetest.Model, error) {
		if broken.Load() {
			return enginetest.Model{}, fault.New(fault.ModelInvalid, "it is broken")
		}

		return enginetest.Echo(1), nil
	}}
	r := start(t, repo.Config{}, e, repo.Hooks{})
	dir := pkg(t, "")
	add(t, r, "m", "1", dir)
	broken.Store(true)

	err := r.Load(t.Context(), "m")
	if fault.From(err).Code != fault.ModelInvalid {
		t.Fatalf("got %v", err)
	}

	if _, _, err := ask(r, "1", 3); err != nil {
		t.Errorf("the old one does not serve: %v", err)
	}

	if s := r.Index()[0]; s.State != repo.Ready || !strings.Contains(s.Reason, "it is broken") {
		t.Errorf("index %+v", s)
	}

	broken.Store(false)

	if err := r.Load(t.Context(), "m"); err != nil {
		t.Fatal(err)
	}

	if s := r.Index()[0]; s.Reason != "" || len(e.Sessions()) != 2 {
		t.Errorf("index %+v, %d sessions", s, len(e.Sessions()))
	}
}

func TestReloadUnderLoadFailsNothing(t *testing.T) {
	t.Parallel()

	e := fake(enginetest.Echo(1))
	r := start(t, repo.Config{}, e, repo.Hooks{})
	dir := pkg(t, "")
	add(t, r, "m", "1", dir)

	var (
		wg   sync.WaitGroup
		stop = make(chan struct{})
		n    atomic.Int64
	)

	for i := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}

				if v, _, err := ask(r, "", float32(i)); err != nil || v != float32(i) {
					t.Errorf("got %v, %v", v, err)

					return
				}

				n.Add(1)
			}
		})
	}

	for range 50 {
		before := n.Load()

		if err := r.Load(t.Context(), "m"); err != nil {
			t.Error(err)
		}

		waitFor(t, func() bool { return n.Load() > before }, func() string { return "no request is answered" })
	}

	close(stop)
	wg.Wait()

	waitFor(t, func() bool {
		open := 0

		for _, s := range e.Sessions() {
			if !s.Closed() {
				open++
			}
		}

		return open == 1
	}, func() string { return "replaced sessions stay open" })
}

func TestUnloadWaitsForHandles(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		e := fake(enginetest.Echo(1))
		r := start(t, repo.Config{}, e, repo.Hooks{})
		add(t, r, "m", "1", pkg(t, ""))

		h, err := r.Acquire("m", "")
		if err != nil {
			t.Fatal(err)
		}

		done := make(chan error, 1)

		go func() { done <- r.Unload(context.Background(), "m", "1") }()
		synctest.Wait()

		if states(r) != "m/1 draining|" || e.Sessions()[0].Closed() {
			t.Errorf("states %s, closed %v", states(r), e.Sessions()[0].Closed())
		}

		res, err := h.Infer(context.Background(), request(5))
		if err != nil {
			t.Fatalf("a borrowed version refused: %v", err)
		}

		res.Release()
		h.Release()
		h.Release()

		if err := <-done; err != nil {
			t.Error(err)
		}

		if states(r) != "m/1 unloaded|" || !e.Sessions()[0].Closed() {
			t.Errorf("states %s, closed %v", states(r), e.Sessions()[0].Closed())
		}
	})
}

func TestVersionPolicies(t *testing.T) {
	t.Parallel()

	versions := []string{"9", "10", "2"}

	for name, tc := range map[string]struct {
		policy repo.Policy
		serve  string
		newest string
	}{
		"all":      {repo.Policy{}, "2 9 10", "10"},
		"latest":   {repo.Policy{Latest: 1}, "10", "10"},
		"latest 2": {repo.Policy{Latest: 2}, "9 10", "10"},
		"specific": {repo.Policy{Specific: []string{"2", "9"}}, "2 9", "9"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r := start(t, repo.Config{Policies: map[string]repo.Policy{"m": tc.policy}}, fake(enginetest.Echo(1)), repo.Hooks{})
			dir := pkg(t, "")

			for _, v := range versions {
				add(t, r, "m", v, dir)
			}

			waitFor(t, func() bool {
				var ready []string
				for _, s := range r.Index() {
					if s.State == repo.Ready {
						ready = append(ready, s.Version)
					}
				}

				return strings.Join(ready, " ") == tc.serve
			}, func() string { return states(r) })

			if _, v, err := ask(r, "", 1); err != nil || v != tc.newest {
				t.Errorf("newest is %q, %v", v, err)
			}
		})
	}
}

// waitFor polls what happens in the background, for a bounded time.
func waitFor(t *testing.T, ok func() bool, state func() string) {
	t.Helper()

	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()

	end := time.After(10 * time.Second)

	for !ok() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatal(state())
		}
	}
}

func TestCompareVersions(t *testing.T) {
	t.Parallel()

	in := []string{"1.0.10", "2", "1.0.9", "10-x", "10", "1", "1.0", "1.0.9-rc", "9", "b", "007", "10a", "a"}
	want := "1 1.0 1.0.9-rc 1.0.9 1.0.10 2 007 9 10-x 10 10a a b"

	slices.SortFunc(in, repo.CompareVersions)

	if got := strings.Join(in, " "); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestHashesAreChecked(t *testing.T) {
	t.Parallel()

	dir := pkg(t, "", "extra.bin", "data")
	sum := func(s string) string { h := sha256.Sum256([]byte(s)); return hex.EncodeToString(h[:]) }
	files := []spec.FileDigest{{Path: "extra.bin", SHA256: sum("data")}, {Path: "model.onnx", SHA256: sum("a model")}}
	tree := pkgstore.TreeHash(files)
	r := start(t, repo.Config{}, fake(enginetest.Echo(1)), repo.Hooks{})

	good := repo.Source{Name: "m", Version: "1", Dir: dir, TreeSHA256: tree, Files: files}
	if err := r.Add(t.Context(), good); err != nil {
		t.Fatal(err)
	}

	for name, tc := range map[string]struct {
		change func(s *repo.Source)
		text   string
	}{
		"tree":    {func(s *repo.Source) { s.TreeSHA256 = sum("x") }, "hash to " + tree},
		"file":    {func(s *repo.Source) { s.Files = []spec.FileDigest{{Path: "extra.bin", SHA256: sum("y")}} }, `"extra.bin" of the package is damaged`},
		"missing": {func(s *repo.Source) { s.Files = []spec.FileDigest{{Path: "gone", SHA256: sum("y")}} }, `lacks the file "gone"`},
		"added": {func(s *repo.Source) {
			s.Dir = pkg(t, "", "extra.bin", "data", "more", "x")
		}, "hash to"},
		"link": {func(s *repo.Source) {
			s.Dir = pkg(t, "")
			if err := os.Symlink("/etc/passwd", filepath.Join(s.Dir, "extra.bin")); err != nil {
				t.Fatal(err)
			}
		}, "no plain file"},
	} {
		s := good
		s.Name = name
		tc.change(&s)

		err := r.Add(t.Context(), s)
		if f := fault.From(err); f == nil || f.Code != fault.ModelInvalid || !strings.Contains(f.Message(), tc.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBrokenPackages(t *testing.T) {
	t.Parallel()

	fixed := enginetest.Echo(1)
	fixed.Inputs[0].Shape[0] = 1

	for name, tc := range map[string]struct {
		model  enginetest.Model
		config string
		files  []string
		text   string
	}{
		"syntax":      {enginetest.Echo(1), `{`, nil, "config.json is not valid"},
		"unknown key": {enginetest.Echo(1), `{"serving":{"nope":1}}`, nil, "nope"},
		"engine":      {enginetest.Echo(1), `{"model_type":"Custom","command":["x"]}`, nil, "engine Custom"},
		"model file":  {enginetest.Echo(1), `{"serving":{"model_file":"../x.onnx"}}`, nil, "model_file"},
		"labels file": {enginetest.Echo(1), `{"serving":{"labels_file":"none.txt"}}`, nil, `labels file "none.txt"`},
		"batch":       {fixed, `{"serving":{"max_batch_size":8}}`, nil, `first dimension of input "x" is fixed to 1`},
		"shape name":  {enginetest.Echo(1), `{"serving":{"warmup":{"shapes":{"z":[1]}}}}`, nil, `"z", which is no input`},
		"shape":       {enginetest.Echo(1), `{"serving":{"warmup":{"shapes":{"x":[5]}}}}`, nil, "serving.warmup.shapes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r := start(t, repo.Config{}, fake(tc.model), repo.Hooks{})

			err := r.Add(t.Context(), repo.Source{Name: "m", Version: "1", Dir: pkg(t, tc.config, tc.files...)})
			if f := fault.From(err); f == nil || f.Code != fault.ModelInvalid || !strings.Contains(f.Message(), tc.text) {
				t.Fatalf("got %v", err)
			}

			if s := r.Index()[0]; s.State != repo.Failed || !strings.Contains(s.Reason, tc.text) {
				t.Errorf("index %+v", s)
			}
		})
	}
}

func TestPackageIsReadAsWritten(t *testing.T) {
	t.Parallel()

	var got engine.LoadSpec

	e := &enginetest.Engine{Open: func(_ context.Context, s engine.LoadSpec) (enginetest.Model, error) {
		got = s
		m := enginetest.Echo(1)
		m.Duration = func([]engine.Tensor) time.Duration { return 20 * time.Millisecond }

		return m, nil
	}}
	cache := t.TempDir()
	r := start(t, repo.Config{Cores: 4, CacheDir: cache}, e, repo.Hooks{})
	dir := pkg(t, `{"model_type":"ONNX","serving":{"model_file":"net.onnx","max_batch_size":16,"instances":2,
		"threads":{"intra_op":8,"inter_op":2},"labels_file":"labels.txt",
		"execution":{"provider":"cuda","fallback":["openvino","cpu"],"device_id":1,"arena_limit_bytes":4096,"cache_optimized_model":true},
		"batching":{"preferred_batch_sizes":[4,8],"max_queue_delay_microseconds":100}}}`,
		"net.onnx", "x", "labels.txt", "\ufeffzero\r\none\n\ntwo words\n\n")

	files := make([]spec.FileDigest, 0, 4)
	for _, name := range []string{"config.json", "labels.txt", "model.onnx", "net.onnx"} {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}

		h := sha256.Sum256(data)
		files = append(files, spec.FileDigest{Path: name, SHA256: hex.EncodeToString(h[:])})
	}

	tree := pkgstore.TreeHash(files)
	if err := r.Add(t.Context(), repo.Source{Name: "m", Version: "3", Dir: dir, TreeSHA256: tree}); err != nil {
		t.Fatal(err)
	}

	want := engine.LoadSpec{
		Path: filepath.Join(dir, "net.onnx"), Providers: []string{"cuda", "openvino", "cpu"}, DeviceID: 1,
		ArenaLimitBytes: 4096, IntraOpThreads: 2, InterOpThreads: 1,
		OptimizedModelPath: filepath.Join(cache, tree+"-net.onnx"),
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("load spec\n got %+v\nwant %+v", got, want)
	}

	h, err := r.Acquire("m", "")
	if err != nil {
		t.Fatal(err)
	}
	defer h.Release()

	if m := h.Meta(); m.MaxBatchSize != 16 || strings.Join(m.Labels, "|") != "zero|one||two words" {
		t.Errorf("meta %d %q", m.MaxBatchSize, m.Labels)
	}

	if n := e.Sessions()[0].MostAtOnce(); n != 2 {
		t.Errorf("warmed up on %d executors, want 2", n)
	}
}

// mixing adds the sum of all rows to every row.
func mixing(in []engine.Tensor) ([]engine.Tensor, error) {
	sum := float32(0)
	out := bytes.Clone(in[0].Data)

	for i := 0; i < len(out); i += 4 {
		sum += math.Float32frombits(binary.LittleEndian.Uint32(out[i:]))
	}

	for i := 0; i < len(out); i += 4 {
		v := math.Float32frombits(binary.LittleEndian.Uint32(out[i:]))
		binary.LittleEndian.PutUint32(out[i:], math.Float32bits(v+sum))
	}

	return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: slices.Clone(in[0].Shape), Data: out}}, nil
}

// folding gives one row whatever it gets.
func folding(in []engine.Tensor) ([]engine.Tensor, error) {
	return []engine.Tensor{{Name: "y", Type: engine.FP32, Shape: []int64{1, 1}, Data: bytes.Clone(in[0].Data[:4])}}, nil
}

func oneOnly(in []engine.Tensor) ([]engine.Tensor, error) {
	if in[0].Shape[0] != 1 {
		return nil, fault.New(fault.BadTensor, "cannot reshape")
	}

	return folding(in)
}

func TestBatchingIsOnlyForModelsThatKeepRowsApart(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		compute func([]engine.Tensor) ([]engine.Tensor, error)
		config  string
		size    int // 0: not batched
		fails   string
	}{
		"plain":             {nil, "", 64, ""},
		"off":               {nil, `{"serving":{"max_batch_size":1}}`, 0, ""},
		"mixes":             {mixing, "", 0, ""},
		"mixes as asked":    {mixing, `{"serving":{"max_batch_size":8}}`, 8, ""},
		"folds":             {folding, "", 0, ""},
		"folds as asked":    {folding, `{"serving":{"max_batch_size":8}}`, 0, "does not take a batch of 2"},
		"one only":          {oneOnly, "", 0, ""},
		"one only as asked": {oneOnly, `{"serving":{"max_batch_size":8}}`, 0, "cannot reshape"},
		"preferred":         {nil, `{"serving":{"batching":{"preferred_batch_sizes":[100]}}}`, 100, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			m := enginetest.Echo(1)
			m.Compute = tc.compute
			r := start(t, repo.Config{}, fake(m), repo.Hooks{})

			err := r.Add(t.Context(), repo.Source{Name: "m", Version: "1", Dir: pkg(t, tc.config)})
			if tc.fails != "" {
				if f := fault.From(err); f == nil || f.Code != fault.ModelInvalid || !strings.Contains(f.Message(), tc.fails) {
					t.Fatalf("got %v", err)
				}

				return
			}

			if err != nil {
				t.Fatal(err)
			}

			h, err := r.Acquire("m", "")
			if err != nil {
				t.Fatal(err)
			}
			defer h.Release()

			if m := h.Meta(); m.MaxBatchSize != tc.size || m.Batchable != (tc.size > 0) {
				t.Errorf("batchable %v, max %d", m.Batchable, m.MaxBatchSize)
			}
		})
	}
}

func TestWarmUpFailure(t *testing.T) {
	t.Parallel()

	never := func([]engine.Tensor) ([]engine.Tensor, error) { return nil, fault.New(fault.BadTensor, "no kernel") }

	for name, tc := range map[string]struct {
		shape  []int64
		dt     engine.DataType
		config string
		ok     bool
	}{
		"made up":     {[]int64{-1, 2}, engine.FP32, "", true},
		"sizes given": {[]int64{-1, 2}, engine.FP32, `{"serving":{"warmup":{"batch_sizes":[1]}}}`, false},
		"disabled":    {[]int64{-1, 2}, engine.FP32, `{"serving":{"warmup":{"disabled":true}}}`, true},
		"guessed":     {[]int64{-1, -1}, engine.FP32, "", true},
		"given":       {[]int64{-1, -1}, engine.FP32, `{"serving":{"warmup":{"shapes":{"x":[3]}}}}`, false},
		"integers":    {[]int64{-1, 2}, engine.Int64, "", true},
	} {
		m := enginetest.Echo(1)
		m.Inputs[0].Shape, m.Inputs[0].Type, m.Compute = tc.shape, tc.dt, never
		r := start(t, repo.Config{}, fake(m), repo.Hooks{})

		err := r.Add(t.Context(), repo.Source{Name: "m", Version: "1", Dir: pkg(t, tc.config)})
		if tc.ok != (err == nil) || err != nil && !strings.Contains(fault.From(err).Message(), "no kernel") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestParallelLoadsAreBounded(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		var now, most atomic.Int32

		e := &enginetest.Engine{Open: func(ctx context.Context, _ engine.LoadSpec) (enginetest.Model, error) {
			n := now.Add(1)
			defer now.Add(-1)

			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}

			<-time.After(time.Second)

			return enginetest.Echo(1), ctx.Err()
		}}
		r := start(t, repo.Config{ParallelLoads: 2}, e, repo.Hooks{})
		dir := pkg(t, "")

		var wg sync.WaitGroup

		for i := range 5 {
			wg.Go(func() { add(t, r, fmt.Sprintf("m%d", i), "1", dir) })
		}

		synctest.Wait()

		if s := states(r); strings.Count(s, "queued") != 3 || strings.Count(s, "loading") != 2 {
			t.Errorf("states %s", s)
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		if err := r.Add(ctx, repo.Source{Name: "late", Dir: dir}); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}

		wg.Wait()

		if most.Load() != 2 {
			t.Errorf("%d loads at once", most.Load())
		}
	})
}

func TestDrain(t *testing.T) {
	t.Parallel()

	r := start(t, repo.Config{}, fake(enginetest.Echo(1)), repo.Hooks{})
	dir := pkg(t, "")
	add(t, r, "m", "1", dir)

	if err := r.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}

	if _, err := r.Acquire("m", ""); fault.From(err).Code != fault.ShuttingDown {
		t.Errorf("got %v", err)
	}

	if err := r.Add(t.Context(), repo.Source{Name: "n", Version: "1", Dir: dir}); fault.From(err).Code != fault.ShuttingDown {
		t.Errorf("add while draining: %v", err)
	}
}

func TestBatchHooksAreMadePerVersion(t *testing.T) {
	t.Parallel()

	var got []string

	r := start(t, repo.Config{}, fake(enginetest.Echo(1)), repo.Hooks{
		Batch:  func(name, version string) batch.Hooks { got = append(got, name+"/"+version); return batch.Hooks{} },
		Loaded: func(name, version string, d time.Duration) { got = append(got, "loaded "+name+"/"+version) },
	})
	add(t, r, "m", "4", pkg(t, ""))

	if s := strings.Join(got, ", "); s != "m/4, loaded m/4" {
		t.Errorf("got %s", s)
	}
}
