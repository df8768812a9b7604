package upstream_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/spec"
)

// much is more than the buffers of both sockets take.
var much = strings.Repeat("0123456789abcdef", 11<<20/16)

// TestEngineBehindTLSMayReadSlowly has an engine that pauses, for longer than the gateway lets one system call
// wait, while it has taken a part of the body.
func TestEngineBehindTLSMayReadSlowly(t *testing.T) {
	t.Parallel()

	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := io.CopyN(io.Discard, r.Body, 1000)
		<-time.After(400 * time.Millisecond)

		if err == nil {
			var more int64

			more, err = io.Copy(io.Discard, r.Body)
			n += more
		}

		if err != nil {
			t.Errorf("the engine read %d bytes: %v", n, err)
		}

		_, _ = io.WriteString(w, strconv.FormatInt(n, 10))
	}))
	s.StartTLS()
	t.Cleanup(s.Close)

	b := newBench(t, upstream.Config{})
	b.route.Versions[0].Engine, b.route.Versions[0].Protocol = spec.EngineCustom, "https"
	b.route.Policy.Limits.TimeoutSeconds = 8
	b.use(s.Listener.Addr().String())

	for range 2 { // the second one on the same connection
		if out := b.do("POST", "/v1/infers/svc", much); out.Status != 200 || string(out.Body) != strconv.Itoa(len(much)) {
			t.Fatalf("got %d %s", out.Status, out.Body)
		}
	}
}

// TestClientThatLeavesASlowEngineBehindTLS ends a request that waits for the engine to read.
func TestClientThatLeavesASlowEngineBehindTLS(t *testing.T) {
	t.Parallel()

	release := make(chan struct{})
	addr := serveTLS(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))

	t.Cleanup(func() { close(release) })

	b := newBench(t, upstream.Config{})
	b.route.Versions[0].Engine, b.route.Versions[0].Protocol = spec.EngineCustom, "https"
	b.use(addr)

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()

	c, _ := gatewaytest.NewCall(ctx, "POST", "/v1/infers/svc", []byte(much))
	start := time.Now()

	b.gateway.Do(c)

	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("it took %v to notice", d)
	}

	if rec := b.last.Load(); rec.Outcome != gateway.ClientGone {
		t.Errorf("record %+v", rec)
	}
}

// TestEngineMayAnswerWithoutReading has engines that answer while the body is under way and leave the connection open:
// one that has nothing more to say, and ones that will say more when they have read.
func TestEngineMayAnswerWithoutReading(t *testing.T) {
	t.Parallel()

	const refusal = "HTTP/1.1 413 Content Too Large\r\nContent-Length: 8\r\n\r\ntoo much"

	for name, tc := range map[string]struct {
		first, second string
		status        int
		body          string
	}{
		"refusal":                {refusal, "", 413, "too much"},
		"refusal behind interim": {"HTTP/1.1 102 Processing\r\n\r\n" + refusal, "", 413, "too much"},
		"interim":                {"HTTP/1.1 102 Processing\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone", 200, "done"},
		"half an answer":         {"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf", "full", 200, "halffull"},
		"stream":                 {"HTTP/1.1 200 OK\r\n\r\nbegin", "end", 200, "beginend"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			b := newBench(t, upstream.Config{})
			b.route.Versions[0].Engine = spec.EngineCustom
			b.route.Policy.Limits.TimeoutSeconds = 8
			b.use(answerEarly(t, tc.first, tc.second))

			start := time.Now()
			out := b.do("POST", "/v1/infers/svc", much)

			if out.Status != tc.status || string(out.Body) != tc.body {
				t.Errorf("got %d %q", out.Status, out.Body)
			}

			if d := time.Since(start); d > 4*time.Second {
				t.Errorf("it took %v", d)
			}
		})
	}
}

// answerEarly is an engine that reads the head of one request and says first. Half a second later it reads the rest and says
// second, unless that is empty: then it waits for the end of the test.
func answerEarly(t *testing.T, first, second string) string {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	done, ended := make(chan struct{}), make(chan struct{})

	t.Cleanup(func() {
		close(done)

		_ = l.Close()

		<-ended
	})

	go func() {
		defer close(ended)

		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()

		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			t.Error(err)

			return
		}

		_, _ = io.WriteString(c, first)

		if second == "" {
			<-done

			return
		}

		<-time.After(500 * time.Millisecond)

		if n, err := io.Copy(io.Discard, r.Body); err != nil {
			t.Errorf("the engine read %d bytes: %v", n, err)
		}

		_, _ = io.WriteString(c, second)
	}()

	return l.Addr().String()
}
