package router_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

type backend struct{}

func (backend) Close() error { return nil }

// newPool has n ready instances.
func newPool(tb testing.TB, n int) *pool.Pool {
	tb.Helper()

	p, err := pool.New("test", pool.Config{})
	if err != nil {
		tb.Fatal(err)
	}

	instances := make([]spec.Instance, n)
	for i := range instances {
		instances[i].ID = fmt.Sprintf("i%d", i)
	}

	if err := p.Update(pool.PowerOfTwo, instances, func(spec.Instance) (pool.Backend, error) { return backend{}, nil }); err != nil {
		tb.Fatal(err)
	}

	return p
}

// versions are models m0, m1, … with these weights; a negative one stands for a version
// with that weight and without instances.
func versions(tb testing.TB, weights ...int) ([]spec.Version, []*pool.Pool) {
	tb.Helper()

	out, pools := make([]spec.Version, len(weights)), make([]*pool.Pool, len(weights))

	for i, w := range weights {
		n := 1
		if w < 0 {
			n, w = 0, -w
		}

		out[i] = spec.Version{ModelID: fmt.Sprintf("m%d", i), ModelName: "m", ModelVersion: strconv.Itoa(i), Weight: w, Engine: spec.EngineONNX}
		pools[i] = newPool(tb, n)
	}

	return out, pools
}

func compile(tb testing.TB, policy spec.TrafficPolicy, weights ...int) *router.Route {
	tb.Helper()

	vs, pools := versions(tb, weights...)

	r, err := router.Compile(&spec.Route{ServiceID: "s", Versions: vs, Policy: spec.Policy{Traffic: policy}}, pools, router.NewTurns())
	if err != nil {
		tb.Fatal(err)
	}

	return r
}

type headers map[string]string

func (h headers) Get(name string) []byte {
	if v, ok := h[name]; ok {
		return []byte(v)
	}

	return nil
}

func request() *router.Request {
	return &router.Request{Header: headers{}, Principal: &auth.Principal{}, Remote: netip.MustParseAddr("10.1.2.3")}
}

func modelOf(d router.Decision) string {
	if d.Version == nil {
		return "none"
	}

	return d.Version.ModelID
}

func TestWeightsSplitExactlyOverAnyTenThousand(t *testing.T) {
	t.Parallel()

	for _, weights := range [][]int{{90, 10}, {99, 1}, {50, 50}, {70, 20, 10}, {33, 33, 34}, {1, 98, 1}, {0, 100}, {100}, {3, 5}} {
		t.Run(fmt.Sprint(weights), func(t *testing.T) {
			t.Parallel()

			r := compile(t, spec.TrafficPolicy{}, weights...)
			sum := 0

			for _, w := range weights {
				sum += w
			}

			for window := range 20 {
				got := map[string]int{}
				for range 10_000 {
					got[modelOf(r.Choose(request()))]++
				}

				for i, w := range weights {
					want := 10_000 * float64(w) / float64(sum)
					// Far stricter than chance would be.
					if n := float64(got[fmt.Sprintf("m%d", i)]); math.Abs(n-want) > 12 {
						t.Fatalf("window %d: version %d got %v of 10000, want %v", window, i, n, want)
					}
				}
			}
		})
	}
}

// Whatever the weights, whatever changes before, and however many requests come at once: any 10,000 requests are
// split far more evenly than chance would.
func TestAnyWeightsSplitAnyTenThousand(t *testing.T) {
	t.Parallel()

	rng := rand.New(rand.NewPCG(3, 5))
	turns := router.NewTurns()

	for range 15 {
		weights := make([]int, 1+rng.IntN(6))

		for rest := 100; rest > 0; { // they sum to 100, and 0 is among them now and then
			n := 1 + rng.IntN(rest)
			weights[rng.IntN(len(weights))] += n
			rest -= n
		}

		vs, pools := versions(t, weights...)

		// The same turns go on, as they do when weights change.
		r, err := router.Compile(&spec.Route{ServiceID: "s", Versions: vs}, pools, turns)
		if err != nil {
			t.Fatal(err)
		}

		for range rng.IntN(5000) {
			r.Choose(request())
		}

		var (
			wg  sync.WaitGroup
			got [6]atomic.Int64
		)

		for range 4 {
			wg.Go(func() {
				q := request()
				for range 2500 {
					i, err := strconv.Atoi(strings.TrimPrefix(modelOf(r.Choose(q)), "m"))
					if err != nil {
						t.Error("no version")

						return
					}

					got[i].Add(1)
				}
			})
		}

		wg.Wait()

		for i, w := range weights {
			if n := got[i].Load(); math.Abs(float64(n)-100*float64(w)) > 12 {
				t.Errorf("weights %v: version %d got %d of 10000", weights, i, n)
			}
		}
	}
}

func TestShareOfAVersionWithoutInstancesGoesToTheOthersInProportion(t *testing.T) {
	t.Parallel()

	r := compile(t, spec.TrafficPolicy{}, 60, -20, 15, 5)
	got := map[string]int{}

	for range 10_000 {
		got[modelOf(r.Choose(request()))]++
	}

	for model, want := range map[string]float64{"m0": 7500, "m1": 0, "m2": 1875, "m3": 625} {
		if n := float64(got[model]); math.Abs(n-want) > 25 {
			t.Errorf("%s got %v, want %v", model, n, want)
		}
	}
}

func TestNoVersionAble(t *testing.T) {
	t.Parallel()

	for _, weights := range [][]int{{-100}, {-90, -10}, {0, -100}, {0}, {}} {
		if d := compile(t, spec.TrafficPolicy{}, weights...).Choose(request()); d.Version != nil || d.Reason != router.NoVersion {
			t.Errorf("%v: got %s", weights, modelOf(d))
		}
	}
}

func TestStickyMovesOnlyWhatItMust(t *testing.T) {
	t.Parallel()

	policy := spec.TrafficPolicy{Sticky: &spec.Sticky{By: "header", Name: "X-User"}}
	before, after := compile(t, policy, 90, 10), compile(t, policy, 80, 20)

	const users = 20_000

	moved, onNew := 0, 0

	for u := range users {
		q := request()
		q.Header = headers{"x-user": fmt.Sprintf("user-%d", u)}

		a, b := before.Choose(q), after.Choose(q)
		if a.Reason != router.BySticky || modelOf(before.Choose(q)) != modelOf(a) {
			t.Fatalf("user %d is not sticky", u)
		}

		if modelOf(a) == "m1" {
			onNew++

			if modelOf(b) != "m1" {
				t.Fatalf("user %d went back to the version that lost weight", u)
			}
		}

		if modelOf(a) != modelOf(b) {
			moved++
		}
	}

	if share := float64(onNew) / users; math.Abs(share-0.10) > 0.01 {
		t.Errorf("%.3f of the users on 10 %%", share)
	}

	if share := float64(moved) / users; math.Abs(share-0.10) > 0.01 {
		t.Errorf("%.3f of the users moved, want 0.10", share)
	}
}

func TestStickyUsersOfADeadVersionSpreadAndOthersStay(t *testing.T) {
	t.Parallel()

	policy := spec.TrafficPolicy{Sticky: &spec.Sticky{By: "principal"}}
	all, less := compile(t, policy, 40, 40, 20), compile(t, policy, 40, -40, 20)

	for u := range 5000 {
		q := request()
		q.Principal = &auth.Principal{Key: fmt.Sprintf("user:%d", u)}

		a, b := modelOf(all.Choose(q)), modelOf(less.Choose(q))
		if a != "m1" && a != b || b == "m1" {
			t.Fatalf("user %d went from %s to %s", u, a, b)
		}
	}
}

func TestStickySources(t *testing.T) {
	t.Parallel()

	cases := map[string]struct {
		sticky     spec.Sticky
		same, also func(q *router.Request)
	}{
		"header": {
			spec.Sticky{By: "header", Name: "X-Session"},
			func(q *router.Request) { q.Header = headers{"x-session": "s 1"} }, nil,
		},
		"cookie": {
			spec.Sticky{By: "cookie", Name: "sid"},
			func(q *router.Request) { q.Header = headers{"cookie": "a=b; sid=s 1; c=d"} },
			func(q *router.Request) { q.Header = headers{"cookie": `xsid=no; sid="s 1"`} },
		},
		"query": {
			spec.Sticky{By: "query", Name: "user id"},
			func(q *router.Request) { q.Query = []byte("a=b&user+id=s%201") },
			func(q *router.Request) { q.Query = []byte("user%20id=s+1&z") },
		},
		"principal": {
			spec.Sticky{By: "principal"},
			func(q *router.Request) { q.Principal = &auth.Principal{Key: "user:7"} }, nil,
		},
		"app": {
			spec.Sticky{By: "app"},
			func(q *router.Request) { q.Principal = &auth.Principal{AppID: "app7"} }, nil,
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			r := compile(t, spec.TrafficPolicy{Sticky: &tc.sticky}, 50, 50)

			q := request()
			if d := r.Choose(q); d.Reason != router.ByWeight {
				t.Fatalf("a request without a value was chosen %s", d.Reason)
			}

			tc.same(q)
			first := r.Choose(q)

			if tc.also != nil {
				q = request()
				tc.also(q)
			}

			for range 20 {
				if d := r.Choose(q); d.Reason != router.BySticky || modelOf(d) != modelOf(first) {
					t.Fatalf("got %s %s, want sticky %s", d.Reason, modelOf(d), modelOf(first))
				}
			}
		})
	}
}

func TestRulesComeFirst(t *testing.T) {
	t.Parallel()

	nv := func(n, v string) *spec.NameValue { return &spec.NameValue{Name: n, Value: v} }
	policy := spec.TrafficPolicy{
		Sticky: &spec.Sticky{By: "header", Name: "X-Any"},
		Rules: []spec.Rule{
			{Name: "tester", ModelID: "m1", Match: spec.Match{Header: nv("X-Gray", "yes")}},
			{ModelID: "m2", Match: spec.Match{Cookie: nv("beta", "")}},
			{Name: "both", ModelID: "m1", Match: spec.Match{Query: nv("v", "new one"), CIDR: "10.0.0.0/8"}},
			{Name: "user", ModelID: "m2", Match: spec.Match{Principal: "alice"}},
			{Name: "app", ModelID: "m1", Match: spec.Match{App: "app1"}},
			{Name: "net", ModelID: "m2", Match: spec.Match{CIDR: "2001:db8::/32"}},
			{Name: "host", ModelID: "m1", Match: spec.Match{CIDR: "10.9.9.9"}},
		},
	}
	r := compile(t, policy, 100, 0, -0)

	cases := []struct {
		name        string
		set         func(q *router.Request)
		model, rule string
	}{
		{"nothing", func(*router.Request) {}, "m0", ""},
		{"header", func(q *router.Request) { q.Header = headers{"x-gray": "yes"} }, "m1", "tester"},
		{"header with another value", func(q *router.Request) { q.Header = headers{"x-gray": "Yes"} }, "m0", ""},
		{"cookie with any value", func(q *router.Request) { q.Header = headers{"cookie": "beta="} }, "m2", "rule-2"},
		{"the first of two", func(q *router.Request) { q.Header = headers{"cookie": "beta=1", "x-gray": "yes"} }, "m1", "tester"},
		{"both conditions", func(q *router.Request) { q.Query = []byte("v=new%20one") }, "m1", "both"},
		{"one of both", func(q *router.Request) {
			q.Query = []byte("v=new+one")
			q.Remote = netip.MustParseAddr("11.0.0.1")
		}, "m0", ""},
		{"mapped address", func(q *router.Request) {
			q.Query = []byte("v=new+one")
			q.Remote = netip.MustParseAddr("::ffff:10.2.2.2")
		}, "m1", "both"},
		{"user by id", func(q *router.Request) { q.Principal = &auth.Principal{UserID: "alice"} }, "m2", "user"},
		{"user by name", func(q *router.Request) { q.Principal = &auth.Principal{UserID: "u9", UserName: "alice"} }, "m2", "user"},
		{"app", func(q *router.Request) { q.Principal = &auth.Principal{AppID: "app1"} }, "m1", "app"},
		{"network", func(q *router.Request) { q.Remote = netip.MustParseAddr("2001:db8::7") }, "m2", "net"},
		{"address", func(q *router.Request) { q.Remote = netip.MustParseAddr("10.9.9.9") }, "m1", "host"},
		{"public", func(q *router.Request) { q.Principal = nil }, "m0", ""},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			q := request()
			tc.set(q)

			d := r.Choose(q)
			if modelOf(d) != tc.model || d.Rule != tc.rule || string(d.RuleBytes()) != tc.rule {
				t.Fatalf("got %s by %q (%s)", modelOf(d), d.Rule, d.Reason)
			}

			x := r.Explain(q)
			if x.Rule != tc.rule || x.Reason != d.Reason.String() || tc.rule != "" && x.ModelID != tc.model {
				t.Fatalf("explained as %+v", x)
			}
		})
	}
}

func TestExplainTellsShares(t *testing.T) {
	t.Parallel()

	x := compile(t, spec.TrafficPolicy{}, 60, -20, 20).Explain(request())
	if x.Reason != "weight" || len(x.Versions) != 3 || x.Versions[0].Share != 75 || x.Versions[1].Able || x.Versions[2].Share != 25 {
		t.Fatalf("got %+v", x)
	}
}

func TestCompileReportsEveryMistake(t *testing.T) {
	t.Parallel()

	vs, _ := versions(t, 100)
	vs[0].Weight = -1
	in := &spec.Route{
		ServiceID: "svc-9", Versions: vs, Balancer: "DICE",
		Policy: spec.Policy{Traffic: spec.TrafficPolicy{
			Sticky: &spec.Sticky{By: "mood"},
			Rules: []spec.Rule{
				{ModelID: "nobody", Match: spec.Match{CIDR: "10.0.0.0/99"}},
				{ModelID: "m0"},
				{ModelID: "m0", Match: spec.Match{Header: &spec.NameValue{Value: "x"}}},
			},
		}},
	}

	err := router.Check(in)
	if err == nil {
		t.Fatal("accepted")
	}

	for _, part := range []string{"svc-9", "DICE", "mood", "nobody", "10.0.0.0/99", "rules[1]", "match.header.name", "weight -1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q is missing in %v", part, err)
		}
	}

	if err := router.Check(&spec.Route{Policy: spec.Policy{Traffic: spec.TrafficPolicy{Sticky: &spec.Sticky{By: "cookie"}}}}); err == nil {
		t.Error("a cookie without a name was accepted")
	}
}

func TestOtherVersionForARetry(t *testing.T) {
	t.Parallel()

	r := compile(t, spec.TrafficPolicy{}, 60, 30, -10, 0)
	tried := map[string]bool{}
	has := func(v *router.Version) bool { return tried[v.ModelID] }

	for _, want := range []string{"m0", "m1"} {
		v := r.Other(has)
		if v == nil || v.ModelID != want {
			t.Fatalf("got %v, want %s", v, want)
		}

		tried[want] = true
	}

	if v := r.Other(has); v != nil {
		t.Fatalf("got %s, want none: it is dark or has no instance", v.ModelID)
	}
}

func BenchmarkChoose(b *testing.B) {
	nv := &spec.NameValue{Name: "X-Gray", Value: "yes"}
	for name, policy := range map[string]spec.TrafficPolicy{
		"weights": {},
		"sticky":  {Sticky: &spec.Sticky{By: "principal"}},
		"rules":   {Rules: []spec.Rule{{ModelID: "m1", Match: spec.Match{Header: nv}}, {ModelID: "m2", Match: spec.Match{CIDR: "11.0.0.0/8"}}}},
	} {
		b.Run(name, func(b *testing.B) {
			r := compile(b, policy, 80, 15, 5)
			q := request()
			q.Principal = &auth.Principal{Key: "user:1"}
			b.ReportAllocs()

			for b.Loop() {
				r.Choose(q)
			}
		})
	}
}

func BenchmarkMatch(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			table := make(router.Table[int], n)
			for i := range n {
				table[fmt.Sprintf("%08d-23ab-45f9-a66e-892e7bc2be53", i)] = i
			}

			path := []byte("/v1/infers/00000000-23ab-45f9-a66e-892e7bc2be53/predict")
			b.ReportAllocs()

			for b.Loop() {
				if router.CheckPath(path) != nil {
					b.Fatal("refused")
				}

				if _, m := table.Match(path); !m.Found {
					b.Fatal("not found")
				}
			}
		})
	}
}
