package plan_test

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// backends counts what is open.
type backends struct {
	mu   sync.Mutex
	open map[string]int
	made int
}

type backend struct {
	of *backends
	id string
}

func (b *backend) Close() error {
	b.of.mu.Lock()
	defer b.of.mu.Unlock()

	b.of.open[b.id]--

	return nil
}

func (b *backends) Open(_ *spec.Version, in spec.Instance) (pool.Backend, error) {
	b.mu.Lock()
	defer b.mu.Unlock()

	b.open[in.ID]++
	b.made++

	return &backend{b, in.ID}, nil
}

func (b *backends) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()

	out := map[string]int{}

	for id, n := range b.open {
		if n != 0 {
			out[id] = n
		}
	}

	return fmt.Sprint(out)
}

func newCompiler(tb testing.TB, cfg plan.Config) (*plan.Compiler, *backends) {
	tb.Helper()

	limits, err := limit.New(limit.Config{})
	if err != nil {
		tb.Fatal(err)
	}

	b := &backends{open: map[string]int{}}

	c, err := plan.NewCompiler(cfg, plan.Parts{
		Open: b.Open, Limits: limits, Log: slog.New(slog.DiscardHandler),
		Guard: func(s *spec.Snapshot, _ plan.Guard) (plan.Guard, error) {
			if len(s.Users) > 0 && s.Users[0].ID == "" {
				return nil, errors.New("a user without id")
			}

			return &gatewaytest.Guard{}, nil
		},
	})
	if err != nil {
		tb.Fatal(err)
	}

	return c, b
}

func compile(tb testing.TB, c *plan.Compiler, s *spec.Snapshot) *plan.Plan {
	tb.Helper()

	p, sweep, err := c.Compile(s)
	if err != nil {
		tb.Fatal(err)
	}

	sweep()

	return p
}

func route(id string, revision int64, versions ...spec.Version) spec.Route {
	return spec.Route{ServiceID: id, ProjectID: "p", Revision: revision, Running: true, Versions: versions}
}

func version(model string, weight int, ready ...string) spec.Version {
	v := spec.Version{ModelID: model, ModelName: model, ModelVersion: "1", Weight: weight, Engine: spec.EngineONNX}
	for _, id := range ready {
		v.Instances = append(v.Instances, spec.Instance{ID: id, Address: id + ":1", State: spec.InstanceReady})
	}

	return v
}

func TestUnchangedRoutesAreTakenOver(t *testing.T) {
	t.Parallel()

	c, _ := newCompiler(t, plan.Config{})
	one := compile(t, c, &spec.Snapshot{Revision: 1, Services: []spec.Route{route("a", 1, version("m", 100, "i1")), route("b", 1, version("m", 100, "i2"))}})
	two := compile(t, c, &spec.Snapshot{Revision: 2, Services: []spec.Route{route("a", 1, version("m", 100, "i1")), route("b", 2, version("m", 100, "i2", "i3"))}})

	if one.Services["a"] != two.Services["a"] {
		t.Error("a route that did not change was compiled again")
	}

	if one.Services["b"] == two.Services["b"] || two.Revision != 2 {
		t.Error("a route that changed was not compiled")
	}

	if one.Services["b"].Limits != two.Services["b"].Limits {
		t.Error("the admission state of a service did not survive")
	}

	if one.Services["b"].Route.Versions()[0].Pool != two.Services["b"].Route.Versions()[0].Pool {
		t.Error("the pool of a version did not survive")
	}
}

func TestWhatNobodyUsesIsClosed(t *testing.T) {
	t.Parallel()

	c, b := newCompiler(t, plan.Config{})
	steps := []struct {
		name   string
		routes []spec.Route
		open   string
		made   int
	}{
		{"two services", []spec.Route{route("a", 1, version("m", 60, "i1", "i2"), version("n", 40, "i3")), route("b", 1, version("m", 100, "i4"))}, "map[i1:1 i2:1 i3:1 i4:1]", 4},
		{"the same again", []spec.Route{route("a", 2, version("m", 60, "i1", "i2"), version("n", 40, "i3")), route("b", 1, version("m", 100, "i4"))}, "map[i1:1 i2:1 i3:1 i4:1]", 4},
		{"an instance leaves", []spec.Route{route("a", 3, version("m", 60, "i2"), version("n", 40, "i3")), route("b", 1, version("m", 100, "i4"))}, "map[i2:1 i3:1 i4:1]", 4},
		{"a version leaves", []spec.Route{route("a", 4, version("m", 100, "i2")), route("b", 1, version("m", 100, "i4"))}, "map[i2:1 i4:1]", 4},
		{"a service leaves", []spec.Route{route("b", 1, version("m", 100, "i4"))}, "map[i4:1]", 4},
		{"and comes back", []spec.Route{route("a", 5, version("m", 100, "i5")), route("b", 1, version("m", 100, "i4"))}, "map[i4:1 i5:1]", 5},
	}

	for i, s := range steps {
		compile(t, c, &spec.Snapshot{Revision: int64(i + 1), Services: s.routes})

		if b.String() != s.open || b.made != s.made {
			t.Fatalf("%s: open %s after %d, want %s after %d", s.name, b, b.made, s.open, s.made)
		}
	}

	c.Close()
	c.Close()

	if b.String() != "map[]" {
		t.Errorf("still open: %s", b)
	}
}

func TestOnlyReadyInstancesAreUsed(t *testing.T) {
	t.Parallel()

	c, b := newCompiler(t, plan.Config{})
	v := version("m", 100, "ready")

	for _, state := range []spec.InstanceState{
		spec.InstanceQueued, spec.InstanceLoading, spec.InstanceWarming, spec.InstanceDraining, spec.InstanceStopped, spec.InstanceFailed,
	} {
		v.Instances = append(v.Instances, spec.Instance{ID: string(state), Address: "x:1", State: state})
	}

	compile(t, c, &spec.Snapshot{Revision: 1, Services: []spec.Route{route("a", 1, v)}})

	if b.String() != "map[ready:1]" {
		t.Errorf("open: %s", b)
	}
}

func TestASnapshotThatDoesNotCompileChangesNothing(t *testing.T) {
	t.Parallel()

	c, b := newCompiler(t, plan.Config{})
	good := compile(t, c, &spec.Snapshot{Revision: 1, Services: []spec.Route{route("a", 1, version("m", 100, "i1"))}})

	bad := route("b", 2, version("m", 100, "i9"))
	bad.Policy.Traffic.Rules = []spec.Rule{{ModelID: "nobody", Match: spec.Match{App: "x"}}}
	negative := route("c", 2)
	negative.Policy.Limits.Concurrency = -1

	_, _, err := c.Compile(&spec.Snapshot{Revision: 2, Services: []spec.Route{
		route("a", 2, version("m", 100, "i2")), bad, negative, route("a", 2), route("", 2), route("d", 2, version("m", 1), version("m", 1)),
	}})
	if err == nil {
		t.Fatal("accepted")
	}

	for _, part := range []string{"nobody", "negative", `"a" is empty or taken`, `services[4]`, "stands twice"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}

	if _, _, err := c.Compile(&spec.Snapshot{Revision: 2, Users: []spec.User{{}}}); err == nil {
		t.Error("credentials that do not compile were accepted")
	}

	if b.String() != "map[i1:1]" {
		t.Errorf("open: %s", b)
	}

	after := compile(t, c, &spec.Snapshot{Revision: 3, Services: []spec.Route{route("a", 1, version("m", 100, "i1"))}})
	if after.Services["a"] != good.Services["a"] {
		t.Error("the refused snapshot left something behind")
	}
}

func TestPolicyBecomesLimits(t *testing.T) {
	t.Parallel()

	c, _ := newCompiler(t, plan.Config{Timeout: 7 * time.Second, BodyBytes: 1000, Attempts: 2})
	own := route("own", 1, version("m", 100))
	own.Policy = spec.Policy{
		AuthTypes: []spec.AuthType{spec.AuthNone, spec.AuthApp},
		Limits:    spec.Limits{BodyBytes: 5, TimeoutSeconds: 1.5},
		Retry:     spec.RetryPolicy{Attempts: 99, PerTryTimeoutSeconds: 0.25},
	}
	endless := route("endless", 1, version("m", 100))
	endless.Policy.Limits = spec.Limits{BodyBytes: 1 << 60, TimeoutSeconds: 1e18}

	p := compile(t, c, &spec.Snapshot{Revision: 1, Services: []spec.Route{route("plain", 1, version("m", 100)), own, endless}})

	if s := p.Services["plain"]; s.Timeout != 7*time.Second || s.BodyLimit != 1000 || s.Attempts != 2 || s.PerTry != 0 || s.Allowed != auth.AllowDefault {
		t.Errorf("plain: %+v", s)
	}

	if s := p.Services["own"]; s.Timeout != 1500*time.Millisecond || s.BodyLimit != 5 || s.Attempts != plan.MaxAttempts ||
		s.PerTry != 250*time.Millisecond || s.Allowed != auth.AllowNone|auth.AllowApp {
		t.Errorf("own: %+v", s)
	}

	if s := p.Services["endless"]; s.Timeout != plan.MaxTimeout || s.BodyLimit != plan.MaxBodyBytes {
		t.Errorf("endless: %+v", s)
	}
}

func TestConfigReportsMistakes(t *testing.T) {
	t.Parallel()

	for name, cfg := range map[string]plan.Config{
		"body": {BodyBytes: -1}, "timeout": {Timeout: -1}, "attempts": {Attempts: 99}, "pool": {Pool: pool.Config{MaxInFlight: -1}},
	} {
		if _, err := plan.NewCompiler(cfg, plan.Parts{}); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func BenchmarkCompile(b *testing.B) {
	const n = 10_000

	snapshot := &spec.Snapshot{Revision: 1}

	for i := range n {
		id := fmt.Sprint("s", i)
		snapshot.Services = append(snapshot.Services, route(id, 1,
			version("a", 80, id+"1", id+"2", id+"3", id+"4"), version("b", 15, id+"5", id+"6", id+"7", id+"8"), version("c", 5, id+"9")))
	}

	c, _ := newCompiler(b, plan.Config{})
	compile(b, c, snapshot)
	b.Run("one of 10000 changed", func(b *testing.B) {
		for b.Loop() {
			snapshot.Revision++
			snapshot.Services[7].Revision = snapshot.Revision
			compile(b, c, snapshot)
		}
	})
}

func TestHooksTellWhatComesAndGoes(t *testing.T) {
	t.Parallel()

	limits, err := limit.New(limit.Config{})
	if err != nil {
		t.Fatal(err)
	}

	var told []string

	note := func(what string) func(string, string) {
		return func(service, model string) { told = append(told, what+service+" "+model) }
	}

	b := &backends{open: map[string]int{}}

	c, err := plan.NewCompiler(plan.Config{}, plan.Parts{
		Open: b.Open, Limits: limits, Log: slog.New(slog.DiscardHandler), Hooks: plan.ServiceHooks{Added: note("+"), Removed: note("-")},
		Guard: func(*spec.Snapshot, plan.Guard) (plan.Guard, error) { return &gatewaytest.Guard{}, nil },
	})
	if err != nil {
		t.Fatal(err)
	}

	again := version("m", 100, "i4")
	again.ModelID = "other id"

	for i, step := range []struct {
		routes []spec.Route
		want   string
	}{
		{[]spec.Route{route("a", 1, version("m", 100, "i1"))}, "[+a  +a m/1]"},
		{[]spec.Route{route("a", 2, version("m", 50, "i1"), version("n", 50, "i2"))}, "[+a n/1]"},
		{[]spec.Route{route("a", 3, version("m", 100, "i1"))}, "[-a n/1]"},
		{[]spec.Route{route("a", 4, again)}, "[+a m/1]"}, // the model was made again
		{nil, "[-a m/1 -a ]"},
	} {
		told = nil
		compile(t, c, &spec.Snapshot{Revision: int64(i + 1), Services: step.routes})

		if got := fmt.Sprint(told); got != step.want {
			t.Errorf("step %d: told %s, want %s", i, got, step.want)
		}
	}
}
