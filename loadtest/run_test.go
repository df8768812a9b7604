package loadtest_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/measure"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixed sends the same bytes again and again.
type fixed string

func (f fixed) Append(dst []byte, _ int64) ([]byte, int) { return append(dst, f...), 0 }

const get = fixed("GET / HTTP/1.1\r\nHost: test\r\n\r\n")

// plan is a short closed loop against an address.
func plan(address string) loadtest.Plan {
	return loadtest.Plan{
		Name: "test", Endpoint: wire.Endpoint{Network: "tcp", Addresses: []string{address}, Timeout: time.Second},
		NewSource: func(int) wire.Source { return get }, Targets: []string{"test"},
		Concurrency: 4, Duration: 300 * time.Millisecond, Timeout: 5 * time.Second, Threads: 2,
	}
}

func run(t *testing.T, p loadtest.Plan) *loadtest.Result {
	t.Helper()

	res, err := loadtest.Run(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}

	if n := res.OK.Count() + res.Bad.Count(); n != res.Requests || res.Latency.Count() != n || res.Bad.Count() != res.Failed {
		t.Errorf("%d requests, %d failed, but %d and %d samples", res.Requests, res.Failed, res.OK.Count(), res.Bad.Count())
	}

	if n := res.Schedule.Count() + res.Wait.Count(); n > res.Requests {
		t.Errorf("%d starts of %d requests", n, res.Requests)
	}

	return res
}

func server(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()

	s := httptest.NewServer(h)
	t.Cleanup(s.Close)

	return s
}

func addressOf(s *httptest.Server) string { return s.Listener.Addr().String() }

func TestClosedLoopKeepsEveryCallerBusy(t *testing.T) {
	t.Parallel()

	var served, now, most atomic.Int64

	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		served.Add(1)

		if n := now.Add(1); n > most.Load() {
			most.Store(n)
		}

		wait(5 * time.Millisecond)
		now.Add(-1)
		io.WriteString(w, "hello")
	})

	res := run(t, plan(addressOf(s)))

	if res.Failed != 0 || res.Requests != served.Load() || res.Requests < 20 {
		t.Errorf("%d requests, %d failed, %d served: %v", res.Requests, res.Failed, served.Load(), res.Errors)
	}

	if most.Load() != 4 || res.Client.Connections != 4 {
		t.Errorf("%d at a time over %d connections, want 4", most.Load(), res.Client.Connections)
	}

	if res.Bytes != 5*res.Requests || res.Latency.Min() < 5*time.Millisecond {
		t.Errorf("%d bytes, least latency %v", res.Bytes, res.Latency.Min())
	}
}

// wait blocks for a time that a server injects.
func wait(d time.Duration) { <-time.After(d) }

func TestRequestLimitIsExact(t *testing.T) {
	t.Parallel()

	var served atomic.Int64

	s := server(t, func(http.ResponseWriter, *http.Request) { served.Add(1) })

	for _, rate := range []float64{0, 5000} {
		served.Store(0)

		p := plan(addressOf(s))
		p.Requests, p.Duration, p.Rate = 123, time.Minute, rate

		if res := run(t, p); res.Requests != 123 || served.Load() != 123 || res.Elapsed > 20*time.Second {
			t.Errorf("rate %v: %d requests, %d served in %v", rate, res.Requests, served.Load(), res.Elapsed)
		}
	}
}

func TestCeilingHoldsInAClosedLoop(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) {})
	p := plan(addressOf(s))
	p.MaxRate, p.Duration = 200, time.Second

	if res := run(t, p); res.Requests > 225 || res.Requests < 100 {
		t.Errorf("%d requests in a second, want 200", res.Requests)
	}
}

func TestErrorsOfServers(t *testing.T) {
	t.Parallel()

	hijack := func(do func(*net.TCPConn)) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			nc, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				panic(err)
			}

			do(nc.(*net.TCPConn))
			nc.Close()
		}
	}

	for name, tc := range map[string]struct {
		h    http.HandlerFunc
		want string
	}{
		"code": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"error_code":"APIG.0308","error_msg":"slow down"}`)
		}, "HTTP 429 APIG.0308"},
		"no code": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, "HTTP 502"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusFound)
		}, "HTTP 302"},
		"closed":  {hijack(func(*net.TCPConn) {}), "connection closed"},
		"reset":   {hijack(func(nc *net.TCPConn) { nc.SetLinger(0) }), "connection reset"},
		"garbage": {hijack(func(nc *net.TCPConn) { io.WriteString(nc, "hello, this is no HTTP\r\n\r\n") }), "malformed answer"},
		"half": {hijack(func(nc *net.TCPConn) {
			io.WriteString(nc, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
		}), "HTTP 200, connection closed"},
		"slow": {func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-r.Context().Done():
			case <-time.After(10 * time.Second):
			}
		}, "timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := server(t, tc.h)
			p := plan(addressOf(s))
			p.Requests, p.Duration, p.Timeout = 20, 10*time.Second, 200*time.Millisecond

			res := run(t, p)
			if res.Requests != 20 || res.Failed != 20 || len(res.Errors) != 1 || res.Errors[0].Text() != tc.want {
				t.Errorf("%d requests, %d failed: %+v, want %q", res.Requests, res.Failed, res.Errors, tc.want)
			}

			if name == "slow" && res.Bad.Min() < 200*time.Millisecond {
				t.Errorf("timed out after %v", res.Bad.Min())
			}
		})
	}
}

func TestConnectionsThatTheServerEnds(t *testing.T) {
	t.Parallel()

	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Connection", "close")
		io.WriteString(w, "bye")
	})
	p := plan(addressOf(s))
	p.Requests, p.Duration = 50, 20*time.Second

	if res := run(t, p); res.Failed != 0 || res.Client.Dials < 50 {
		t.Errorf("%d failed over %d connections: %v", res.Failed, res.Client.Dials, res.Errors)
	}
}

func TestAnswersOfEveryFraming(t *testing.T) {
	t.Parallel()

	big := strings.Repeat("0123456789abcdef", 40_000)

	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if n, err := io.Copy(io.Discard, r.Body); err != nil || n != int64(len(big)) {
			w.WriteHeader(http.StatusBadRequest)

			return
		}

		if r.Header.Get("Chunked") == "" {
			w.Header().Set("Content-Length", strconv.Itoa(len(big)))
		}

		io.WriteString(w, big)
	})

	for _, header := range []string{"", "Chunked: yes\r\n"} {
		p := plan(addressOf(s))
		p.Requests, p.Duration = 40, 30*time.Second
		body := fixed(fmt.Sprintf("POST / HTTP/1.1\r\nHost: test\r\n%sContent-Length: %d\r\n\r\n%s", header, len(big), big))
		p.NewSource = func(int) wire.Source { return body }

		if res := run(t, p); res.Failed != 0 || res.Bytes != 40*int64(len(big)) {
			t.Errorf("%q: %d failed, %d bytes: %v", header, res.Failed, res.Bytes, res.Errors)
		}
	}
}

func TestTLSAndUnixSockets(t *testing.T) {
	t.Parallel()

	big := strings.Repeat("0123456789abcdef", 20_000)
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.Copy(w, r.Body)
	})
	post := fixed(fmt.Sprintf("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n%s", len(big), big))

	t.Run("TLS", func(t *testing.T) {
		t.Parallel()

		s := httptest.NewTLSServer(h)
		t.Cleanup(s.Close)

		p := plan(addressOf(s))
		p.Endpoint.TLS = s.Client().Transport.(*http.Transport).TLSClientConfig.Clone()
		p.Endpoint.TLS.ServerName = "example.com"
		p.Requests, p.Duration = 50, 30*time.Second
		p.NewSource = func(int) wire.Source { return post }

		if res := run(t, p); res.Failed != 0 || res.Bytes != 50*int64(len(big)) {
			t.Errorf("%d failed, %d bytes: %v", res.Failed, res.Bytes, res.Errors)
		}

		p.Endpoint.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ServerName: "example.com"}

		var de *wire.DialError
		if _, err := loadtest.Run(t.Context(), p); !errors.As(err, &de) || de.Class != measure.TLSFailed {
			t.Errorf("an unknown certificate: %v", err)
		}
	})

	t.Run("unix", func(t *testing.T) {
		t.Parallel()

		path := filepath.Join(t.TempDir(), "s")

		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}

		s := httptest.NewUnstartedServer(h)
		s.Listener.Close()
		s.Listener = ln
		s.Start()
		t.Cleanup(s.Close)

		p := plan(path)
		p.Endpoint.Network = "unix"
		p.Requests, p.Duration = 50, 30*time.Second

		if res := run(t, p); res.Failed != 0 {
			t.Errorf("%v", res.Errors)
		}
	})
}

func TestWebSocketKeepsMessagesInFlight(t *testing.T) {
	t.Parallel()

	const inFlight = 8

	var most atomic.Int64

	up := websocket.Upgrader{}
	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Auth-Token") != "secret" {
			w.WriteHeader(http.StatusUnauthorized)

			return
		}

		ws, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer ws.Close()

		var pending sync.WaitGroup

		queue := make(chan []byte, 100)

		pending.Go(func() {
			for m := range queue {
				if n := int64(len(queue)) + 1; n > most.Load() {
					most.Store(n)
				}

				wait(2 * time.Millisecond)

				if ws.WriteMessage(websocket.TextMessage, m) != nil {
					return
				}
			}
		})
		defer pending.Wait()
		defer close(queue)

		for {
			_, m, err := ws.ReadMessage()
			if err != nil {
				return
			}

			queue <- m
		}
	})

	p := plan(addressOf(s))
	p.Concurrency, p.Threads, p.InFlight, p.Requests, p.Duration = 1, 1, inFlight, 200, 30*time.Second
	p.NewSource = func(int) wire.Source { return fixed(strings.Repeat("message", 40)) }
	token := "secret"
	p.Endpoint.Upgrade = func(dst []byte) []byte {
		return append(dst, "GET / HTTP/1.1\r\nHost: test\r\nX-Auth-Token: "+token+"\r\n"...)
	}

	res := run(t, p)
	if res.Failed != 0 || res.Requests != 200 || res.Bytes != 200*280 || res.Client.Connections != 1 {
		t.Errorf("%d requests, %d failed, %d bytes: %v", res.Requests, res.Failed, res.Bytes, res.Errors)
	}

	if most.Load() < inFlight-2 {
		t.Errorf("at most %d messages in flight, want %d", most.Load(), inFlight)
	}

	token = "wrong"

	var de *wire.DialError
	if _, err := loadtest.Run(t.Context(), p); !errors.As(err, &de) || de.Status != http.StatusUnauthorized {
		t.Errorf("a refused upgrade: %v", err)
	}
}

func TestStreamsAreTimedByEvent(t *testing.T) {
	t.Parallel()

	const first, between = 60 * time.Millisecond, 30 * time.Millisecond

	s := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.WriteHeader(http.StatusOK)

		c := http.NewResponseController(w)
		c.Flush() // the head comes long before the first event

		for i := range 4 {
			if i == 0 {
				wait(first)
			} else {
				wait(between)
			}

			fmt.Fprintf(w, "data: {\"token\":%d}\n\n", i)
			c.Flush()
		}
	})

	p := plan(addressOf(s))
	p.Stream, p.Requests, p.Duration = true, 12, 30*time.Second

	res := run(t, p)
	if res.Failed != 0 || res.FirstByte.Count() != 12 || res.Gap.Count() != 36 {
		t.Fatalf("%d failed, %d first events, %d gaps", res.Failed, res.FirstByte.Count(), res.Gap.Count())
	}

	if res.FirstByte.Min() < first || res.Gap.Quantile(0.5) < between || res.Latency.Min() < first+3*between {
		t.Errorf("first %v, gap %v, whole %v", res.FirstByte.Min(), res.Gap.Quantile(0.5), res.Latency.Min())
	}
}

// TestOpenLoopShowsAStall holds every answer back for one second. A closed loop with one caller notices it
// once; in the open loop, all requests that were meant to start meanwhile do.
func TestOpenLoopShowsAStall(t *testing.T) {
	t.Parallel()

	const stall = time.Second

	serverWith := func() *httptest.Server {
		var (
			mu    sync.Mutex
			count int
		)

		return server(t, func(http.ResponseWriter, *http.Request) {
			mu.Lock()
			defer mu.Unlock()

			if count++; count == 100 {
				wait(stall)
			}
		})
	}

	for _, connections := range []int{2, 1000} {
		p := plan(addressOf(serverWith()))
		p.Rate, p.Shape, p.Duration, p.Concurrency = 200, loadtest.Constant, 3*time.Second, connections

		res := run(t, p)
		if res.Requests != 600 || res.Failed != 0 {
			t.Fatalf("%d connections: %d requests, %d failed: %v", connections, res.Requests, res.Failed, res.Errors)
		}

		// 200 of 600 were meant to start in the stall; their latencies fall evenly from 1 s to 0.
		slow := res.Requests - res.Latency.CountUpTo(100*time.Millisecond)
		if slow < 170 || res.Latency.Max() < stall-20*time.Millisecond {
			t.Errorf("%d connections: %d slow requests, max %v", connections, slow, res.Latency.Max())
		}

		if p50ofSlow := res.Latency.Quantile(1 - 100.0/600); p50ofSlow < 400*time.Millisecond {
			t.Errorf("%d connections: the middle of the stalled requests took %v", connections, p50ofSlow)
		}

		// The stall is the server's fault, and stands apart from this tool's own lateness.
		if starved := connections == 2; starved != (res.Wait.Max() > stall/2) || res.Schedule.Max() > stall/2 {
			t.Errorf("%d connections: requests waited up to %v for one, and were otherwise up to %v late", connections, res.Wait.Max(), res.Schedule.Max())
		}
	}

	p := plan(addressOf(serverWith()))
	p.Concurrency, p.MaxRate, p.Duration = 1, 200, 3*time.Second

	if res := run(t, p); res.Requests-res.Latency.CountUpTo(100*time.Millisecond) > 10 || res.Latency.Max() < stall {
		t.Errorf("the closed loop: max %v", res.Latency.Max())
	}
}

func TestOpenLoopSendsTheSchedule(t *testing.T) {
	t.Parallel()

	s := server(t, func(http.ResponseWriter, *http.Request) {})

	for _, threads := range []int{1, 2} {
		p := plan(addressOf(s))
		p.Rate, p.Shape, p.Duration, p.Warmup, p.Threads, p.Concurrency = 1000, loadtest.Constant, time.Second, 200*time.Millisecond, threads, 100

		res := run(t, p)
		if res.Requests != 1000 || math.Abs(res.Rate-1000) > 30 || res.Failed != 0 {
			t.Errorf("%d threads: %d requests at %.0f a second", threads, res.Requests, res.Rate)
		}
	}
}
