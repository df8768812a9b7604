//go:build !race

package serve_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

type noHeader struct{}

func (noHeader) Get(string) []byte { return nil }

func exchange(tb testing.TB) (app *serve.App, x *serve.Exchange, body []byte) {
	tb.Helper()

	one := echoModel("one", false, engine.Info{Name: "x", Type: engine.FP32, Shape: []int64{-1}})
	outs := []engine.Tensor{{Name: "OUT_x", Type: engine.FP32, Shape: []int64{4}, Data: make([]byte, 16)}}
	one.run = func(context.Context, *batch.Request) ([]engine.Tensor, error) { return outs, nil }

	app, err := serve.New(serve.Config{}, &fakeModels{models: map[string]*fakeModel{"one": one}}, &serve.State{}, serve.Hooks{}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}

	return app, &serve.Exchange{}, []byte(`{"inputs":[{"name":"x","shape":[4],"datatype":"FP32","data":[1,2,3,4.5]}]}`)
}

func infer(app *serve.App, x *serve.Exchange, body, out []byte, now time.Time) {
	*x = serve.Exchange{
		Method: []byte("POST"), Path: []byte("/v2/models/one/infer"), Body: body, Header: noHeader{},
		Context: context.Background(), Start: now, Out: out[:0],
	}

	app.Serve(x)
}

func TestAllocsFewForAnInference(t *testing.T) {
	app, x, body := exchange(t)
	out := make([]byte, 0, 4096)
	now := time.Now()

	infer(app, x, body, out, now)

	if x.Status != 200 {
		t.Fatalf("%d %s", x.Status, x.Out)
	}

	// Two are the fake model's (its result, the copy of the request that it keeps), two the test's own (method and
	// path); what is left is the name of the model.
	if n := testing.AllocsPerRun(100, func() { infer(app, x, body, out, now) }); n > 5 {
		t.Errorf("%v allocations for an inference", n)
	}
}

func BenchmarkInfer(b *testing.B) {
	app, x, body := exchange(b)
	out := make([]byte, 0, 4096)
	now := time.Now()

	b.ReportAllocs()

	for b.Loop() {
		infer(app, x, body, out, now)
	}
}
