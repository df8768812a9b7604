package upstream_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a corridor with real connections to servers of the test.
type bench struct {
	t        *testing.T
	plans    *gatewaytest.Plans
	gateway  *gateway.Gateway
	client   *upstream.Client
	revision int64
	route    spec.Route
	settled  atomic.Int64
	last     atomic.Pointer[gateway.Record]
}

func newBench(t *testing.T, cfg upstream.Config) *bench {
	t.Helper()

	b := &bench{t: t}

	var err error
	if b.client, err = upstream.New(cfg); err != nil {
		t.Fatal(err)
	}

	limits, err := limit.New(limit.Config{})
	if err != nil {
		t.Fatal(err)
	}

	guard := &gatewaytest.Guard{Tokens: map[string]*auth.Principal{"secret": gatewaytest.Principal("u1", "p1")}}
	if b.plans, err = gatewaytest.NewPlans(plan.Config{}, b.client.Open, guard, limits); err != nil {
		t.Fatal(err)
	}

	b.gateway, err = gateway.New(gateway.Config{}, gateway.Parts{
		Plans: b.plans, Limits: limits, Forward: b.client, Log: slog.New(slog.DiscardHandler),
		Hooks: gateway.Hooks{Settled: func(c *gateway.Call) {
			b.settled.Add(1)

			rec := c.Record
			b.last.Store(&rec)
		}},
	})
	if err != nil {
		t.Fatal(err)
	}

	b.route = spec.Route{
		ServiceID: "svc", ProjectID: "p1", Running: true,
		Policy: spec.Policy{AuthTypes: []spec.AuthType{spec.AuthNone}},
		Versions: []spec.Version{{
			ModelID: "m1", ModelName: "digits", ModelVersion: "1.0.0", Weight: 100, Engine: spec.EngineONNX,
		}},
	}

	t.Cleanup(b.plans.Compiler.Close)

	return b
}

// use puts instances into force; "unix:" addresses are paths.
func (b *bench) use(addresses ...string) {
	b.t.Helper()

	v := &b.route.Versions[0]
	v.Instances = nil

	for i, a := range addresses {
		in := spec.Instance{ID: fmt.Sprintf("i%d-%s", i, a), State: spec.InstanceReady, Network: "tcp", Address: a}
		if path, ok := strings.CutPrefix(a, "unix:"); ok {
			in.Network, in.Address = "unix", path
		}

		v.Instances = append(v.Instances, in)
	}

	b.apply()
}

func (b *bench) apply() {
	b.t.Helper()

	b.revision++
	b.route.Revision = b.revision

	if err := b.plans.Use(&spec.Snapshot{Revision: b.revision, Services: []spec.Route{b.route}}); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) do(method, target, body string, header ...[2]string) *gatewaytest.Out {
	b.t.Helper()

	c, out := gatewaytest.NewCall(b.t.Context(), method, target, []byte(body), header...)
	b.gateway.Do(c)

	if out.Answers != 1 {
		b.t.Errorf("%d answers to one request", out.Answers)
	}

	return out
}

// serve starts an HTTP server and returns its address.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	s := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}

	done := make(chan struct{})

	go func() {
		defer close(done)

		_ = s.Serve(l)
	}()

	t.Cleanup(func() {
		_ = s.Close()
		<-done
	})

	return l.Addr().String()
}

func TestForwardPassesRequestAndAnswer(t *testing.T) {
	t.Parallel()

	var got *http.Request

	body := ""
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got, body = r, string(b)

		w.Header().Set("X-Engine", "yes")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "no")
		w.Header().Set("X-Sluice-Model", "forged")
		w.Header().Set("X-Request-Id", "forged")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	})
	b := newBench(t, upstream.Config{})
	b.use(addr)

	out := b.do("POST", "/v1/infers/svc/a%20b/c?x=1%2f2&y", "payload",
		[2]string{"X-Auth-Token", "secret"}, [2]string{"Connection", "keep-alive, X-Drop, X-Forwarded-For, X-Request-Id, Content-Length, Host"}, [2]string{"X-Drop", "1"},
		[2]string{"X-Keep", "2"}, [2]string{"X-Forwarded-For", "6.6.6.6"}, [2]string{"X_Forwarded_For", "6.6.6.6"},
		[2]string{"Authorization", "SDK-HMAC-SHA256 Access=AK, SignedHeaders=a, Signature=b"},
		[2]string{"Transfer-Encoding", "chunked"}, [2]string{"Content-Length", "99"}, [2]string{"Upgrade", "h2c"},
		[2]string{"Traceparent", "garbage"}, [2]string{"X-Sluice-Rule", "forged"}, [2]string{"Proxy", "evil"},
		[2]string{"Expect", "100-continue"}, [2]string{"TE", "trailers"}, [2]string{"Trailer", "X-Late"}, [2]string{"Keep-Alive", "1"},
		[2]string{"Proxy-Connection", "close"}, [2]string{"HTTP2-Settings", "AAMAAABk"}, [2]string{"X-Sdk-Date", "20250101T000000Z"})

	if out.Status != 418 || string(out.Body) != "short and stout" {
		t.Fatalf("got %d %q", out.Status, out.Body)
	}

	if got.RequestURI != "/a%20b/c?x=1%2f2&y" || got.Method != http.MethodPost || body != "payload" {
		t.Errorf("forwarded %s %s with %q", got.Method, got.RequestURI, body)
	}

	for name, want := range map[string]string{
		"X-Keep": "2", "X-Drop": "", "X-Auth-Token": "", "Authorization": "", "Upgrade": "", "Proxy": "",
		"Expect": "", "Te": "", "Trailer": "", "Keep-Alive": "", "Proxy-Connection": "", "Http2-Settings": "",
		"X-Forwarded-For": "192.0.2.7", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "api.example",
		"X_forwarded_for": "", "X-Sluice-Rule": "", "X-Request-Id": "req-1", "Content-Length": "7",
	} {
		if v := strings.Join(got.Header.Values(name), "|"); v != want {
			t.Errorf("%s: forwarded %q, want %q", name, v, want)
		}
	}

	if tp := got.Header.Get("Traceparent"); len(tp) != 55 || !strings.HasPrefix(tp, "00-") {
		t.Errorf("traceparent %q", tp)
	}

	if out.Header("X-Engine") != "yes" || out.Header("X-Hop") != "" || out.Header("Connection") != "" {
		t.Errorf("answer headers %v", out.Headers)
	}

	if out.Header("X-Sluice-Model") != "digits/1.0.0" || out.Header("X-Request-Id") != "" || !strings.HasPrefix(out.Header("X-Sluice-Instance"), "i0-") {
		t.Errorf("answer headers %v", out.Headers)
	}

	if rec := b.last.Load(); rec.Outcome != gateway.UpstreamStatus || rec.Status != 418 || rec.BytesIn != 7 || rec.BytesOut != 15 || rec.Attempts != 1 {
		t.Errorf("record %+v", rec)
	}
}

func TestEmptyPathGoesToTheFirstAPI(t *testing.T) {
	t.Parallel()

	addr := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) })
	b := newBench(t, upstream.Config{})
	b.use(addr)

	for target, want := range map[string]string{
		"/v1/infers/svc": "/", "/v1/infers/svc?a=b": "/?a=b", "/v1/infers/svc/": "/", "/v1/infers/pool-1/svc/x": "/x",
	} {
		if out := b.do("POST", target, ""); string(out.Body) != want {
			t.Errorf("%s went to %q, want %q", target, out.Body, want)
		}
	}

	b.route.Versions[0].APIs = []spec.API{{URL: "/predict"}, {URL: "/other"}}
	b.apply()

	for target, want := range map[string]string{"/v1/infers/svc": "/predict", "/v1/infers/svc/": "/", "/v1/infers/svc/other": "/other"} {
		if out := b.do("POST", target, ""); string(out.Body) != want {
			t.Errorf("%s went to %q, want %q", target, out.Body, want)
		}
	}
}

// worker is an engine that can be killed: its listener and all of its connections end at once.
type worker struct {
	addr string
	kill func()
}

func startWorker(t *testing.T, h http.HandlerFunc) *worker {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	var (
		mu    sync.Mutex
		conns []net.Conn
	)

	s := &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			mu.Lock()
			defer mu.Unlock()

			conns = append(conns, c)

			return ctx
		},
	}
	done := make(chan struct{})

	go func() {
		defer close(done)

		_ = s.Serve(l)
	}()

	w := &worker{addr: l.Addr().String()}
	w.kill = sync.OnceFunc(func() {
		_ = l.Close()

		mu.Lock()
		for _, c := range conns {
			if tcp, ok := c.(*net.TCPConn); ok {
				_ = tcp.SetLinger(0) // as a killed process: reset
			}

			_ = c.Close()
		}
		mu.Unlock()

		_ = s.Close()
		<-done
	})
	t.Cleanup(w.kill)

	return w
}

func TestKilledWorkerFailsNobody(t *testing.T) {
	t.Parallel()

	engine := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)

		select {
		case <-time.After(2 * time.Millisecond):
		case <-r.Context().Done():
		}

		_, _ = io.WriteString(w, "ok")
	}
	one, two := startWorker(t, engine), startWorker(t, engine)
	b := newBench(t, upstream.Config{})
	b.use(one.addr, two.addr)

	var (
		wg     sync.WaitGroup
		failed atomic.Int64
		sent   atomic.Int64
	)

	stop := make(chan struct{})

	for range 32 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}

				sent.Add(1)

				if out := b.do("POST", "/v1/infers/svc", "x"); out.Status != 200 || string(out.Body) != "ok" {
					failed.Add(1)
					t.Errorf("got %d %s", out.Status, out.Body)
				}
			}
		})
	}

	waitFor(t, func() bool { return sent.Load() > 500 })
	one.kill()

	at := sent.Load()
	waitFor(t, func() bool { return sent.Load() > at+1000 })
	// The last one dies, too; a new one comes up a little later.
	two.kill()

	at = sent.Load()

	time.AfterFunc(300*time.Millisecond, func() {
		three := startWorker(t, engine)
		b.use(three.addr)
	})
	waitFor(t, func() bool { return sent.Load() > at+500 })
	close(stop)
	wg.Wait()

	if n := failed.Load(); n > 0 || b.settled.Load() != sent.Load() {
		t.Fatalf("%d of %d requests failed, %d settled", n, sent.Load(), b.settled.Load())
	}
}

func waitFor(t *testing.T, ok func() bool) {
	t.Helper()

	deadline := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("waited too long")
		}

		<-time.After(time.Millisecond)
	}
}
