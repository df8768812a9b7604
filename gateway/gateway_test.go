package gateway_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

// Results of attempts.
var (
	refused = gateway.Result{Outcome: pool.Unreachable, Err: fault.New(fault.BackendUnreachable, "")}
	broken  = gateway.Result{Outcome: pool.Broken, Sent: true, Err: fault.New(fault.BackendUnreachable, "")}
	slow    = gateway.Result{Outcome: pool.TimedOut, Sent: true, Err: fault.New(fault.BackendTimeout, "")}
	drained = gateway.Result{Outcome: pool.Neutral, Sent: true, NotStarted: true, Err: fault.New(fault.NoInstance, "")}
)

func (backend) Close() error { return nil }

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

// A service whose instances are full sheds early and tells when to come again; nobody else notices.
func TestAFullServiceShedsAndLeavesOthersAlone(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{plan: plan.Config{Pool: pool.Config{MaxInFlight: 2, MaxQueue: 3, QueueWait: 30 * time.Second}}})
	w.use(service("full", version("m", 100, spec.EngineONNX, "i")), service("other", version("n", 100, spec.EngineONNX, "j")))

	started, goOn := make(chan struct{}, 10), make(chan struct{})
	w.engine.play = func(_ int, instance string, c *gateway.Call, a *gateway.Attempt) gateway.Result {
		if instance == "i" {
			started <- struct{}{}

			<-goOn
		}

		return answer(c, a, 200)
	}

	answers := make(chan *gatewaytest.Out, 100)

	for range 30 {
		go func() { answers <- w.do("/v1/infers/full", nil, alice) }()
	}

	// Two run, three wait, the others are told at once.
	for range 25 {
		if out := <-answers; out.Status != 503 || out.Header("Retry-After") == "" || !strings.Contains(string(out.Body), "Sluice.4001") {
			t.Errorf("got %d %s %v", out.Status, out.Body, out.Headers)
		}
	}

	for range 20 {
		if out := w.do("/v1/infers/other", nil, alice); out.Status != 200 {
			t.Errorf("the other service: %d %s", out.Status, out.Body)
		}
	}

	if len(started) != 2 {
		t.Errorf("%d run at a time, want 2", len(started))
	}

	close(goOn)

	for range 5 {
		if out := <-answers; out.Status != 200 {
			t.Errorf("who waited got %d %s", out.Status, out.Body)
		}
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

// Who fails too often is told to come later; a caller of the same network who does prove who
// it is does not notice.
func TestFloodsOfBadCredentialsHurtOnlyThemselves(t *testing.T) {
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

		if out := w.do("/v1/infers/svc", nil, alice); out.Status != 200 {
			t.Errorf("a caller with a good token beside the flood got %d", out.Status)
		}
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

func TestExplainRouteIsNotSentOn(t *testing.T) {
	t.Parallel()

	w := newWorld(t, options{})
	s := service("svc", version("a", 90, spec.EngineONNX, "a1", "a2"), version("b", 10, spec.EngineONNX))
	s.Policy.Traffic.Rules = []spec.Rule{{Name: "gray", ModelID: "id-b", Match: spec.Match{Query: &spec.NameValue{Name: "v"}}}}
	public := service("public", version("a", 100, spec.EngineONNX, "p1"))
	public.Policy.AuthTypes = []spec.AuthType{spec.AuthNone}
	w.use(s, public)

	ask := [2]string{"X-Sluice-Explain", "route"}

	var got struct {
		Principal, Reason, Rule, Version, Path string
		Revision                               int64
		Steps                                  []string
		Versions                               []struct {
			Share     float64
			Able      bool
			Balancer  string
			Instances []pool.State
		}
	}

	out := w.do("/v1/infers/svc/predict", nil, alice, ask)
	if err := json.Unmarshal(out.Body, &got); err != nil || out.Status != 200 {
		t.Fatalf("got %d %s", out.Status, out.Body)
	}

	if got.Reason != "weight" || got.Principal != "user:alice" || got.Path != "/predict" || got.Revision != 1 || len(got.Versions) != 2 ||
		got.Versions[0].Share != 100 || got.Versions[1].Able || len(got.Versions[0].Instances) != 2 || got.Versions[0].Instances[0].Status != "ready" {
		t.Errorf("got %+v", got)
	}

	out = w.do("/v1/infers/svc?v=1", nil, alice, ask)
	if err := json.Unmarshal(out.Body, &got); err != nil || got.Reason != "rule" || got.Rule != "gray" || got.Version != "b/1" {
		t.Errorf("got %s", out.Body)
	}

	if len(w.engine.attempts) != 0 {
		t.Error("the request was sent on")
	}

	if out := w.do("/v1/infers/public", nil, ask); out.Status != 401 {
		t.Errorf("a stranger got %d %s", out.Status, out.Body)
	}

	if out := w.do("/v1/infers/svc", nil, ask, [2]string{"X-Auth-Token", "nobody"}); out.Status != 403 {
		t.Errorf("a caller without rights got %d", out.Status)
	}
	// Any other value travels to the engine.
	if out := w.do("/v1/infers/svc", nil, alice, [2]string{"X-Sluice-Explain", "1"}); string(out.Body) != "answer" {
		t.Errorf("got %s", out.Body)
	}
}
