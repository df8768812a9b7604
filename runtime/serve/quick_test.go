package serve_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// batchedModel is a fake model behind a real batcher, to which requests can be submitted.
type batchedModel struct{ *fakeModel }

func (m *batchedModel) Infer(ctx context.Context, r *batch.Request) (*batch.Result, error) {
	return m.batcher.Infer(ctx, r)
}

func (m *batchedModel) Submit(r *batch.Request, to batch.Receiver, out batch.Flusher) error {
	return m.batcher.Submit(r, to, out)
}

func (m *batchedModel) Cancel(r *batch.Request, cause error) { m.batcher.Cancel(r, cause) }
func (m *batchedModel) Batcher() *batch.Batcher              { return m.batcher }

// Session of the batcher: it runs the fake.

type fakeSession struct{ *fakeModel }

func (s fakeSession) Inputs() []engine.Info  { return s.meta.Inputs }
func (s fakeSession) Outputs() []engine.Info { return s.meta.Outputs }
func (fakeSession) Provider() string         { return "cpu" }
func (fakeSession) Close() error             { return nil }

func (s fakeSession) Run(ctx context.Context, in []engine.Tensor, _ []string) ([]engine.Tensor, func(), error) {
	out, err := s.run(ctx, &batch.Request{Inputs: in})

	return out, func() {}, err
}

// batched puts a batcher in front of a fake model.
func batched(t *testing.T, m *fakeModel) {
	t.Helper()

	b, err := batch.New(batch.Config{Name: m.meta.Name, MaxBatchSize: 64}, fakeSession{m}, batch.Hooks{})
	if err != nil {
		t.Fatal(err)
	}

	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	m.batcher = b

	go func() { done <- b.Run(ctx) }()

	t.Cleanup(func() {
		stop()

		if err := <-done; err != nil {
			t.Error(err)
		}

		if n := m.borrowed.Load(); n != 0 {
			t.Errorf("%d handles were not given back", n)
		}
	})
}

func numberedBody(id, first int) string {
	return fmt.Sprintf(`{"id":"%d","inputs":[{"name":"INPUT0","shape":[1,4],"datatype":"INT32","data":[%d,2,3,4]},
	{"name":"INPUT1","shape":[1,4],"datatype":"INT32","data":[5,6,7,8]}]}`, id, first)
}

// TestSmallInferencesOverLink has many callers at once, good requests and bad ones: each gets its own answer.
func TestSmallInferencesOverLink(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	batched(t, w.models.models["pair"])

	c, _ := linked(t, w)

	var wg sync.WaitGroup

	for caller := range 32 {
		wg.Go(func() {
			var ans link.Answer

			for i := range 50 {
				value := caller*1000 + i
				body, want := numberedBody(value, value), 200

				switch i % 10 {
				case 3:
					body, want = `{"inputs":[]}`, 400
				case 6:
					body, want = strings.Repeat(" ", 5000)+body, 200 // not small
				}

				call := link.Call{Method: []byte("POST"), Path: []byte("/v2/models/pair/infer"), Body: []byte(body)}
				if err := c.Do(t.Context(), &call, &ans); err != nil {
					t.Error(err)

					return
				}

				if ans.Status != want || want == 200 && !rightPair(ans.Body, value) {
					t.Errorf("call %d of caller %d: %d %s", i, caller, ans.Status, ans.Body)

					return
				}
			}
		})
	}

	wg.Wait()
}

func rightPair(body []byte, value int) bool {
	var out struct {
		ID      string `json:"id"`
		Outputs []struct {
			Data []int `json:"data"`
		} `json:"outputs"`
	}

	return json.Unmarshal(body, &out) == nil && out.ID == strconv.Itoa(value) && len(out.Outputs) == 2 &&
		len(out.Outputs[0].Data) == 4 && out.Outputs[0].Data[0] == value && out.Outputs[1].Data[3] == 8
}

// TestSmallInferenceIsCancelled cancels one that runs and one that waits behind it.
func TestSmallInferenceIsCancelled(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	pair := w.models.models["pair"]
	batched(t, pair)

	started, release, ended := block(pair)
	c, _ := linked(t, w)

	call := func(ctx context.Context) chan error {
		result := make(chan error, 1)

		go func() {
			var ans link.Answer

			result <- c.Do(ctx, &link.Call{Method: []byte("POST"), Path: []byte("/v2/models/pair/infer"), Body: []byte(linkedBody)}, &ans)
		}()

		return result
	}

	running, cancelRunning := context.WithCancel(t.Context())
	first := call(running)
	<-started

	waiting, cancelWaiting := context.WithCancel(t.Context())
	second := call(waiting)

	for pair.batcher.Stats().PendingRows == 0 {
		pause(t)
	}

	cancelWaiting()

	if err := <-second; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that waits: %v", err)
	}

	for pair.batcher.Stats().PendingRows != 0 {
		pause(t)
	}

	cancelRunning()

	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("the one that runs: %v", err)
	}

	if err := <-ended; err == nil {
		t.Error("the model was not told")
	}

	close(release)
}

func pause(t *testing.T) {
	t.Helper()

	select {
	case <-time.After(time.Millisecond):
	case <-t.Context().Done():
		t.Fatal("over")
	}
}

// TestDrainSendsAnswersThatAreHeld: an answer that waits for its batch mates leaves before the connection ends.
func TestDrainSendsAnswersThatAreHeld(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	pair := w.models.models["pair"]
	batched(t, pair)

	started, release, _ := block(pair)
	c, drain := linked(t, w)

	const calls = 20

	results := make(chan error, calls)

	call := func() {
		var ans link.Answer

		err := c.Do(t.Context(), &link.Call{Method: []byte("POST"), Path: []byte("/v2/models/pair/infer"), Body: []byte(linkedBody)}, &ans)
		if err == nil && ans.Status != 200 {
			err = fmt.Errorf("status %d: %s", ans.Status, ans.Body)
		}

		results <- err
	}

	go call()
	<-started

	for range calls - 1 {
		go call()
	}

	for pair.batcher.Stats().PendingRows < calls-1 {
		pause(t)
	}

	drained := make(chan error, 1)
	go func() { drained <- drain() }()

	for !c.Draining() {
		pause(t)
	}

	close(release)

	for range calls {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}

	if err := <-drained; err != nil {
		t.Error(err)
	}
}
