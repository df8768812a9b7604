package gateway_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

func TestRetries(t *testing.T) {
	t.Parallel()

	const (
		onnx   = spec.EngineONNX
		custom = spec.EngineCustom
	)

	always := func(r gateway.Result) []gateway.Result { return []gateway.Result{r, r, r, r, r, r, r, r} }
	big := make([]byte, 3<<20)

	cases := []struct {
		name     string
		engine   spec.EngineKind
		results  []gateway.Result // then it answers
		policy   spec.RetryPolicy
		body     []byte
		status   int
		attempts int
	}{
		{name: "answered at once", engine: onnx, status: 200, attempts: 1},
		{name: "refused, pure", engine: onnx, results: []gateway.Result{refused}, status: 200, attempts: 2},
		{name: "refused, custom: nothing was sent", engine: custom, results: []gateway.Result{refused, refused}, status: 200, attempts: 3},
		{name: "broken, pure", engine: onnx, results: []gateway.Result{broken, broken}, status: 200, attempts: 3},
		{name: "broken, custom: it may have run", engine: custom, results: []gateway.Result{broken}, status: 503, attempts: 1},
		{name: "broken three times", engine: onnx, results: always(broken), status: 503, attempts: 3},
		{name: "five attempts", engine: onnx, policy: spec.RetryPolicy{Attempts: 5}, results: always(broken), status: 503, attempts: 5},
		{name: "retries are off", engine: onnx, policy: spec.RetryPolicy{Attempts: 1}, results: always(broken), status: 503, attempts: 1},
		{name: "draining, custom: it did not start", engine: custom, results: []gateway.Result{drained}, status: 200, attempts: 2},
		{name: "slow, custom", engine: custom, results: []gateway.Result{slow}, status: 504, attempts: 1},
		{name: "slow once, pure, per try", engine: onnx, results: []gateway.Result{slow}, status: 200, attempts: 2},
		{name: "a large body is sent once", engine: onnx, body: big, results: []gateway.Result{func() gateway.Result {
			r := broken
			r.BodyUsed = true

			return r
		}()}, status: 503, attempts: 1},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			w := newWorld(t, options{})
			s := service("svc", version("m", 100, tc.engine, "i1", "i2", "i3", "i4", "i5", "i6"))
			s.Policy.Retry = tc.policy
			w.use(s)

			w.engine.play = func(n int, _ string, c *gateway.Call, a *gateway.Attempt) gateway.Result {
				if n < len(tc.results) {
					return tc.results[n]
				}

				return answer(c, a, 200)
			}

			body := tc.body
			if body == nil {
				body = []byte("payload")
			}

			out := w.do("/v1/infers/svc", body, alice)
			if out.Status != tc.status || len(w.engine.attempts) != tc.attempts {
				t.Fatalf("got %d %s after %v", out.Status, out.Body, w.engine.attempts)
			}

			seen := map[string]bool{}
			for i, id := range w.engine.attempts {
				if seen[id] {
					t.Errorf("instance %s was tried twice: %v", id, w.engine.attempts)
				}

				seen[id] = true

				if w.engine.bodies[i] != string(body) {
					t.Errorf("attempt %d got another body", i)
				}
			}

			if rec := w.last(); rec.Attempts != tc.attempts || rec.BytesIn != int64(len(body)) || w.retries.Load() != int64(tc.attempts-1) {
				t.Errorf("record %+v, %d retries", rec, w.retries.Load())
			}
		})
	}
}

func TestEngineErrorsPassThroughAndAreNotRepeated(t *testing.T) {
	t.Parallel()

	for _, status := range []int{400, 404, 429, 500, 502, 503} {
		w := newWorld(t, options{})
		w.use(service("svc", version("m", 100, spec.EngineONNX, "i1", "i2")))
		w.engine.play = func(_ int, _ string, c *gateway.Call, a *gateway.Attempt) gateway.Result { return answer(c, a, status) }

		out := w.do("/v1/infers/svc", nil, alice)
		if out.Status != status || string(out.Body) != "answer" || len(w.engine.attempts) != 1 || w.last().Outcome != gateway.UpstreamStatus {
			t.Errorf("%d: got %d %s after %v", status, out.Status, out.Body, w.engine.attempts)
		}
	}
}

func TestAnotherVersionTakesOverUnlessARuleBinds(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{gateway: gateway.Config{Patience: 50 * time.Millisecond}})
	s := service("svc", version("a", 99, spec.EngineONNX, "a1"), version("b", 1, spec.EngineONNX, "b1"))
	s.Policy.Traffic.Rules = []spec.Rule{{Name: "gray", ModelID: "id-a", Match: spec.Match{Query: &spec.NameValue{Name: "v", Value: "a"}}}}
	w.use(s)
	w.engine.play = func(_ int, id string, c *gateway.Call, a *gateway.Attempt) gateway.Result {
		if id == "a1" {
			return refused
		}

		return answer(c, a, 200)
	}

	for range 20 {
		if out := w.do("/v1/infers/svc", nil, alice); out.Status != 200 || out.Header("X-Sluice-Model") != "b/1" {
			t.Fatalf("got %d %v", out.Status, out.Headers)
		}
	}

	out := w.do("/v1/infers/svc?v=a", nil, alice)
	if out.Status != 503 || w.last().Model != "a/1" || w.last().Rule != "gray" {
		t.Errorf("got %d %s, record %+v", out.Status, out.Body, w.last())
	}
}

func TestRequestsWaitForAServiceThatComesBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, options{})
		up := func(ids ...string) { w.use(service("svc", version("m", 100, spec.EngineONNX, ids...))) }

		up("i1")
		w.do("/v1/infers/svc", nil, alice)
		up()

		go func() {
			<-time.After(1200 * time.Millisecond)
			up("i2")
		}()

		start := time.Now()
		if out := w.do("/v1/infers/svc", nil, alice); out.Status != 200 || out.Header("X-Sluice-Instance") != "i2" {
			t.Errorf("got %d %s", out.Status, out.Body)
		}

		if d := time.Since(start); d != 1200*time.Millisecond {
			t.Errorf("waited %v", d)
		}

		up()

		start = time.Now()
		if out := w.do("/v1/infers/svc", nil, alice); out.Status != 503 || code(out) != "ModelArts.4503" || time.Since(start) != 3*time.Second {
			t.Errorf("got %d %s after %v", out.Status, out.Body, time.Since(start))
		}
		// Gone for long: only a moment, for what control may have called running just now.
		<-time.After(10 * time.Second)

		start = time.Now()
		if out := w.do("/v1/infers/svc", nil, alice); out.Status != 503 || time.Since(start) != 250*time.Millisecond {
			t.Errorf("got %d after %v", out.Status, time.Since(start))
		}
		// Stopped while somebody waits.
		up("i3")
		w.do("/v1/infers/svc", nil, alice)
		up()

		go func() {
			<-time.After(time.Second)

			s := service("svc", version("m", 100, spec.EngineONNX))
			s.Running = false
			w.use(s)
		}()

		if out := w.do("/v1/infers/svc", nil, alice); out.Status != 400 || code(out) != "ModelArts.4203" {
			t.Errorf("got %d %s", out.Status, out.Body)
		}
	})
}

func TestTheOnlyWorkerDiesAndIsReplaced(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, options{})
		w.use(service("svc", version("m", 100, spec.EngineONNX, "old")))

		n := 0
		w.engine.play = func(_ int, id string, c *gateway.Call, a *gateway.Attempt) gateway.Result {
			if n++; id == "new" {
				return answer(c, a, 200)
			}

			if n == 1 {
				return broken
			}

			return refused
		}

		go func() {
			<-time.After(900 * time.Millisecond)
			w.use(service("svc", version("m", 100, spec.EngineONNX, "new")))
		}()

		if out := w.do("/v1/infers/svc", []byte("x"), alice); out.Status != 200 {
			t.Errorf("got %d %s after %v", out.Status, out.Body, w.engine.attempts)
		}

		if n > 15 {
			t.Errorf("%d attempts within a second", n)
		}
	})
}

func TestTheTotalDeadlineHolds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, options{})
		s := service("svc", version("m", 100, spec.EngineONNX, "i1", "i2", "i3", "i4"))
		s.Policy.Limits.TimeoutSeconds = 5
		s.Policy.Retry = spec.RetryPolicy{PerTryTimeoutSeconds: 2, Attempts: 8}
		w.use(s)

		var tries []time.Duration

		w.engine.play = func(_ int, _ string, _ *gateway.Call, a *gateway.Attempt) gateway.Result {
			tries = append(tries, time.Until(a.Deadline))
			<-time.After(time.Until(a.Deadline))

			return slow
		}

		start := time.Now()

		out := w.do("/v1/infers/svc", nil, alice)
		if out.Status != 504 || time.Since(start) != 5*time.Second {
			t.Errorf("got %d after %v", out.Status, time.Since(start))
		}

		if fmt.Sprint(tries) != "[2s 2s 1s]" {
			t.Errorf("tries of %v", tries)
		}

		if rec := w.last(); rec.Outcome != gateway.UpstreamTimeout {
			t.Errorf("record %+v", rec)
		}
	})
}

// Whatever attempts do, each request gets one answer and is settled once.
func TestExactlyOneAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, options{plan: plan.Config{Pool: pool.Config{MaxInFlight: 20, MaxQueue: 50}}})
		s := service("svc", version("a", 70, spec.EngineONNX, "a1", "a2", "a3"), version("b", 30, spec.EngineCustom, "b1", "b2"))
		s.Policy.Limits.TimeoutSeconds = 2
		w.use(s)

		w.engine.play = func(n int, _ string, c *gateway.Call, a *gateway.Attempt) gateway.Result {
			h := pool.Mix(uint64(n))
			<-time.After(time.Duration(h%40) * time.Millisecond)

			switch h >> 32 % 10 {
			case 0, 1:
				return refused
			case 2, 3:
				return broken
			case 4:
				return drained
			case 5:
				return slow
			case 6:
				return answer(c, a, 500)
			default:
				return answer(c, a, 200)
			}
		}

		const requests = 2000

		var wg sync.WaitGroup
		for i := range requests {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()

				if i%17 == 0 {
					time.AfterFunc(time.Duration(i%50)*time.Millisecond, cancel)
				}

				<-time.After(time.Duration(i) * time.Millisecond)
				w.doIn(ctx, "/v1/infers/svc", []byte("x"), alice)
			})
		}

		wg.Wait()

		if len(w.records) != requests || w.gateway.Active() != 0 {
			t.Fatalf("%d requests settled, %d active", len(w.records), w.gateway.Active())
		}

		for i := range w.records {
			if r := &w.records[i]; r.Outcome == gateway.OutcomeUnknown || r.Status == 0 {
				t.Fatalf("record %+v", r)
			}
		}
	})
}

func TestRetryBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, options{})
		w.use(service("svc", version("m", 100, spec.EngineONNX, "i1", "i2", "i3", "i4")))

		var retrying, active, worst, over atomic.Int64

		w.engine.play = func(_ int, _ string, c *gateway.Call, a *gateway.Attempt) gateway.Result {
			if c.Record.Attempts == 1 {
				<-time.After(time.Millisecond)

				return broken
			}

			n := retrying.Add(1)
			defer retrying.Add(-1)

			worst.Store(max(worst.Load(), n))

			if n > max(3, active.Load()/5) {
				over.Add(1)
			}

			<-time.After(10 * time.Millisecond)

			return answer(c, a, 200)
		}

		const requests = 100

		var wg sync.WaitGroup

		active.Store(requests)

		for range requests {
			wg.Go(func() {
				if out := w.do("/v1/infers/svc", []byte("x"), alice); out.Status != 200 {
					t.Errorf("got %d %s", out.Status, out.Body)
				}
			})
		}

		wg.Wait()

		if worst.Load() > requests/5 || worst.Load() < 10 || over.Load() > 0 {
			t.Errorf("%d retries at a time among %d requests", worst.Load(), requests)
		}
	})
}
