package gateway_test

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
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

type backend struct{}

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

func newWorld(tb testing.TB, o options) *world {
	tb.Helper()

	w := &world{t: tb, engine: &engine{}, guard: &gatewaytest.Guard{
		Tokens: map[string]*auth.Principal{
			"alice": gatewaytest.Principal("alice", "p1"), "mallory": gatewaytest.Principal("mallory", "p2"),
			"nobody": gatewaytest.Principal("nobody", "p1"),
		},
		Denied: map[string]bool{"user:nobody": true},
	}}
	w.engine.play = func(_ int, _ string, c *gateway.Call, a *gateway.Attempt) gateway.Result { return answer(c, a, 200) }

	limits, err := limit.New(o.limit)
	if err != nil {
		tb.Fatal(err)
	}

	if w.plans, err = gatewaytest.NewPlans(o.plan, openNothing, w.guard, limits); err != nil {
		tb.Fatal(err)
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
		tb.Fatal(err)
	}

	return w
}

// service is a running service of project p1.
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
