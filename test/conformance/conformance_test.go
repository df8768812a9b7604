package conformance_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/sluice-gateway/sluice/internal/fault"
	pb "github.com/sluice-gateway/sluice/runtime/codec/inferencepb"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/runtime/serve/rpc"
)

// atLeast is how many models of the whole package must answer right.
const atLeast = 950

// sample is the distance of the models that a run without SLUICE_CONFORMANCE=all takes.
const sample = 25

// kinds of entries of skip.txt.
const (
	unloadable = "unloadable" // ONNX Runtime does not load it
	uncarried  = "uncarried"  // an input or every output is of a type that V2 cannot carry
	random     = "random"     // served in every way, the values are not compared
	differs    = "differs"    // served in every way, ONNX Runtime itself gives other values
	untried    = "untried"    // depends on what the untried has; not tried
)

type entry struct{ kind, reason string }

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

func TestModels(t *testing.T) {
	t.Parallel()

	root := cmp.Or(os.Getenv("SLUICE_ONNX_TESTDATA"), "/usr/share/libonnx-testdata/data")
	all := os.Getenv("SLUICE_CONFORMANCE") == "all"

	dirs, err := filepath.Glob(filepath.Join(root, "*", "*", "model.onnx"))
	if err != nil || len(dirs) == 0 {
		if all {
			t.Fatalf("no models in %s: install libonnx-testdata, or set SLUICE_ONNX_TESTDATA", root)
		}

		t.Skipf("no models in %s (Debian package libonnx-testdata)", root)
	}

	skips := readSkips(t)
	if all {
		checkNames(t, skips, dirs)
	}

	w := start(t)

	var (
		g     errgroup.Group
		mu    sync.Mutex
		count = map[string]int{}
	)

	g.SetLimit(2 * runtime.GOMAXPROCS(0))

	for i, path := range dirs {
		if !all && i%sample != 0 {
			continue
		}

		g.Go(func() error {
			name := modelName(path)
			verdict, detail := w.judge(t.Context(), name, filepath.Dir(path), skips[name])

			mu.Lock()
			defer mu.Unlock()

			count[verdict]++

			if verdict == "failed" {
				t.Errorf("%s: %s", name, detail)
			}

			return nil
		})
	}

	if err := g.Wait(); err != nil {
		t.Error(err)
	}

	summary := fmt.Sprintf("%d passed, %d failed, %d skipped", count["passed"], count["failed"], count["skipped"])
	t.Log(summary)

	if all {
		_, _ = fmt.Fprintln(os.Stdout, summary)

		if count["passed"] < atLeast && os.Getenv("SLUICE_ONNX_TESTDATA") == "" {
			t.Errorf("only %d models passed, want %d", count["passed"], atLeast)
		}
	}
}

// modelName is the directory's name with its group before it.
func modelName(path string) string {
	dir := filepath.Dir(path)

	return filepath.Base(filepath.Dir(dir)) + "." + strings.TrimPrefix(filepath.Base(dir), "test_")
}

func checkNames(t *testing.T, skips map[string]entry, dirs []string) {
	t.Helper()

	have := map[string]bool{}
	for _, path := range dirs {
		have[modelName(path)] = true
	}

	if os.Getenv("SLUICE_ONNX_TESTDATA") != "" {
		return // another set of models
	}

	for _, name := range slices.Sorted(maps.Keys(skips)) {
		if !have[name] {
			t.Errorf("skip.txt names %s, which is no model", name)
		}
	}
}

// readSkips reads skip.txt: on each line a kind, a model and the reason.
func readSkips(t *testing.T) map[string]entry {
	t.Helper()

	data, err := os.ReadFile("skip.txt")
	if err != nil {
		t.Fatal(err)
	}

	skips := map[string]entry{}

	for line := range strings.Lines(string(data)) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}

		f := strings.Fields(line)
		if len(f) < 3 || !slices.Contains([]string{unloadable, uncarried, random, differs, untried}, f[0]) || skips[f[1]] != (entry{}) {
			t.Fatalf("skip.txt: bad or double line %q", line)
		}

		skips[f[1]] = entry{f[0], strings.Join(f[2:], " ")}
	}

	return skips
}

// worker is a worker in this process, with its doors.
type worker struct {
	clients
	repo *repo.Repo
	eng  *ort.Engine
}

func start(t *testing.T) *worker {
	t.Helper()

	log := slog.New(slog.DiscardHandler)

	eng, err := ort.New(ort.Config{}, log)
	if err != nil {
		t.Fatalf("%v (run make setup)", err)
	}

	models, err := repo.New(repo.Config{}, eng, repo.Hooks{}, log)
	if err != nil {
		t.Fatal(err)
	}

	state := &serve.State{}
	state.SetReady()

	app, err := serve.New(serve.Config{Model: "none", Version: "1", Release: "test"}, serve.Repository{Repo: models}, state, serve.Hooks{}, log)
	if err != nil {
		t.Fatal(err)
	}

	server, err := serve.NewServer(serve.ServerConfig{DrainDelay: time.Millisecond, Grace: time.Minute}, app, state, log)
	if err != nil {
		t.Fatal(err)
	}

	web, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	wire, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	conn, err := grpc.NewClient(wire.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	below, stop := context.WithCancel(context.Background())

	var doors, under errgroup.Group

	under.Go(func() error { return models.Run(below) })
	doors.Go(func() error { return server.Run(ctx, web, nil) })
	doors.Go(func() error { return rpc.New(rpc.Config{Grace: time.Minute}, app, log).Run(ctx, wire, nil) })

	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 16}}

	t.Cleanup(func() {
		client.CloseIdleConnections()

		err := conn.Close()

		cancel()

		err = errors.Join(err, doors.Wait())

		stop()

		if err := errors.Join(err, under.Wait(), eng.Close()); err != nil {
			t.Error(err)
		}
	})

	return &worker{
		clients: clients{base: "http://" + web.Addr().String(), http: client, grpc: pb.NewGRPCInferenceServiceClient(conn)},
		repo:    models, eng: eng,
	}
}

// judge loads one model, asks it in every way and unloads it.
func (w *worker) judge(ctx context.Context, name, dir string, skip entry) (verdict, detail string) {
	if skip.kind == untried {
		return "skipped", skip.reason
	}

	err := w.repo.Add(ctx, repo.Source{Name: name, Version: "1", Dir: filepath.Join(dir, "model.onnx")})
	refused := err != nil && fault.From(err) != nil && fault.From(err).Code == fault.ModelInvalid

	switch {
	case refused && (skip.kind == unloadable || skip.kind == uncarried):
		return "skipped", skip.reason
	case err != nil:
		return "failed", fmt.Sprintf("loading: %v", err)
	case skip.kind == unloadable || skip.kind == uncarried:
		return "failed", "skip.txt says that it does not load, and it does"
	}

	defer func() {
		if err := w.repo.Unload(context.WithoutCancel(ctx), name, ""); err != nil {
			verdict, detail = "failed", fmt.Sprintf("unloading: %v", err)
		}
	}()

	if err := w.ask(ctx, name, dir, skip); err != nil {
		return "failed", err.Error()
	}

	if skip.kind != "" {
		return "skipped", skip.reason
	}

	return "passed", ""
}

// ask compares the answers of every way with what comes with the model.
func (w *worker) ask(ctx context.Context, name, dir string, skip entry) error {
	inputs, outputs, err := w.metadata(ctx, name)
	if err != nil {
		return err
	}

	in, err := readTensors(dir, "input", inputs)
	if err != nil {
		return err
	}

	want, err := readTensors(dir, "output", outputs)
	if err != nil {
		return err
	}

	for _, way := range []struct {
		name  string
		infer func(context.Context, string, []engine.Tensor) ([]engine.Tensor, error)
	}{{"REST binary", w.viaBinary}, {"gRPC", w.viaGRPC}, {"REST JSON", w.viaJSON}} {
		if way.name == "REST JSON" && (!all(in, jsonable) || !all(want, jsonable)) {
			continue // binary is the way for what JSON has no word for
		}

		got, err := way.infer(ctx, name, in)
		if err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}

		if err := same(got, want, skip.kind); err != nil {
			return fmt.Errorf("%s: %w", way.name, err)
		}
	}

	return nil
}

func all(list []engine.Tensor, ok func(*engine.Tensor) bool) bool {
	for i := range list {
		if !ok(&list[i]) {
			return false
		}
	}

	return true
}

// same compares all of an answer; of a model whose values differ for a known reason it compares the rest.
func same(got, want []engine.Tensor, kind string) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d outputs, want %d", len(got), len(want))
	}

	for i := range want {
		if got[i].Name != want[i].Name {
			return fmt.Errorf("output %d is %q, want %q", i, got[i].Name, want[i].Name)
		}

		if kind == "" {
			if why := compare(&got[i], &want[i]); why != "" {
				return fmt.Errorf("output %q: %s", got[i].Name, why)
			}

			continue
		}

		if got[i].Type != want[i].Type {
			return fmt.Errorf("output %q is %v, want %v", got[i].Name, got[i].Type, want[i].Type)
		}
	}

	return nil
}
