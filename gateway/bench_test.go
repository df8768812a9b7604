package gateway_test

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

// quietOut takes an answer without keeping it.
type quietOut struct{ answers int }

func (*quietOut) AddHeader(string, []byte) {}
func (o *quietOut) Set(int, []byte)        { o.answers++ }
func (*quietOut) Stream(int, func() ([]byte, error), func(error)) {
	panic("BUG: not streamed here")
}

// quietHeader has one header, without allocating.
type quietHeader struct{ token []byte }

func (h *quietHeader) Get(name string) []byte {
	if name == "x-auth-token" {
		return h.token
	}

	return nil
}

func (h *quietHeader) Each(f func(name, value []byte) bool) { f([]byte("X-Auth-Token"), h.token) }

type quietEngine struct{}

func (quietEngine) Forward(c *gateway.Call, a *gateway.Attempt) gateway.Result {
	a.Lease.Answered()
	c.Record.Status = 200
	a.AnswerHeaders(c.Out)
	c.Out.Set(200, nil)

	return gateway.Result{Answered: true, Sent: true, Status: 200, Outcome: pool.OK}
}

// quiet is a world in which the corridor is the only thing that costs.
func quiet(tb testing.TB, services int) (*world, *gateway.Call) {
	tb.Helper()

	w := newWorld(tb, options{forward: quietEngine{}, limit: limit.Config{Service: limit.Rate{PerSecond: 1e9}, Concurrency: 100, NoHeaders: true}})
	routes := make([]spec.Route, services)

	for i := range routes {
		id := fmt.Sprintf("%08d-23ab-45f9-a66e-892e7bc2be53", i)
		routes[i] = service(id,
			version("a", 80, spec.EngineONNX, id+"a1", id+"a2", id+"a3", id+"a4"),
			version("b", 15, spec.EngineONNX, id+"b1", id+"b2", id+"b3", id+"b4"),
			version("c", 5, spec.EngineONNX, id+"c1", id+"c2", id+"c3", id+"c4"))
	}

	w.use(routes...)

	c, _ := gatewaytest.NewCall(tb.Context(), "POST", "/v1/infers/"+routes[services/2].ServiceID+"/predict", []byte(`{"inputs":[1]}`))
	c.Header, c.Out = &quietHeader{[]byte("alice")}, &quietOut{}

	return w, c
}

func again(w *world, c *gateway.Call) {
	c.Record = gateway.Record{}
	w.records = w.records[:0]
	w.gateway.Do(c)
}

// rotation is a call and the paths that it takes in turn: those of many services, in an order that no cache guesses.
func rotation(tb testing.TB, services int) (w *world, c *gateway.Call, paths [][]byte) {
	tb.Helper()

	w, c = quiet(tb, services)
	all := make([]byte, 0, services*64) // in one piece: what is measured are the services

	for _, i := range rand.New(rand.NewPCG(1, 2)).Perm(services) {
		from := len(all)
		all = fmt.Appendf(all, "/v1/infers/%08d-23ab-45f9-a66e-892e7bc2be53/predict", i)
		paths = append(paths, all[from:])
	}

	return w, c, paths
}

// BenchmarkDo is the whole corridor: match, authenticate, limit, pick a version and an instance, settle. Each
// service has 3 versions with 4 instances each.
func BenchmarkDo(b *testing.B) {
	for _, services := range []int{1, 10_000} {
		b.Run(fmt.Sprintf("services=%d/one is called", services), func(b *testing.B) {
			w, c := quiet(b, services)
			b.ReportAllocs()
			b.ResetTimer()

			for b.Loop() {
				again(w, c)
			}
		})
	}

	for _, called := range []int{100, 10_000} {
		b.Run(fmt.Sprintf("services=10000/%d are called in turn", called), func(b *testing.B) {
			w, c, paths := rotation(b, 10_000)
			paths = paths[:called]

			b.ReportAllocs()
			b.ResetTimer()

			for i := 0; b.Loop(); i++ {
				c.Path, c.Target = paths[i%called], paths[i%called]
				again(w, c)
			}
		})
	}
}
