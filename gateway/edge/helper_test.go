package edge_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/config"
)

// handlerFunc is a corridor made of one function.
type handlerFunc func(c *gateway.Call)

func (f handlerFunc) Do(c *gateway.Call) { f(c) }

// echo answers with what it was given, in the form the corpus tools know.
type echo struct {
	n     atomic.Uint64
	limit int64
}

type echoed struct {
	N    uint64      `json:"n"`
	M    string      `json:"m"`
	URI  string      `json:"uri"`
	Path string      `json:"path"`
	Host string      `json:"host"`
	Body string      `json:"body"`
	Hdr  [][2]string `json:"hdr"`
}

func (h *echo) Do(c *gateway.Call) {
	body, err := c.Body.Bytes(h.limit)
	if err != nil {
		c.Record.Outcome = gateway.RejectedBad
		gateway.WriteFault(c, err)

		return
	}

	e := echoed{
		N: h.n.Add(1), M: string(c.Method), URI: string(c.Target), Path: string(c.Path), Host: string(c.Host), Body: string(body),
	}
	c.Header.Each(func(name, value []byte) bool {
		e.Hdr = append(e.Hdr, [2]string{string(name), string(value)})

		return true
	})

	out, err := json.Marshal(e)
	if err != nil {
		gateway.WriteFault(c, err)

		return
	}

	c.Record.Outcome = gateway.Served
	c.Out.AddHeader("Content-Type", []byte("application/json"))
	c.Out.Set(200, out)
}

// logBuffer collects log lines.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.b.String()
}

// testConfig listens on loopback and drains at once.
func testConfig() edge.Config {
	cfg := edge.Defaults()
	cfg.HTTP = "127.0.0.1:0"
	cfg.Prefixes = []string{"/"}
	cfg.Drain = edge.Drain{Deadline: config.Duration(5 * time.Second)}

	return cfg
}

// running is an edge under test.
type running struct {
	*edge.Edge

	log  *logBuffer
	stop func() error // idempotent
}

// start runs an edge until the test ends.
func start(tb testing.TB, cfg edge.Config, h edge.Handler, change ...func(*edge.Deps)) *running {
	tb.Helper()

	log := &logBuffer{}
	deps := edge.Deps{Handler: h, Log: slog.New(slog.NewJSONHandler(log, &slog.HandlerOptions{Level: slog.LevelInfo}))}

	for _, f := range change {
		f(&deps)
	}

	e, err := edge.Listen(context.Background(), cfg, deps)
	if err != nil {
		tb.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- e.Run(ctx) }()

	r := &running{Edge: e, log: log, stop: sync.OnceValue(func() error {
		cancel()

		return <-done
	})}

	tb.Cleanup(func() {
		if err := r.stop(); err != nil {
			tb.Errorf("run: %v", err)
		}
	})

	return r
}

// dial connects to the HTTP door; every operation of the test is bounded.
func (r *running) dial(tb testing.TB) net.Conn {
	tb.Helper()

	return dialAddr(tb, r.HTTPAddr())
}

func dialAddr(tb testing.TB, addr string) net.Conn {
	tb.Helper()

	var d net.Dialer

	c, err := d.DialContext(tb.Context(), "tcp", addr)
	if err != nil {
		tb.Fatal(err)
	}

	tb.Cleanup(func() { _ = c.Close() })

	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		tb.Fatal(err)
	}

	return c
}

// send writes raw bytes and returns everything until the server closes.
func (r *running) send(tb testing.TB, raw string) string {
	tb.Helper()

	c := r.dial(tb)
	if _, err := io.WriteString(c, raw); err != nil {
		tb.Fatal(err)
	}

	b, err := io.ReadAll(c)
	if err != nil && len(b) == 0 {
		tb.Fatal(err)
	}

	return string(b)
}

// reply is a whole answer.
type reply struct {
	status int
	close  bool
	header http.Header
	body   string
}

// readReply reads one answer to a request that may have a body.
func readReply(tb testing.TB, br *bufio.Reader) reply {
	tb.Helper()

	res, err := http.ReadResponse(br, nil)
	if err != nil {
		tb.Fatal(err)
	}
	defer res.Body.Close()

	b, err := io.ReadAll(res.Body)
	if err != nil {
		tb.Fatal(err)
	}

	return reply{res.StatusCode, res.Close, res.Header, string(b)}
}

// ask sends raw and reads one answer.
func ask(tb testing.TB, c net.Conn, br *bufio.Reader, raw string) reply {
	tb.Helper()

	if _, err := io.WriteString(c, raw); err != nil {
		tb.Fatal(err)
	}

	return readReply(tb, br)
}

// eventually polls until ok, for what happens on another goroutine.
func eventually(tb testing.TB, what string, ok func() bool) {
	tb.Helper()

	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()

	for end := time.Now().Add(10 * time.Second); ; <-tick.C {
		if ok() {
			return
		}

		if time.Now().After(end) {
			tb.Fatalf("never happened: %s", what)
		}
	}
}

func ms(n int) config.Duration { return config.Duration(time.Duration(n) * time.Millisecond) }

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }

func insecure() *tls.Config { return &tls.Config{InsecureSkipVerify: true} }
