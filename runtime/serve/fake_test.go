package serve_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/spec"
)

// fakeModels serves models whose run is a function.
type fakeModels struct {
	models map[string]*fakeModel
	loads  atomic.Int64
	// on is a version that is on the way.
	on atomic.Pointer[repo.Status]
}

type fakeModel struct {
	meta *repo.Meta
	// run computes the outputs; the default echoes the inputs.
	run      func(ctx context.Context, req *batch.Request) ([]engine.Tensor, error)
	borrowed atomic.Int64
	batcher  *batch.Batcher // set by batched
	last     atomic.Pointer[batch.Request]
}

func (f *fakeModels) Acquire(name, version string) (serve.Model, error) {
	m := f.models[name]
	if m == nil || (version != "" && version != m.meta.Version) {
		return nil, fault.New(fault.ModelNotFound, "no such model")
	}

	m.borrowed.Add(1)

	if m.batcher != nil {
		return &batchedModel{m}, nil
	}

	return m, nil
}

func (f *fakeModels) Index() []repo.Status {
	var out []repo.Status
	for name, m := range f.models {
		out = append(out, repo.Status{Name: name, Version: m.meta.Version, State: repo.Ready})
	}

	if s := f.on.Load(); s != nil {
		out = append(out, *s)
	}

	return append(out, repo.Status{Name: "broken", Version: "1", State: repo.Failed, Reason: "bad file"})
}

func (f *fakeModels) Load(_ context.Context, name string) error {
	if f.models[name] == nil {
		return fault.New(fault.ModelNotFound, "no such model")
	}

	f.loads.Add(1)

	return nil
}

func (f *fakeModels) Unload(ctx context.Context, name, _ string) error { return f.Load(ctx, name) }

func (m *fakeModel) Meta() *repo.Meta { return m.meta }

func (m *fakeModel) Stats() batch.Stats {
	return batch.Stats{Inferences: 3, Executions: 2, Success: batch.Span{Count: 3, Total: time.Millisecond}}
}

func (m *fakeModel) Release() { m.borrowed.Add(-1) }

func (m *fakeModel) Infer(ctx context.Context, req *batch.Request) (*batch.Result, error) {
	if req.Free != nil {
		defer req.Free()
	}

	kept := *req
	m.last.Store(&kept)

	outs, err := m.run(ctx, req)
	if err != nil {
		return nil, err
	}

	return &batch.Result{Outputs: outs, Info: batch.Info{
		Rows: req.Rows, BatchRows: 8, BatchRequests: 3, Reason: batch.ReasonFull, Queue: time.Millisecond,
	}}, nil
}

// echo answers OUTPUTi with INPUTi.
func echo(meta *repo.Meta) func(context.Context, *batch.Request) ([]engine.Tensor, error) {
	return func(_ context.Context, req *batch.Request) ([]engine.Tensor, error) {
		outs := make([]engine.Tensor, 0, len(req.Inputs))

		for i, in := range req.Inputs {
			in.Name = meta.Outputs[i].Name
			in.Data = append([]byte(nil), in.Data...)
			in.Shape = append([]int64(nil), in.Shape...)
			outs = append(outs, in)
		}

		return outs, nil
	}
}

func echoModel(name string, batchable bool, infos ...engine.Info) *fakeModel {
	meta := &repo.Meta{Name: name, Version: "1", Inputs: infos, Batchable: batchable, MaxBatchSize: 8, File: "net.onnx", Executors: 2, Provider: "openvino"}
	for _, in := range infos {
		in.Name = "OUT_" + in.Name
		meta.Outputs = append(meta.Outputs, in)
	}

	return &fakeModel{meta: meta, run: echo(meta)}
}

// digits takes 4x4 grey pictures and says how bright they are: class 1 for light, 0 for dark.
func digits() *fakeModel {
	meta := &repo.Meta{
		Name: "digits", Version: "3", Batchable: true, MaxBatchSize: 2, Labels: []string{"dark", "light"},
		Inputs:  []engine.Info{{Name: "x", Type: engine.FP32, Shape: []int64{-1, 1, 4, 4}}},
		Outputs: []engine.Info{{Name: "logits", Type: engine.FP32, Shape: []int64{-1, 2}}},
		Config: spec.PackageConfig{
			APIs: []spec.API{{URL: "/classify", Method: "post"}},
			Serving: &spec.Serving{
				Preprocess:  []spec.Preprocess{{Input: "x", Image: &spec.Image{Width: 4, Height: 4, Channels: 1}}},
				Postprocess: []spec.Postprocess{{Output: "logits", Kind: "classification", Activation: "softmax"}},
				Limits:      spec.ServingLimits{MaxImagePixels: 10_000, MaxImages: 5},
			},
		},
	}

	return &fakeModel{meta: meta, run: func(_ context.Context, req *batch.Request) ([]engine.Tensor, error) {
		out := engine.Tensor{Name: "logits", Type: engine.FP32, Shape: []int64{int64(req.Rows), 2}}

		for row := range req.Rows {
			var sum float64
			for i := range 16 {
				sum += float64(math.Float32frombits(binary.LittleEndian.Uint32(req.Inputs[0].Data[(row*16+i)*4:])))
			}

			v := float32(sum - 8)
			out.Data = binary.LittleEndian.AppendUint32(out.Data, math.Float32bits(-v))
			out.Data = binary.LittleEndian.AppendUint32(out.Data, math.Float32bits(v))
		}

		return []engine.Tensor{out}, nil
	}}
}

type world struct {
	app    *serve.App
	models *fakeModels
	state  *serve.State
	server *serve.Server
	url    string
	addr   string
	stop   context.CancelFunc
	now    chan struct{}
	ended  chan error
}

func start(t *testing.T, cfg serve.ServerConfig) *world {
	t.Helper()

	pair := echoModel("pair", true,
		engine.Info{Name: "INPUT0", Type: engine.Int32, Shape: []int64{-1, 4}},
		engine.Info{Name: "INPUT1", Type: engine.Int32, Shape: []int64{-1, 4}})
	pair.meta.Provider, pair.meta.GPUs = "cuda", []int{1}

	one := echoModel("one", false, engine.Info{Name: "x", Type: engine.FP32, Shape: []int64{-1}})
	text := echoModel("text", true, engine.Info{Name: "s", Type: engine.Bytes, Shape: []int64{-1, 1}})
	half := echoModel("half", false, engine.Info{Name: "h", Type: engine.FP16, Shape: []int64{2}})
	w := &world{
		models: &fakeModels{models: map[string]*fakeModel{"pair": pair, "one": one, "text": text, "half": half, "digits": digits()}},
		state:  &serve.State{}, now: make(chan struct{}), ended: make(chan error, 1),
	}

	app, err := serve.New(serve.Config{Model: "digits", MaxBody: 1 << 20, Release: "1.2.3"}, w.models, w.state, serve.Hooks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	w.app = app

	if cfg.DrainDelay == 0 {
		cfg.DrainDelay = time.Nanosecond
	}

	w.server, err = serve.NewServer(cfg, app, w.state, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	ln, err := serve.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	w.addr = ln.Addr().(*net.TCPAddr).String()
	w.url = "http://" + w.addr

	ctx, cancel := context.WithCancel(context.Background())
	w.stop = cancel

	go func() { w.ended <- w.server.Run(ctx, ln, w.now) }()

	t.Cleanup(func() {
		cancel()
		http.DefaultClient.CloseIdleConnections()

		if err := <-w.ended; err != nil {
			t.Errorf("server: %v", err)
		}

		for name, m := range w.models.models {
			if n := m.borrowed.Load(); n != 0 {
				t.Errorf("model %s: %d handles not released", name, n)
			}
		}
	})

	return w
}

type answer struct {
	status int
	header http.Header
	body   string
	closed bool // the connection
}

// send makes one request; header holds pairs.
func (w *world) send(t *testing.T, method, path, body string, header ...string) answer {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), method, w.url+path, io.NopCloser(newReader(body)))
	if err != nil {
		t.Fatal(err)
	}

	req.ContentLength = int64(len(body))

	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}

	if req.Header.Get("Accept-Encoding") == "" {
		req.Header.Set("Accept-Encoding", "identity")
	}

	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}

	return answer{resp.StatusCode, resp.Header, string(b), resp.Close}
}
