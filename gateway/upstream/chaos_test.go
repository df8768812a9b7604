package upstream_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/internal/peer/peertest"
	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/spec"
)

// trouble is what a network does to connections.
type trouble struct {
	latency   time.Duration // of each piece
	reset     float64       // chance that a piece resets the connection
	blackHole bool          // nothing comes through, nothing ends
	halfOpen  float64       // chance that the answer is swallowed from some piece on
	slice     int           // largest piece; 0 means no cutting
}

// wire is a network path to an address, with trouble that can change.
type wire struct {
	addr string
	now  atomic.Pointer[trouble]
}

func startWire(t *testing.T, to string) *wire {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	w := &wire{addr: l.Addr().String()}
	w.now.Store(&trouble{})

	ctx, cancel := context.WithCancel(context.Background())

	var wg sync.WaitGroup

	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}

			wg.Go(func() { w.carry(ctx, c, to) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()

		cancel()
		wg.Wait()
	})

	return w
}

func (w *wire) carry(ctx context.Context, client net.Conn, to string) {
	defer client.Close()

	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()

	defer context.AfterFunc(ctx, func() {
		_ = client.Close()
		_ = server.Close()
	})()

	var wg sync.WaitGroup

	wg.Go(func() { w.pump(ctx, server, client) })
	w.pump(ctx, client, server)
	wg.Wait()
}

func (w *wire) pump(ctx context.Context, to, from net.Conn) {
	defer func() {
		_ = to.Close()
		_ = from.Close()
	}()

	buf := make([]byte, 32<<10)
	swallow := false

	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}

		for piece := buf[:n]; len(piece) > 0; {
			d := w.now.Load()
			part := piece

			if d.slice > 0 {
				part = piece[:min(d.slice, len(piece))]
			}

			piece = piece[len(part):]
			swallow = swallow || rand.Float64() < d.halfOpen

			switch {
			case rand.Float64() < d.reset:
				if tcp, ok := to.(*net.TCPConn); ok {
					_ = tcp.SetLinger(0)
				}

				return
			case d.blackHole || swallow:
				continue
			case d.latency > 0:
				select {
				case <-time.After(rand.N(d.latency)):
				case <-ctx.Done():
					return
				}
			}

			if _, err := to.Write(part); err != nil {
				return
			}
		}
	}
}

// ways are how a gateway reaches its workers.
var ways = map[string]struct{ link, tls, custom bool }{
	"HTTP":                 {},
	"HTTP, custom engine":  {custom: true},
	"HTTP over mutual TLS": {tls: true},
	"link":                 {link: true},
	"link over mutual TLS": {link: true, tls: true},
}

// tally counts how often the engines ran each request.
type tally struct {
	mu   sync.Mutex
	runs map[string]int
}

// run answers with the body that came.
func (n *tally) run(body []byte) []byte {
	n.mu.Lock()
	defer n.mu.Unlock()

	n.runs[string(body)]++

	return body
}

// chaosBench has three workers, each behind a wire of its own.
func chaosBench(t *testing.T, way struct{ link, tls, custom bool }, runs *tally) (*bench, [3]*wire) {
	t.Helper()

	engine := func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}

		_, _ = w.Write(runs.run(body))
	}
	authority := peertest.Authority(t, 1)

	// A streamed answer has no deadline of its own: what is lost in its middle ends by silence.
	b := newBench(t, upstream.Config{DialTimeout: 200 * time.Millisecond, StreamIdle: time.Second, Worker: authority.To})
	b.route.Policy.Limits.TimeoutSeconds = 2
	b.route.Policy.Retry.PerTryTimeoutSeconds = 0.4
	b.route.Policy.Retry.Attempts = 5

	if way.custom {
		b.route.Versions[0].Engine = spec.EngineCustom
	}

	wires := [3]*wire{}

	for i := range wires {
		in := spec.Instance{ID: fmt.Sprintf("svc-%d", i), State: spec.InstanceReady, Network: "tcp"}
		conf := peertest.Worker(t, authority, in.ID)

		var to string

		switch {
		case way.link:
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}

			to = ln.Addr().String()
			if way.tls {
				ln = tls.NewListener(ln, conf)
			}

			startLink(t, ln, func(r *link.Request) { r.Respond(http.StatusOK, nil, runs.run(r.Body)) })
		case way.tls:
			s := httptest.NewUnstartedServer(http.HandlerFunc(engine))
			s.TLS = conf
			s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // handshakes that break off
			s.StartTLS()
			t.Cleanup(s.Close)

			to, in.Scheme = s.Listener.Addr().String(), "https"
		default:
			to = startWorker(t, engine).addr
		}

		wires[i] = startWire(t, to)
		in.Address = wires[i].addr

		if way.link {
			in.LinkAddress = "tcp:" + wires[i].addr
			if way.tls {
				in.LinkAddress = "tls:" + wires[i].addr
			}

			in.Address = "127.0.0.1:1" // nobody is there
		}

		b.route.Versions[0].Instances = append(b.route.Versions[0].Instances, in)
	}

	b.apply()

	return b, wires
}

// Whatever the network does, each request gets exactly one answer, in time, that is either
// whole and right or an error of the gateway; an engine that may have side effects runs it once at most;
// and when the trouble is over all is well again.
func TestChaosBetweenGatewayAndWorkers(t *testing.T) {
	t.Parallel()

	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			runs := &tally{runs: make(map[string]int)}
			b, wires := chaosBench(t, way, runs)
			least := 1.0
			if way.custom {
				least = 0.5 // without retries more of them fail
			}

			b.chaos(wires, least)

			if !way.custom {
				return
			}

			for body, n := range runs.runs {
				if n > 1 {
					t.Errorf("a request of %d bytes ran %d times", len(body), n)
				}
			}
		})
	}
}

// chaos lets requests through each kind of trouble; least is the part that has to be served of what retries get served.
func (b *bench) chaos(wires [3]*wire, least float64) {
	t := b.t
	t.Helper()

	phases := []struct {
		name    string
		trouble [3]trouble
		served  float64 // least share of 200
	}{
		{"calm", [3]trouble{}, 1},
		{"latency", [3]trouble{{latency: 20 * time.Millisecond}, {latency: 2 * time.Millisecond}, {}}, 1},
		{"sliced", [3]trouble{{slice: 70}, {slice: 33}, {slice: 500}}, 1},
		{"resets", [3]trouble{{reset: 0.2}, {reset: 0.05}, {}}, 0.97},
		{"one is a black hole", [3]trouble{{blackHole: true}, {}, {}}, 0.97},
		{"one is half open", [3]trouble{{halfOpen: 0.3}, {}, {}}, 0.97},
		{"one drips", [3]trouble{{slice: 1, latency: 4 * time.Millisecond}, {}, {}}, 0.97},
		{"all at once", [3]trouble{{blackHole: true}, {reset: 0.02, slice: 500}, {latency: 5 * time.Millisecond, halfOpen: 0.02}}, 0.5},
	}
	for _, phase := range phases {
		for i := range wires {
			wires[i].now.Store(&phase.trouble[i])
		}

		start := time.Now()
		served, all := b.storm(16, 10)
		t.Logf("%s: %d of %d served in %v", phase.name, served, all, time.Since(start))

		want := phase.served
		if want < 1 {
			want *= least
		}

		if share := float64(served) / float64(all); share < want {
			t.Errorf("%s: %.3f of %d served, want %.2f", phase.name, share, all, want)
		}
	}

	for i := range wires {
		wires[i].now.Store(&trouble{})
	}

	// What was swallowed in the middle of a connection shows when it is silent for 2 s; an engine that is asked
	// once must not be asked on it.
	<-time.After(2500 * time.Millisecond)

	if served, all := b.storm(16, 10); served != all {
		t.Errorf("after the storm: %d of %d served", served, all)
	}

	if b.gateway.Active() != 0 {
		t.Errorf("%d requests are still active", b.gateway.Active())
	}

	for _, e := range b.plans.Load().Services["svc"].Route.Versions()[0].Pool.Endpoints() {
		if e.InFlight() != 0 {
			t.Errorf("%s has %d in flight", e.ID, e.InFlight())
		}
	}
}

// storm sends requests from clients at a time and checks each answer.
func (b *bench) storm(clients, each int) (served, all int64) {
	b.t.Helper()

	var (
		wg sync.WaitGroup
		ok atomic.Int64
	)

	before := b.settled.Load()

	for i := range clients {
		wg.Go(func() {
			for j := range each {
				body := string(make([]byte, (i*each+j)*37%5000)) + fmt.Sprintf("%d of %d in %d", j, i, before)
				start := time.Now()
				out := b.do("POST", "/v1/infers/svc", body)

				if d := time.Since(start); d > 4*time.Second {
					b.t.Errorf("an answer took %v", d)
				}

				switch {
				case out.Status == 200 && string(out.Body) == body && out.End == nil:
					ok.Add(1)
				case out.Status == 200 && out.End == nil:
					b.t.Errorf("a wrong answer of %d bytes instead of %d", len(out.Body), len(body))
				case out.Status != 200 && out.Status < 500:
					b.t.Errorf("got %d %s", out.Status, out.Body)
				default:
					b.t.Logf("after %v: %d %.60q, end %v", time.Since(start), out.Status, out.Body, out.End)
				}
			}
		})
	}

	wg.Wait()

	all = int64(clients * each)
	if n := b.settled.Load() - before; n != all {
		b.t.Errorf("%d of %d requests were settled", n, all)
	}

	return ok.Load(), all
}
