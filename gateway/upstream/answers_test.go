package upstream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/spec"
)

// script is a server that reads one request and then does what play says with the connection.
// It counts connections and requests.
type script struct {
	addr     string
	conns    atomic.Int64
	closed   atomic.Int64
	requests atomic.Int64
}

func startScript(t *testing.T, play func(n int64, c net.Conn, r *http.Request) (goOn bool)) *script {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	s := &script{addr: l.Addr().String()}

	var wg sync.WaitGroup

	stop, cancel := context.WithCancel(context.Background())

	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}

			s.conns.Add(1)
			wg.Go(func() {
				defer s.closed.Add(1)
				defer c.Close()
				defer context.AfterFunc(stop, func() { _ = c.Close() })()

				for br := bufio.NewReader(c); ; {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}

					_, _ = io.Copy(io.Discard, r.Body)

					if !play(s.requests.Add(1), c, r) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()

		cancel()
		wg.Wait()
	})

	return s
}

// say answers every request with the same bytes.
func say(t *testing.T, raw string) *script {
	t.Helper()

	return startScript(t, func(_ int64, c net.Conn, _ *http.Request) bool {
		_, err := io.WriteString(c, raw)

		return err == nil
	})
}

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

func TestEventsPassOneByOne(t *testing.T) {
	t.Parallel()

	step := make(chan struct{})
	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")

		for i := range 5 {
			_, _ = fmt.Fprintf(w, "data: %d\n\n", i)

			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}

			select { // the next one only when this one was seen
			case <-step:
			case <-r.Context().Done():
				return
			}
		}
	})
	b := newBench(t, upstream.Config{})
	b.use(addr)

	c, out := gatewaytest.NewCall(t.Context(), "POST", "/v1/infers/svc/stream", nil)
	out.OnChunk = func(piece []byte) error {
		if !strings.HasSuffix(string(piece), "\n\n") {
			t.Errorf("piece %q", piece)
		}

		step <- struct{}{}

		return nil
	}
	b.gateway.Do(c)

	if !out.Streamed || out.End != nil || strings.Count(string(out.Body), "data:") != 5 {
		t.Fatalf("got %q, end %v", out.Body, out.End)
	}

	if rec := b.last.Load(); rec.Outcome != gateway.Served || rec.BytesOut != int64(len(out.Body)) {
		t.Errorf("record %+v", rec)
	}

	if b.client.Idle() != 1 {
		t.Errorf("%d idle connections after a proper end", b.client.Idle())
	}
}

func TestStreamOutlivesTheDeadlineButNotItsIdleTime(t *testing.T) {
	t.Parallel()

	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")

		for range 4 {
			_, _ = io.WriteString(w, "data: x\n\n")

			if f, ok := w.(http.Flusher); ok {
				f.Flush()
			}

			<-time.After(100 * time.Millisecond)
		}

		<-r.Context().Done() // and then it hangs
	})
	b := newBench(t, upstream.Config{StreamIdle: 300 * time.Millisecond})
	b.route.Policy.Limits.TimeoutSeconds = 0.2
	b.use(addr)

	out := b.do("POST", "/v1/infers/svc", "")
	if strings.Count(string(out.Body), "data:") != 4 || out.End == nil {
		t.Fatalf("got %q, end %v", out.Body, out.End)
	}

	if rec := b.last.Load(); rec.Outcome != gateway.UpstreamTimeout {
		t.Errorf("record %+v", rec)
	}
}

func TestClientThatLeavesEndsTheWork(t *testing.T) {
	t.Parallel()

	for _, name := range []string{"waiting", "streaming", "streaming silently"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			started, ended := make(chan struct{}), make(chan struct{})
			addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
				defer close(ended)

				_, _ = io.Copy(io.Discard, r.Body)

				if name != "waiting" {
					w.Header().Set("Content-Type", "text/event-stream")
					_, _ = io.WriteString(w, "data: x\n\n")

					if f, ok := w.(http.Flusher); ok {
						f.Flush()
					}
				}

				close(started)

				for r.Context().Err() == nil {
					<-time.After(5 * time.Millisecond)

					if name == "streaming" {
						_, _ = io.WriteString(w, "data: x\n\n")

						if f, ok := w.(http.Flusher); ok {
							f.Flush()
						}
					}
				}
			})
			b := newBench(t, upstream.Config{})
			b.use(addr)

			ctx, cancel := context.WithCancel(t.Context())
			c, _ := gatewaytest.NewCall(ctx, "POST", "/v1/infers/svc", []byte("x"))

			go func() {
				<-started
				cancel()
			}()

			start := time.Now()
			b.gateway.Do(c)

			if d := time.Since(start); d > 2*time.Second {
				t.Errorf("it took %v to notice", d)
			}

			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Error("the engine goes on working")
			}

			if rec := b.last.Load(); rec.Outcome != gateway.ClientGone {
				t.Errorf("record %+v", rec)
			}
		})
	}
}

func TestDeadlineAndWhatIsLeftOfIt(t *testing.T) {
	t.Parallel()

	told := make(chan string, 1)
	addr := serve(t, func(_ http.ResponseWriter, r *http.Request) {
		told <- r.Header.Get("X-Sluice-Timeout-Ms")
		_, _ = io.Copy(io.Discard, r.Body)
		<-r.Context().Done()
	})
	b := newBench(t, upstream.Config{})
	b.route.Policy.Limits.TimeoutSeconds = 0.4
	b.use(addr)

	start := time.Now()
	out := b.do("POST", "/v1/infers/svc", "x")

	if d := time.Since(start); out.Status != 504 || d < 350*time.Millisecond || d > 2*time.Second {
		t.Errorf("got %d after %v", out.Status, d)
	}

	if v := <-told; len(v) != 3 || v > "400" || v < "200" {
		t.Errorf("the worker was told %q ms", v)
	}
}

func TestLargeBodiesBothWays(t *testing.T) {
	t.Parallel()

	addr := serve(t, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)

			return
		}

		w.Header().Set("X-Length", fmt.Sprint(r.ContentLength))
		_, _ = w.Write(body)
	})
	b := newBench(t, upstream.Config{BufferBytes: 1 << 20})
	b.use(addr)

	for _, size := range []int{0, 1, 16 << 10, 16<<10 + 1, 100_000, 1 << 20, 3 << 20, 11 << 20} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]

		out := b.do("POST", "/v1/infers/svc", body)
		if out.Status != 200 || string(out.Body) != body || out.Header("X-Length") != fmt.Sprint(size) {
			t.Errorf("%d bytes: got %d with %d bytes, length %s", size, out.Status, len(out.Body), out.Header("X-Length"))
		}
	}

	b.route.Versions[0].Engine = spec.EngineCustom
	b.apply()
	// Chunked, streamed on.
	c, out := gatewaytest.NewCall(t.Context(), "POST", "/v1/infers/svc", nil)
	c.Body = &gatewaytest.Body{Data: []byte(strings.Repeat("x", 200_000)), Declared: -1}
	b.gateway.Do(c)

	if out.Status != 200 || len(out.Body) != 200_000 || out.Header("X-Length") != "-1" {
		t.Errorf("chunked: got %d with %d bytes, length %s", out.Status, len(out.Body), out.Header("X-Length"))
	}
}

func TestBodyThatBreaksOffIsNeverTakenForWhole(t *testing.T) {
	t.Parallel()

	for _, declared := range []int64{-1, 6 << 20} {
		complete := make(chan bool, 1)
		addr := serve(t, func(_ http.ResponseWriter, r *http.Request) {
			_, err := io.Copy(io.Discard, r.Body)
			complete <- err == nil
		})
		b := newBench(t, upstream.Config{})
		b.route.Versions[0].Engine = spec.EngineCustom
		b.use(addr)

		c, out := gatewaytest.NewCall(t.Context(), "POST", "/v1/infers/svc", nil)
		c.Body = &gatewaytest.Body{Data: make([]byte, 5<<20), Declared: declared, Err: errors.New("cut")}
		b.gateway.Do(c)

		if <-complete {
			t.Errorf("declared %d: the engine took a part for the whole", declared)
		}

		if out.Status != 500 || out.Answers != 1 {
			t.Errorf("declared %d: got %d", declared, out.Status)
		}
	}
}

func TestEngineThatAnswersWithoutReading(t *testing.T) {
	t.Parallel()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()

	done := make(chan struct{})

	go func() {
		defer close(done)

		c, err := l.Accept()
		if err != nil {
			return
		}

		_, _ = c.Read(make([]byte, 1000))
		_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig")

		if tcp, ok := c.(*net.TCPConn); ok {
			_ = tcp.CloseWrite()
		}

		<-time.After(300 * time.Millisecond) // let the answer arrive before the reset
		_ = c.Close()
	}()

	b := newBench(t, upstream.Config{})
	b.use(l.Addr().String())

	out := b.do("POST", "/v1/infers/svc", strings.Repeat("x", 11<<20))
	if out.Status != 413 || string(out.Body) != "big" {
		t.Errorf("got %d %s", out.Status, out.Body)
	}

	<-done
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
		{Address: ""}, {Address: "host"}, {Address: ":80"}, {Address: "host:"}, {Network: "udp", Address: "h:1"},
		{Network: "unix"}, {Address: "h:1", Scheme: "gopher"},
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
		{URL: "http://h", PathPrefix: "x"}, {URL: "http://h", PathPrefix: "/a b"}, {URL: "http://h", Headers: map[string]string{"A b": "c"}},
		{URL: "http://h", Headers: map[string]string{"A": "c\r\nd: e"}}, {URL: "http://\x00"},
	} {
		if _, err := cl.Open(&spec.Version{}, spec.Instance{Address: addr, Endpoint: &e}); err == nil {
			t.Errorf("%+v accepted", e)
		}
	}
}
