package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

// engine is a Forwarder whose attempts end as the test says.
type engine struct {
	mu       sync.Mutex
	attempts []string // instances, in order
	bodies   []string
	paths    []string
	play     func(n int, instance string, c *gateway.Call, a *gateway.Attempt) gateway.Result
}

func (e *engine) Forward(c *gateway.Call, a *gateway.Attempt) gateway.Result {
	id := a.Lease.Endpoint().ID

	body := a.Body
	if a.Stream != nil {
		body, _ = io.ReadAll(a.Stream)
	}

	e.mu.Lock()
	n := len(e.attempts)
	e.attempts = append(e.attempts, id)
	e.bodies = append(e.bodies, string(body))
	e.paths = append(e.paths, string(a.Path))
	e.mu.Unlock()

	return e.play(n, id, c, a)
}

func answer(c *gateway.Call, a *gateway.Attempt, status int) gateway.Result {
	a.Lease.Answered()
	c.Record.Status = status
	a.AnswerHeaders(c.Out)
	c.Out.Set(status, []byte("answer"))

	o := pool.OK
	if status >= 500 {
		o = pool.EngineError
	}

	return gateway.Result{Answered: true, Sent: true, Status: status, BytesOut: 6, Outcome: o}
}

var (
	refused = gateway.Result{Outcome: pool.Unreachable, Err: fault.New(fault.BackendUnreachable, "")}
	broken  = gateway.Result{Outcome: pool.Broken, Sent: true, Err: fault.New(fault.BackendUnreachable, "")}
	slow    = gateway.Result{Outcome: pool.TimedOut, Sent: true, Err: fault.New(fault.BackendTimeout, "")}
	drained = gateway.Result{Outcome: pool.Neutral, Sent: true, NotStarted: true, Err: fault.New(fault.NoInstance, "")}
)

type backend struct{}

func (backend) Close() error { return nil }

func openNothing(*spec.Version, spec.Instance) (pool.Backend, error) { return backend{}, nil }

// world is a corridor between fakes.
type world struct {
	t       testing.TB
	gateway *gateway.Gateway
	plans   *gatewaytest.Plans
	engine  *engine
	guard   *gatewaytest.Guard
	records []gateway.Record
	retries atomic.Int64
	mu      sync.Mutex
	routes  []spec.Route
	rev     int64
}

type options struct {
	gateway gateway.Config
	plan    plan.Config
	limit   limit.Config
	forward gateway.Forwarder
}

func newWorld(t testing.TB, o options) *world {
	t.Helper()

	w := &world{t: t, engine: &engine{}, guard: &gatewaytest.Guard{
		Tokens: map[string]*auth.Principal{
			"alice": gatewaytest.Principal("alice", "p1"), "mallory": gatewaytest.Principal("mallory", "p2"),
			"nobody": gatewaytest.Principal("nobody", "p1"),
		},
		Denied: map[string]bool{"user:nobody": true},
	}}
	w.engine.play = func(_ int, _ string, c *gateway.Call, a *gateway.Attempt) gateway.Result { return answer(c, a, 200) }

	limits, err := limit.New(o.limit)
	if err != nil {
		t.Fatal(err)
	}

	if w.plans, err = gatewaytest.NewPlans(o.plan, openNothing, w.guard, limits); err != nil {
		t.Fatal(err)
	}

	if o.forward == nil {
		o.forward = w.engine
	}

	w.gateway, err = gateway.New(o.gateway, gateway.Parts{
		Plans: w.plans, Limits: limits, Forward: o.forward, Log: slog.New(slog.DiscardHandler),
		Hooks: gateway.Hooks{
			Settled: func(c *gateway.Call) {
				w.mu.Lock()
				defer w.mu.Unlock()

				w.records = append(w.records, c.Record)
			},
			Retried: func(*gateway.Call, error) { w.retries.Add(1) },
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	return w
}

// service is a running service of project p1; each version has the given instances.
func service(id string, versions ...spec.Version) spec.Route {
	return spec.Route{ServiceID: id, ProjectID: "p1", Running: true, Versions: versions}
}

func version(name string, weight int, engine spec.EngineKind, ready ...string) spec.Version {
	v := spec.Version{ModelID: "id-" + name, ModelName: name, ModelVersion: "1", Weight: weight, Engine: engine}
	for _, id := range ready {
		v.Instances = append(v.Instances, spec.Instance{ID: id, Address: id, State: spec.InstanceReady})
	}

	return v
}

func (w *world) use(routes ...spec.Route) {
	w.t.Helper()

	w.rev++
	for i := range routes {
		routes[i].Revision = w.rev
	}

	w.routes = routes
	if err := w.plans.Use(&spec.Snapshot{Revision: w.rev, Services: routes}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) do(target string, body []byte, header ...[2]string) *gatewaytest.Out {
	w.t.Helper()

	return w.doIn(w.t.Context(), target, body, header...)
}

func (w *world) doIn(ctx context.Context, target string, body []byte, header ...[2]string) *gatewaytest.Out {
	w.t.Helper()

	c, out := gatewaytest.NewCall(ctx, "POST", target, body, header...)
	w.gateway.Do(c)

	if out.Answers != 1 {
		w.t.Errorf("%d answers", out.Answers)
	}

	return out
}

func (w *world) last() gateway.Record {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.records[len(w.records)-1]
}

var alice = [2]string{"X-Auth-Token", "alice"}

func code(out *gatewaytest.Out) string {
	_, rest, _ := strings.Cut(string(out.Body), `"error_code":"`)
	c, _, _ := strings.Cut(rest, `"`)

	return c
}

func TestOrderOfChecks(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{})
	stopped := service("stopped", version("m", 100, spec.EngineONNX, "i1"))
	stopped.Running = false
	limited := service("limited", version("m", 100, spec.EngineONNX, "i2"))
	limited.Policy.Limits = spec.Limits{RequestsPerSecond: 0.001, Burst: 1, BodyBytes: 10}
	public := service("public", version("m", 100, spec.EngineONNX, "i3"))
	public.Policy.AuthTypes = []spec.AuthType{spec.AuthNone}
	public.Policy.Limits.BodyBytes = 10
	w.use(service("svc", version("m", 100, spec.EngineONNX, "i4")), stopped, limited, public,
		service("empty", version("m", 100, spec.EngineONNX)))

	long := []byte("more than ten bytes")

	// The second request to "limited" is over its rate.
	if out := w.do("/v1/infers/limited", nil, alice); out.Status != 200 {
		t.Fatalf("got %d", out.Status)
	}

	cases := []struct {
		name, target, token string
		body                []byte
		status              int
		code                string
		outcome             gateway.Outcome
	}{
		{"served", "/v1/infers/svc", "alice", nil, 200, "", gateway.Served},
		{"no route", "/v1/other", "alice", nil, 404, "APIG.0101", gateway.RejectedNotFound},
		{"no route, stranger", "/v1/other", "", nil, 404, "APIG.0101", gateway.RejectedNotFound},
		{"bad path", "/v1/infers/svc/../x", "alice", nil, 400, "APIG.0201", gateway.RejectedBad},
		{"stranger", "/v1/infers/svc", "", nil, 401, "APIG.0301", gateway.RejectedAuth},
		{"stranger, no service", "/v1/infers/nothing", "", nil, 401, "APIG.0301", gateway.RejectedAuth},
		{"stranger, stopped", "/v1/infers/stopped", "", long, 401, "APIG.0301", gateway.RejectedAuth},
		{"stranger, limited", "/v1/infers/limited", "", long, 401, "APIG.0301", gateway.RejectedAuth},
		{"bad token", "/v1/infers/svc", "forged", nil, 401, "APIG.0301", gateway.RejectedAuth},
		{"no rights", "/v1/infers/svc", "nobody", nil, 403, "APIG.0302", gateway.RejectedForbidden},
		{"no rights, no service", "/v1/infers/nothing", "nobody", nil, 403, "APIG.0302", gateway.RejectedForbidden},
		{"no rights, stopped", "/v1/infers/stopped", "nobody", nil, 403, "APIG.0302", gateway.RejectedForbidden},
		{"another project", "/v1/infers/svc", "mallory", nil, 403, "ModelArts.0210", gateway.RejectedForbidden},
		{"another project, limited", "/v1/infers/limited", "mallory", long, 403, "ModelArts.0210", gateway.RejectedForbidden},
		{"no service", "/v1/infers/nothing", "alice", nil, 404, "ModelArts.3502", gateway.RejectedNotFound},
		{"no service, deep", "/v1/infers/nothing/x", "mallory", nil, 404, "ModelArts.3502", gateway.RejectedNotFound},
		{"stopped", "/v1/infers/stopped", "alice", long, 400, "ModelArts.4203", gateway.RejectedNotRunning},
		{"over rate and too long", "/v1/infers/limited", "alice", long, 429, "APIG.0308", gateway.RejectedRate},
		{"too long", "/v1/infers/public", "", long, 413, "ModelArts.4104", gateway.RejectedBad},
		{"public", "/v1/infers/public", "", nil, 200, "", gateway.Served},
		{"no instance", "/v1/infers/empty", "alice", nil, 503, "ModelArts.4503", gateway.RejectedNoInstance},
		{"old form", "/v1/infers/cluster-7/svc/x", "alice", nil, 200, "", gateway.Served},
	}
	for _, tc := range cases {
		var header [][2]string
		if tc.token != "" {
			header = append(header, [2]string{"X-Auth-Token", tc.token})
		}

		out := w.do(tc.target, tc.body, header...)
		if out.Status != tc.status || code(out) != tc.code {
			t.Errorf("%s: got %d %s, want %d %s", tc.name, out.Status, out.Body, tc.status, tc.code)
		}

		rec := w.last()
		if rec.Outcome != tc.outcome || rec.Status != tc.status || rec.Total <= 0 {
			t.Errorf("%s: record %+v, want %v", tc.name, rec, tc.outcome)
		}

		if (tc.status == 429 || tc.status == 503) && out.Header("Retry-After") == "" {
			t.Errorf("%s: no Retry-After", tc.name)
		}
	}
}

func TestStrangersLearnNothingAboutServices(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{})
	w.use(service("svc", version("m", 100, spec.EngineONNX, "i")))

	known, unknown := w.do("/v1/infers/svc", nil), w.do("/v1/infers/nothing", nil)
	if known.Status != unknown.Status || string(known.Body) != string(unknown.Body) || fmt.Sprint(known.Headers) != fmt.Sprint(unknown.Headers) {
		t.Errorf("%d %s %v\n%d %s %v", known.Status, known.Body, known.Headers, unknown.Status, unknown.Body, unknown.Headers)
	}
}

func TestBeforeTheFirstPlan(t *testing.T) {
	t.Parallel()

	out := newWorld(t, options{}).do("/v1/infers/svc", nil, alice)
	if out.Status != 503 || code(out) != "Sluice.4004" || out.Header("Retry-After") == "" {
		t.Errorf("got %d %s", out.Status, out.Body)
	}
}

func TestRateLimitHeaders(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{})
	s := service("svc", version("m", 100, spec.EngineONNX, "i"))
	s.Policy.Limits = spec.Limits{RequestsPerSecond: 0.5, Burst: 2}
	w.use(s)

	for i, want := range []string{"1", "0", "0"} {
		out := w.do("/v1/infers/svc", nil, alice)
		if out.Header("X-RateLimit-Limit") != "2" || out.Header("X-RateLimit-Remaining") != want || out.Header("X-RateLimit-Reset") == "" {
			t.Errorf("request %d: %v", i, out.Headers)
		}

		if (out.Status == 429) != (i == 2) || i == 2 && out.Header("Retry-After") != "2" {
			t.Errorf("request %d: %d, %v", i, out.Status, out.Headers)
		}
	}
}

func TestFloodsOfBadCredentialsAreCutBeforeWork(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{limit: limit.Config{Source: limit.Rate{PerSecond: 0.001, Burst: 5}}})
	w.use(service("svc", version("m", 100, spec.EngineONNX, "i")))

	for i := range 8 {
		want := 401
		if i >= 5 {
			want = 429
		}

		if out := w.do("/v1/infers/svc", nil, [2]string{"X-Auth-Token", "guess"}); out.Status != want {
			t.Errorf("request %d: got %d, want %d", i, out.Status, want)
		}
	}
}

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

func TestAnswerTellsModelInstanceAndRule(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{})
	s := service("svc", version("a", 100, spec.EngineONNX, "a1"), version("b", 0, spec.EngineONNX, "b1"))
	s.Policy.Traffic.Rules = []spec.Rule{{Name: "gray", ModelID: "id-b", Match: spec.Match{Header: &spec.NameValue{Name: "X-Gray"}}}}
	w.use(s)

	out := w.do("/v1/infers/svc", nil, alice)
	if out.Header("X-Sluice-Model") != "a/1" || out.Header("X-Sluice-Instance") != "a1" || out.Header("X-Sluice-Rule") != "" {
		t.Errorf("got %v", out.Headers)
	}

	out = w.do("/v1/infers/svc", nil, alice, [2]string{"x-gray", "1"})
	if out.Header("X-Sluice-Model") != "b/1" || out.Header("X-Sluice-Instance") != "b1" || out.Header("X-Sluice-Rule") != "gray" {
		t.Errorf("got %v", out.Headers)
	}

	if x, err := w.gateway.Explain("svc", &router.Request{Header: gatewaytest.Header{{"X-Gray", "1"}}}); err != nil || x.Rule != "gray" || x.Version != "b/1" {
		t.Errorf("explained as %+v, %v", x, err)
	}

	if _, err := w.gateway.Explain("nothing", &router.Request{}); fault.From(err).Code != fault.ServiceNotFound {
		t.Errorf("got %v", err)
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
			time.Sleep(1200 * time.Millisecond)
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
		time.Sleep(10 * time.Second)

		start = time.Now()
		if out := w.do("/v1/infers/svc", nil, alice); out.Status != 503 || time.Since(start) != 250*time.Millisecond {
			t.Errorf("got %d after %v", out.Status, time.Since(start))
		}
		// Stopped while somebody waits.
		up("i3")
		w.do("/v1/infers/svc", nil, alice)
		up()

		go func() {
			time.Sleep(time.Second)

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
			time.Sleep(900 * time.Millisecond)
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
			time.Sleep(time.Until(a.Deadline))

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

func TestAClientThatLeftIsNotRetriedFor(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{})
	w.use(service("svc", version("m", 100, spec.EngineONNX, "i1", "i2")))

	ctx, cancel := context.WithCancel(t.Context())
	w.engine.play = func(int, string, *gateway.Call, *gateway.Attempt) gateway.Result {
		cancel()

		return broken
	}

	w.doIn(ctx, "/v1/infers/svc", nil, alice)

	if rec := w.last(); len(w.engine.attempts) != 1 || rec.Outcome != gateway.ClientGone {
		t.Errorf("%v attempts, record %+v", w.engine.attempts, rec)
	}
}

func TestBodyFaultsOfTheClient(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{})
	s := service("svc", version("m", 100, spec.EngineONNX, "i1"))
	s.Policy.Limits.BodyBytes = 100
	w.use(s)

	for name, tc := range map[string]struct {
		body *gatewaytest.Body
		want int
	}{
		"too slow":                {&gatewaytest.Body{Data: []byte("x"), Err: fault.New(fault.RequestTimeout, "")}, 408},
		"longer than declared":    {&gatewaytest.Body{Data: make([]byte, 101), Declared: 5}, 413},
		"declared too long":       {&gatewaytest.Body{Declared: 101}, 413},
		"chunked and too long":    {&gatewaytest.Body{Data: make([]byte, 101), Declared: -1}, 413},
		"chunked and short":       {&gatewaytest.Body{Data: make([]byte, 99), Declared: -1}, 200},
		"as long as it may be":    {&gatewaytest.Body{Data: make([]byte, 100)}, 200},
		"vanished while sending":  {&gatewaytest.Body{Data: []byte("x"), Declared: 9, Err: fault.New(fault.ClientGone, "")}, 499},
		"an error without a name": {&gatewaytest.Body{Data: []byte("x"), Err: errors.New("secret")}, 500},
	} {
		c, out := gatewaytest.NewCall(t.Context(), "POST", "/v1/infers/svc", nil, alice)
		c.Body = tc.body
		before := len(w.engine.attempts)
		w.gateway.Do(c)

		if out.Status != tc.want || out.Answers != 1 || strings.Contains(string(out.Body), "secret") {
			t.Errorf("%s: got %d %s", name, out.Status, out.Body)
		}

		if sent := len(w.engine.attempts) > before; sent != (tc.want == 200) {
			t.Errorf("%s: sent %v", name, sent)
		}
	}
}

func TestAPanicIsTheErrorOfOneRequest(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{limit: limit.Config{Concurrency: 1, SlotWait: -1}})
	w.use(service("svc", version("m", 100, spec.EngineONNX, "i1")))

	fine := w.engine.play
	w.engine.play = func(int, string, *gateway.Call, *gateway.Attempt) gateway.Result { panic("BUG: planted") }

	if out := w.do("/v1/infers/svc", nil, alice); out.Status != 500 || strings.Contains(string(out.Body), "planted") {
		t.Errorf("got %d %s", out.Status, out.Body)
	}

	if rec := w.last(); rec.Outcome != gateway.Panicked {
		t.Errorf("record %+v", rec)
	}

	w.engine.play = fine
	// The slot and the lease came back.
	if out := w.do("/v1/infers/svc", nil, alice); out.Status != 200 || w.gateway.Active() != 0 {
		t.Errorf("got %d %s, %d active", out.Status, out.Body, w.gateway.Active())
	}
}

func TestStreamedAnswerIsSettledAtItsEnd(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{limit: limit.Config{Concurrency: 1, SlotWait: -1}})
	w.use(service("svc", version("m", 100, spec.EngineONNX, "i1")))

	var finish func(int64, error)

	w.engine.play = func(_ int, _ string, c *gateway.Call, a *gateway.Attempt) gateway.Result {
		c.Record.Status = 200
		a.AnswerHeaders(c.Out)
		c.Out.Set(200, nil) // as a door does that sends the rest later
		finish = a.Done

		return gateway.Result{Answered: true, Streaming: true, Sent: true, Status: 200}
	}

	w.do("/v1/infers/svc", nil, alice)

	if len(w.records) != 0 || w.gateway.Active() != 1 {
		t.Fatalf("settled before the end: %+v", w.records)
	}

	if out := w.do("/v1/infers/svc", nil, alice); out.Status != 429 {
		t.Errorf("the slot of a running stream was given away: %d", out.Status)
	}

	finish(1234, nil)

	if rec := w.last(); rec.Outcome != gateway.Served || rec.BytesOut != 1234 || w.gateway.Active() != 0 {
		t.Errorf("record %+v", rec)
	}
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
			time.Sleep(time.Duration(h%40) * time.Millisecond)

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

				time.Sleep(time.Duration(i) * time.Millisecond)
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
				time.Sleep(time.Millisecond)

				return broken
			}

			n := retrying.Add(1)
			defer retrying.Add(-1)

			worst.Store(max(worst.Load(), n))

			if n > max(3, active.Load()/5) {
				over.Add(1)
			}

			time.Sleep(10 * time.Millisecond)

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

func TestConfigReportsMistakes(t *testing.T) {
	t.Parallel()

	for name, cfg := range map[string]gateway.Config{
		"ratio": {RetryRatio: 2}, "minimum": {RetryMin: -1}, "buffer": {BufferBytes: -1}, "wait": {RetryWait: -1},
	} {
		if _, err := gateway.New(cfg, gateway.Parts{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
