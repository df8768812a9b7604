package serve_test

import (
	"bytes"
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

// A request too large to keep its memory must not spoil the pool for those after it.
func TestALargeRequestLeavesThePoolSound(t *testing.T) {
	t.Parallel()

	app, x, small := exchange(t)

	large := append(bytes.Repeat([]byte{' '}, 5<<20), small...)

	for i := range 40 {
		body := small
		if i%10 == 0 {
			body = large
		}

		if infer(app, x, body, nil, time.Now()); x.Status != 200 {
			t.Fatalf("request %d: %d %.200s", i, x.Status, x.Out)
		}
	}
}
