package edge_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
)

// events streams n chunks, one for each token that a test puts into next.
type events struct {
	next  chan string // closed: the stream ends
	fail  error       // how it ends
	ended chan error
}

func newEvents() *events { return &events{next: make(chan string), ended: make(chan error, 1)} }

func (e *events) Do(c *gateway.Call) {
	c.Out.AddHeader("Content-Type", []byte("text/event-stream"))
	c.Out.Stream(200, func() ([]byte, error) {
		s, ok := <-e.next
		if !ok && e.fail != nil {
			return nil, e.fail
		}

		if !ok {
			return nil, io.EOF
		}

		return []byte(s), nil
	}, func(err error) { e.ended <- err })
}

func TestEachChunkOfAStreamIsSentAtOnce(t *testing.T) {
	t.Parallel()

	// A write time-out far shorter than the stream: it is for one chunk, not for all.
	cfg := testConfig()
	cfg.Timeouts.Write = ms(250)

	e := newEvents()
	r := start(t, cfg, e)

	res := get(t, r.dial(t), "GET /t HTTP/1.1\r\n"+hostLine+"\r\n")
	defer res.Body.Close()

	for i := range 5 {
		event := fmt.Sprintf("data: %d\n\n", i)
		e.next <- event

		got := make([]byte, len(event))
		if _, err := io.ReadFull(res.Body, got); err != nil || string(got) != event {
			t.Fatalf("%q, %v", got, err)
		}

		<-time.After(100 * time.Millisecond)
	}

	close(e.next)

	if rest, err := io.ReadAll(res.Body); err != nil || len(rest) != 0 {
		t.Fatalf("%q, %v", rest, err)
	}

	if err := <-e.ended; err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, c net.Conn, raw string) *http.Response {
	t.Helper()

	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}

	res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: raw[:strings.IndexByte(raw, ' ')]})
	if err != nil {
		t.Fatal(err)
	}

	return res
}

func TestABrokenStreamDoesNotEndAsIfItWereWhole(t *testing.T) {
	t.Parallel()

	e := newEvents()
	e.fail = errors.New("engine died")
	r := start(t, testConfig(), e)

	res := get(t, r.dial(t), "GET /t HTTP/1.1\r\n"+hostLine+"\r\n")
	defer res.Body.Close()

	e.next <- "data: 1\n\n"
	close(e.next)

	if _, err := io.ReadAll(res.Body); err == nil {
		t.Fatal("the client saw a whole answer")
	}

	if err := <-e.ended; !errors.Is(err, e.fail) {
		t.Fatal(err)
	}
}

func TestStreamForOldClientsAndHeads(t *testing.T) {
	t.Parallel()

	for raw, want := range map[string]string{
		"GET /t HTTP/1.0\r\n\r\n":                                       "onetwo",
		"GET /t HTTP/1.0\r\nConnection: keep-alive\r\n\r\n":             "onetwo",
		"HEAD /t HTTP/1.0\r\n\r\n":                                      "",
		"HEAD /t HTTP/1.1\r\n" + hostLine + "Connection: close\r\n\r\n": "",
	} {
		e := newEvents()
		r := start(t, testConfig(), e)

		go func() {
			defer close(e.next)

			for _, s := range []string{"one", "two"} {
				select {
				case e.next <- s:
				case <-t.Context().Done():
					return
				}

				if want == "" {
					return
				}
			}
		}()

		if want == "" {
			go func() { <-e.next }()
		}

		got := r.send(t, raw)
		head, body, _ := strings.Cut(got, "\r\n\r\n")

		if body != want || strings.Contains(head, "Content-Length") || strings.Contains(head, "chunked") && strings.Contains(raw, "1.0") ||
			!strings.Contains(head, "Connection: close") || !strings.Contains(head, "X-Request-Id: ") {
			t.Errorf("%q: %q", raw, got)
		}

		if err := <-e.ended; err != nil {
			t.Errorf("%q: ended with %v", raw, err)
		}
	}
}

// TestAClientThatVanishesCancelsItsCall holds for every way to vanish.
func TestAClientThatVanishesCancelsItsCall(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.HTTPS = "127.0.0.1:0"

	type seen struct {
		after  time.Duration
		child  error
		direct error
	}

	got := make(chan seen, 1)
	began := make(chan struct{}, 1)

	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		ctx, cancel := context.WithTimeout(c.Context, 10*time.Second)
		defer cancel()

		begin := time.Now()
		began <- struct{}{}

		<-ctx.Done()
		got <- seen{time.Since(begin), ctx.Err(), c.Context.Err()}

		c.Record.Outcome = gateway.ClientGone
		c.Out.Set(499, nil)
	}), withTLS(t))

	const request = "POST /t HTTP/1.1\r\n" + hostLine + "Content-Length: 2\r\n\r\nhi"

	for name, leave := range map[string]func() net.Conn{
		"closes": func() net.Conn {
			return dialAddr(t, r.HTTPAddr())
		},
		"closes TLS": func() net.Conn {
			c, err := tls.Dial("tcp", r.HTTPSAddr(), insecure())
			if err != nil {
				t.Fatal(err)
			}

			return c
		},
		"resets": func() net.Conn {
			c := dialAddr(t, r.HTTPAddr())
			if tcp, ok := c.(*net.TCPConn); !ok || tcp.SetLinger(0) != nil {
				t.Fatal("no linger")
			}

			return c
		},
	} {
		c := leave()
		// Bytes of a further request wait: the end behind them must be seen nevertheless.
		if _, err := io.WriteString(c, request+request[:20]); err != nil {
			t.Fatal(err)
		}

		<-began
		<-time.After(50 * time.Millisecond)
		_ = c.Close()

		s := <-got
		if s.after > 5*time.Second || !errors.Is(s.child, context.Canceled) || !errors.Is(s.direct, context.Canceled) {
			t.Errorf("%s: %+v", name, s)
		}
	}

	// Who stays is left alone.
	c := r.dial(t)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}

	<-began

	select {
	case s := <-got:
		t.Errorf("cancelled for no reason: %+v", s)
	case <-time.After(400 * time.Millisecond):
	}

	_ = c.Close()

	<-got
}
