package upstream_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/spec"
)

func TestAnswers(t *testing.T) {
	t.Parallel()

	const (
		body  = "hello world"
		chunk = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	)

	cases := []struct {
		name, raw string
		status    int // 0: not passed on
		body      string
		streamed  bool
		reused    bool
	}{
		{"known length", "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + body, 200, body, false, true},
		{"no reason", "HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n", 200, "", false, true},
		{"no reason, no space", "HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n", 200, "", false, true},
		{"equal lengths twice", "HTTP/1.1 200 OK\r\nContent-Length: 11\r\ncontent-length: 11\r\n\r\n" + body, 200, body, false, true},
		{"chunked at once", chunk + "5\r\nhello\r\n6;x=y\r\n world\r\n0\r\n\r\n", 200, body, false, true},
		{"chunked with trailer", chunk + "b\r\nhello world\r\n0\r\nX-T: 1\r\n\r\n", 200, body, true, true},
		{"until close", "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + body, 200, body, true, false},
		{"1.0", "HTTP/1.0 200 OK\r\nContent-Length: 11\r\n\r\n" + body, 200, body, false, false},
		{"1.0 kept", "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 11\r\n\r\n" + body, 200, body, false, true},
		{"closing", "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 11\r\n\r\n" + body, 200, body, false, false},
		{"204", "HTTP/1.1 204 No Content\r\n\r\n", 204, "", false, true},
		{"304", "HTTP/1.1 304 Not Modified\r\nContent-Length: 99\r\n\r\n", 304, "", false, true},
		{"interim first", "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + body, 200, body, false, true},
		{"more than declared", "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" + body, 200, "hello", false, false},
		{"head of 60 KB", "HTTP/1.1 200 OK\r\nX-Long: " + strings.Repeat("x", 60000) + "\r\nContent-Length: 11\r\n\r\n" + body, 200, body, false, true},

		{"length and coding", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, "", false, false},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 0, "", false, false},
		{"signed length", "HTTP/1.1 200 OK\r\nContent-Length: +3\r\n\r\nabc", 0, "", false, false},
		{"length list", "HTTP/1.1 200 OK\r\nContent-Length: 3, 3\r\n\r\nabc", 0, "", false, false},
		{"huge length", "HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\nabc", 0, "", false, false},
		{"other coding", "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 0, "", false, false},
		{"space before colon", "HTTP/1.1 200 OK\r\nContent-Length : 3\r\n\r\nabc", 0, "", false, false},
		{"folded", "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 3\r\n\r\nabc", 0, "", false, false},
		{"bare LF", "HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\nabc", 0, "", false, false},
		{"NUL", "HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 3\r\n\r\nabc", 0, "", false, false},
		{"switching", "HTTP/1.1 101 Switching Protocols\r\n\r\n", 0, "", false, false},
		{"another version", "HTTP/2.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", 0, "", false, false},
		{"status beyond 599", "HTTP/1.1 600 What\r\nContent-Length: 3\r\n\r\nabc", 0, "", false, false},
		{"no HTTP", "SSH-2.0-OpenSSH_9.2\r\n\r\n", 0, "", false, false},
		{"endless head", "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 70000), 0, "", false, false},
		{"too many headers", "HTTP/1.1 200 OK\r\n" + strings.Repeat("X: y\r\n", 300) + "\r\n", 0, "", false, false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			s := startScript(t, func(_ int64, c net.Conn, _ *http.Request) bool {
				_, err := io.WriteString(c, tc.raw)

				return err == nil && !strings.Contains(tc.name, "close")
			})
			b := newBench(t, upstream.Config{})
			b.route.Versions[0].Engine = spec.EngineCustom // no retries: every attempt shows
			b.use(s.addr)

			out := b.do("POST", "/v1/infers/svc", "x")

			if tc.status == 0 {
				if out.Status != 502 || !strings.Contains(string(out.Body), "APIG.0201") || s.requests.Load() != 1 {
					t.Fatalf("got %d %q after %d requests", out.Status, out.Body, s.requests.Load())
				}

				return
			}

			if out.Status != tc.status || string(out.Body) != tc.body || out.Streamed != tc.streamed || out.End != nil {
				t.Fatalf("got %d %q, streamed %v, end %v", out.Status, out.Body, out.Streamed, out.End)
			}

			b.do("POST", "/v1/infers/svc", "x")

			if got := s.conns.Load() == 1; got != tc.reused {
				t.Errorf("%d connections for two requests", s.conns.Load())
			}
		})
	}
}

func TestHeadHasNoBody(t *testing.T) {
	t.Parallel()

	s := say(t, "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n")
	b := newBench(t, upstream.Config{})
	b.use(s.addr)

	for range 2 {
		if out := b.do("HEAD", "/v1/infers/svc", ""); out.Status != 200 || len(out.Body) != 0 {
			t.Fatalf("got %d %q", out.Status, out.Body)
		}
	}

	if s.conns.Load() != 1 {
		t.Errorf("%d connections", s.conns.Load())
	}
}

func TestBrokenBodiesAreNeverPassedOnAsWhole(t *testing.T) {
	t.Parallel()

	for name, raw := range map[string]string{
		"short":             "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		"chunk cut":         "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nonly",
		"no last chunk":     "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
		"bad chunk size":    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\nzz\r\n\r\n",
		"chunk without end": "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonlyXX0\r\n\r\n",
		"huge chunk size":   "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n",
		"events cut":        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nonly\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := startScript(t, func(_ int64, c net.Conn, _ *http.Request) bool {
				_, _ = io.WriteString(c, raw)

				return false
			})
			b := newBench(t, upstream.Config{})
			b.route.Versions[0].Engine = spec.EngineCustom
			b.use(s.addr)

			out := b.do("POST", "/v1/infers/svc", "x")
			if out.Streamed && out.End == nil || !out.Streamed && out.Status < 500 {
				t.Fatalf("got %d %q, streamed %v, end %v", out.Status, out.Body, out.Streamed, out.End)
			}

			if rec := b.last.Load(); rec.Outcome != gateway.UpstreamError && rec.Outcome != gateway.UpstreamUnreachable {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

func TestDrainingWorkerHandsOver(t *testing.T) {
	t.Parallel()

	for _, kind := range []spec.EngineKind{spec.EngineONNX, spec.EngineCustom} {
		leaving := say(t, "HTTP/1.1 503 Service Unavailable\r\nX-Worker-Draining: 1\r\nConnection: close\r\nContent-Length: 5\r\n\r\nlater")
		staying := say(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		b := newBench(t, upstream.Config{})
		b.route.Versions[0].Engine = kind
		b.use(leaving.addr, staying.addr)

		for range 20 {
			if out := b.do("POST", "/v1/infers/svc", "x"); out.Status != 200 {
				t.Fatalf("%s: got %d %s", kind, out.Status, out.Body)
			}
		}

		if n := leaving.requests.Load(); n > 1 {
			t.Errorf("%s: %d requests to a draining worker", kind, n)
		}
	}
}

func TestBusyAnswersPassThrough(t *testing.T) {
	t.Parallel()

	s := say(t, "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy")
	b := newBench(t, upstream.Config{})
	b.use(s.addr)

	out := b.do("POST", "/v1/infers/svc", "x")
	if out.Status != 503 || string(out.Body) != "busy" || out.Header("Retry-After") != "1" || s.requests.Load() != 1 {
		t.Errorf("got %d %s after %d requests", out.Status, out.Body, s.requests.Load())
	}
}

// Nobody gets an error when a worker closes its idle connections, not even with an engine
// for which nothing may be sent twice.
func TestClosedIdleConnectionsAreNotUsed(t *testing.T) {
	t.Parallel()

	s := startScript(t, func(_ int64, c net.Conn, _ *http.Request) bool {
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

		return false // closes without having said so
	})
	b := newBench(t, upstream.Config{})
	b.route.Versions[0].Engine = spec.EngineCustom
	b.use(s.addr)

	for i := range 30 {
		if out := b.do("POST", "/v1/infers/svc", "x"); out.Status != 200 {
			t.Fatalf("request %d: got %d %s", i, out.Status, out.Body)
		}

		waitFor(t, func() bool { return s.closed.Load() == int64(i+1) })
	}
}

// A pure request is sent again at once when the connection that it was sent on turns out dead.
func TestBrokenReusedConnectionIsReplaced(t *testing.T) {
	t.Parallel()

	s := startScript(t, func(n int64, c net.Conn, _ *http.Request) bool {
		if n%2 == 0 {
			return false // the second request on a connection finds it dying
		}

		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

		return true
	})
	b := newBench(t, upstream.Config{})
	b.use(s.addr)

	for i := range 20 {
		if out := b.do("POST", "/v1/infers/svc", "x"); out.Status != 200 {
			t.Fatalf("request %d: got %d %s", i, out.Status, out.Body)
		}

		if rec := b.last.Load(); rec.Attempts != 1 {
			t.Errorf("request %d took %d attempts", i, rec.Attempts)
		}
	}
}

func TestCustomEngineIsAskedOnce(t *testing.T) {
	t.Parallel()

	s := startScript(t, func(int64, net.Conn, *http.Request) bool { return false })
	b := newBench(t, upstream.Config{})
	b.route.Versions[0].Engine = spec.EngineCustom
	b.use(s.addr, s.addr)

	out := b.do("POST", "/v1/infers/svc", "x")
	if out.Status != 503 || !strings.Contains(string(out.Body), "ModelArts.4302") || s.requests.Load() != 1 {
		t.Errorf("got %d %s after %d requests", out.Status, out.Body, s.requests.Load())
	}
}

func TestIdleConnectionsExpire(t *testing.T) {
	t.Parallel()

	s := say(t, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	b := newBench(t, upstream.Config{IdleTimeout: 50 * time.Millisecond})
	b.use(s.addr)

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)

	go func() { ended <- b.client.Run(ctx) }()

	b.do("POST", "/v1/infers/svc", "x")
	waitFor(t, func() bool { return b.client.Idle() == 0 })
	b.do("POST", "/v1/infers/svc", "x")

	if s.conns.Load() != 2 {
		t.Errorf("%d connections", s.conns.Load())
	}

	cancel()

	if err := <-ended; err != nil || b.client.Idle() != 0 {
		t.Errorf("ended with %v, %d idle", err, b.client.Idle())
	}
}

func TestUnixSocketAndTLS(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "s")

	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}

	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	done := make(chan struct{})
	srv := &http.Server{Handler: h, ReadHeaderTimeout: time.Second}

	go func() {
		defer close(done)

		_ = srv.Serve(l)
	}()

	t.Cleanup(func() {
		_ = srv.Close()
		<-done
	})

	b := newBench(t, upstream.Config{})
	b.use("unix:" + path)

	if out := b.do("GET", "/v1/infers/svc", ""); out.Status != 200 || string(out.Body) != "localhost" {
		t.Errorf("unix: got %d %s", out.Status, out.Body)
	}

	tlsAddr := serveTLS(t, h)
	b.route.Versions[0].Protocol = "https"
	b.use(tlsAddr)

	for range 2 {
		if out := b.do("GET", "/v1/infers/svc", ""); out.Status != 200 || string(out.Body) != tlsAddr {
			t.Errorf("TLS: got %d %s", out.Status, out.Body)
		}
	}
}

func TestUnusableAddressesAreRefused(t *testing.T) {
	t.Parallel()

	cl, err := upstream.New(upstream.Config{})
	if err != nil {
		t.Fatal(err)
	}

	for _, in := range []spec.Instance{
		{Address: ""},
		{Address: "host"},
		{Address: ":80"},
		{Address: "host:"},
		{Network: "udp", Address: "h:1"},
		{Network: "unix"},
		{Address: "h:1", Scheme: "gopher"},
		{Address: "h:1", LinkAddress: "tcp:10.0.0.1:1"}, // in the clear across machines
		{Address: "h:1", LinkAddress: "tcp:h:1"},
		{Address: "h:1", LinkAddress: "tls:h:1"}, // without a certificate of our own
	} {
		if _, err := cl.Open(&spec.Version{}, in); err == nil {
			t.Errorf("%+v accepted", in)
		}
	}

	for name, cfg := range map[string]upstream.Config{"idle": {IdleTimeout: time.Hour}, "head": {MaxHead: 5}, "dial": {DialTimeout: -1}} {
		if _, err := upstream.New(cfg); err == nil {
			t.Errorf("%s accepted", name)
		}
	}
}

func TestExternalEngineIsTalkedToAsItWants(t *testing.T) {
	t.Parallel()

	var got *http.Request

	addr := serve(t, func(_ http.ResponseWriter, r *http.Request) { got = r })
	b := newBench(t, upstream.Config{})
	b.route.Versions[0].Engine = spec.EngineExternal
	b.use(addr)

	in := &b.route.Versions[0].Instances[0]
	in.Endpoint = &spec.Endpoint{
		URL: "http://triton.example:8000/base/", Headers: map[string]string{"Authorization": "Bearer k", "X-Tenant": "t"},
	}
	b.apply()

	if out := b.do("POST", "/v1/infers/svc/v2/x?q=1", "", [2]string{"X-Tenant", "forged"}, [2]string{"authorization", "Bearer mine"}); out.Status != 200 {
		t.Fatalf("got %d %s", out.Status, out.Body)
	}

	if got.RequestURI != "/base/v2/x?q=1" || got.Host != "triton.example:8000" ||
		fmt.Sprint(got.Header["X-Tenant"], got.Header["Authorization"]) != "[t] [Bearer k]" {
		t.Errorf("got %s at %s with %v", got.RequestURI, got.Host, got.Header)
	}

	in.Endpoint = &spec.Endpoint{URL: "http://triton.example:8000/base", PathPrefix: "/other", Headers: map[string]string{"Host": "h.example"}}
	b.apply()
	b.do("POST", "/v1/infers/svc", "")

	if got.RequestURI != "/other/" || got.Host != "h.example" {
		t.Errorf("got %s at %s", got.RequestURI, got.Host)
	}

	cl, err := upstream.New(upstream.Config{})
	if err != nil {
		t.Fatal(err)
	}

	for _, e := range []spec.Endpoint{
		{URL: "http://h", PathPrefix: "x"},
		{URL: "http://h", PathPrefix: "/a b"},
		{URL: "http://h", Headers: map[string]string{"A b": "c"}},
		{URL: "http://h", Headers: map[string]string{"A": "c\r\nd: e"}},
		{URL: "http://\x00"},
	} {
		if _, err := cl.Open(&spec.Version{}, spec.Instance{Address: addr, Endpoint: &e}); err == nil {
			t.Errorf("%+v accepted", e)
		}
	}
}
