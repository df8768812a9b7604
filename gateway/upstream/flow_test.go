package upstream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/spec"
)

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

			<-time.After(250 * time.Millisecond)
		}

		<-r.Context().Done() // and then it hangs
	})
	// The pieces take longer together than an answer may, and each takes an eighth of the pause that is allowed: a machine
	// that is busy delays them by much.
	b := newBench(t, upstream.Config{StreamIdle: 2 * time.Second})
	b.route.Policy.Limits.TimeoutSeconds = 0.8
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

		w.Header().Set("X-Length", strconv.FormatInt(r.ContentLength, 10))
		_, _ = w.Write(body)
	})
	b := newBench(t, upstream.Config{BufferBytes: 1 << 20})
	b.use(addr)

	for _, size := range []int{0, 1, 16 << 10, 16<<10 + 1, 100_000, 1 << 20, 3 << 20, 11 << 20} {
		body := strings.Repeat("0123456789abcdef", size/16+1)[:size]

		out := b.do("POST", "/v1/infers/svc", body)
		if out.Status != 200 || string(out.Body) != body || out.Header("X-Length") != strconv.Itoa(size) {
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
