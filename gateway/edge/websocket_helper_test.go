package edge_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/spec"
)

// wsBench is everything between a door and an engine.
type wsBench struct {
	*running

	gateway *gateway.Gateway
	plans   *gatewaytest.Plans
	route   spec.Route

	mu     sync.Mutex
	ended  []gateway.Record // guarded by mu
	opened atomic.Int64
}

// withEngine runs an edge whose service "svc" has one instance at address.
func withEngine(tb testing.TB, address string, change ...func(*edge.Config, *spec.Route)) *wsBench {
	tb.Helper()

	cfg := testConfig()
	cfg.Prefixes = []string{"/v1/infers/"}
	k := &wsBench{route: spec.Route{
		ServiceID: "svc", ProjectID: "p1", Running: true, WebSocket: true, Revision: 1,
		Policy: spec.Policy{AuthTypes: []spec.AuthType{spec.AuthNone}},
		Versions: []spec.Version{{
			ModelID: "m1", ModelName: "echo", ModelVersion: "1.0.0", Weight: 100, Engine: spec.EngineCustom,
			Instances: []spec.Instance{{ID: "i1", State: spec.InstanceReady, Network: "tcp", Address: address}},
		}},
	}}

	for _, f := range change {
		f(&cfg, &k.route)
	}

	client, err := upstream.New(upstream.Config{})
	if err != nil {
		tb.Fatal(err)
	}

	limits, err := limit.New(limit.Config{})
	if err != nil {
		tb.Fatal(err)
	}

	guard := &gatewaytest.Guard{Tokens: map[string]*auth.Principal{"good": gatewaytest.Principal("u1", "p1")}}

	if k.plans, err = gatewaytest.NewPlans(plan.Config{}, client.Open, guard, limits); err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(k.plans.Compiler.Close)
	k.use(tb)

	k.gateway, err = gateway.New(gateway.Config{Patience: -1}, gateway.Parts{
		Plans: k.plans, Limits: limits, Forward: client, Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		tb.Fatal(err)
	}

	k.running = start(tb, cfg, k.gateway, func(d *edge.Deps) {
		if cfg.HTTPS != "" {
			withTLS(tb)(d)
		}

		d.Hooks.SocketOpened = func(edge.Door, *gateway.Record) { k.opened.Add(1) }
		d.Hooks.SocketClosed = func(_ edge.Door, r *gateway.Record) {
			k.mu.Lock()
			defer k.mu.Unlock()

			k.ended = append(k.ended, *r)
		}
	})

	return k
}

// use puts the route into force.
func (k *wsBench) use(tb testing.TB) {
	tb.Helper()

	k.route.Revision++

	if err := k.plans.Use(&spec.Snapshot{Revision: k.route.Revision, Services: []spec.Route{k.route}}); err != nil {
		tb.Fatal(err)
	}
}

// records waits for n WebSockets that are over.
func (k *wsBench) records(tb testing.TB, n int) []gateway.Record {
	tb.Helper()

	var got []gateway.Record

	eventually(tb, "settled WebSockets", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()

		got = append(got[:0], k.ended...)

		return len(got) >= n
	})

	return got
}

func (k *wsBench) url(path string) string { return "ws://" + k.HTTPAddr() + "/v1/infers/svc" + path }

// open connects with an independent client, which is closed at the end of the test.
func (k *wsBench) open(tb testing.TB, path string, opts *websocket.DialOptions) *websocket.Conn {
	tb.Helper()

	ctx, cancel := context.WithTimeout(tb.Context(), 10*time.Second)
	defer cancel()

	c, _, err := websocket.Dial(ctx, k.url(path), opts)
	if err != nil {
		tb.Fatal(err)
	}

	c.SetReadLimit(-1)
	tb.Cleanup(func() { _ = c.CloseNow() })

	return c
}

// engine serves h on loopback until the test ends and returns its address.
func engine(tb testing.TB, h http.HandlerFunc) string {
	tb.Helper()

	var lc net.ListenConfig

	l, err := lc.Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}

	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}

	go func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			tb.Errorf("engine: %v", err)
		}
	}()

	tb.Cleanup(func() { _ = s.Close() })

	return l.Addr().String()
}

// echoEngine answers every message with itself. It checks nothing that the gateway has to check.
func echoEngine(tb testing.TB) string {
	tb.Helper()

	up := gorilla.Upgrader{
		CheckOrigin: func(*http.Request) bool { return true }, EnableCompression: true,
		Subprotocols: []string{"v2.echo", "v1.echo"}, ReadBufferSize: 16 << 10, WriteBufferSize: 16 << 10,
	}

	return engine(tb, func(w http.ResponseWriter, r *http.Request) {
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return // the upgrader has answered
		}
		defer c.Close()

		echoAll(c)
	})
}

func echoAll(c *gorilla.Conn) {
	for {
		kind, r, err := c.NextReader()
		if err != nil {
			return
		}

		w, err := c.NextWriter(kind)
		if err != nil {
			return
		}

		if _, err := io.Copy(w, r); err != nil {
			return
		}

		if w.Close() != nil {
			return
		}
	}
}
