package edge_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
)

// drains runs an edge whose drain the test begins, and returns the channel of Run's result.
func drains(t *testing.T, cfg edge.Config, h edge.Handler, hooks edge.Hooks) (e *edge.Edge, begin func(), ended <-chan error) {
	t.Helper()

	e, err := edge.Listen(t.Context(), cfg, edge.Deps{Handler: h, Log: discard(), Hooks: hooks})
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)

	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()

	return e, cancel, done
}

func TestDrainAnswersWhatComesAndFinishesWhatRuns(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Drain = edge.Drain{Delay: ms(600), Deadline: ms(20_000)}

	running, release := make(chan struct{}, 1), make(chan struct{})
	e, begin, ended := drains(t, cfg, handlerFunc(func(c *gateway.Call) {
		if string(c.Path) == "/slow" {
			running <- struct{}{}
			<-release
		}

		c.Out.Set(200, []byte("done"))
	}), edge.Hooks{})

	slow := dialAddr(t, e.HTTPAddr())
	if _, err := io.WriteString(slow, "GET /slow HTTP/1.1\r\n"+hostLine+"\r\n"); err != nil {
		t.Fatal(err)
	}

	<-running

	idle := dialAddr(t, e.HTTPAddr())
	idleReader := bufio.NewReader(idle)
	get := func(c net.Conn, br *bufio.Reader, path string) reply {
		return ask(t, c, br, "GET "+path+" HTTP/1.1\r\n"+hostLine+"\r\n")
	}

	if res := get(idle, idleReader, "/t"); res.status != 200 || res.close {
		t.Fatalf("before: %d, close %v", res.status, res.close)
	}

	begin()

	// The doors stay open: readiness turns, and every answer asks to go elsewhere.
	fresh := func(path string) reply {
		c := dialAddr(t, e.HTTPAddr())
		defer c.Close()

		return get(c, bufio.NewReader(c), path)
	}

	eventually(t, "health turns 503", func() bool { return fresh("/health").status == 503 })

	if res := fresh("/t"); res.status != 200 || !res.close {
		t.Errorf("during, new connection: %d, close %v", res.status, res.close)
	}

	if res := get(idle, idleReader, "/t"); res.status != 200 || !res.close {
		t.Errorf("during, kept connection: %d, close %v", res.status, res.close)
	}

	eventually(t, "the door closes", func() bool {
		c, err := net.DialTimeout("tcp", e.HTTPAddr(), time.Second)
		if err == nil {
			_ = c.Close()
		}

		return err != nil
	})

	select {
	case err := <-ended:
		t.Fatalf("ended with a request in flight: %v", err)
	case <-time.After(100 * time.Millisecond):
	}

	close(release)

	if got, err := io.ReadAll(slow); err != nil || !strings.HasSuffix(string(got), "done") || !strings.Contains(string(got), "Connection: close") {
		t.Errorf("%q, %v", got, err)
	}

	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestDrainClosesIdleConnectionsAndCutsWhatDoesNotEnd(t *testing.T) {
	t.Parallel()

	for name, abort := range map[string]bool{"deadline": false, "abort": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			cfg := testConfig()
			cfg.Drain.Deadline = ms(300)

			if abort {
				cfg.Drain.Deadline = ms(60_000)
			}

			var cut atomic.Int64

			running := make(chan struct{}, 1)
			e, begin, ended := drains(t, cfg, handlerFunc(func(c *gateway.Call) {
				running <- struct{}{}
				<-c.Context.Done() // the hard end cancels
				c.Out.Set(200, []byte("too late"))
			}), edge.Hooks{Draining: func(_ bool, _, n int) { cut.Add(int64(n)) }})

			idle := dialAddr(t, e.HTTPAddr())
			if res := ask(t, idle, bufio.NewReader(idle), "GET /health HTTP/1.1\r\n"+hostLine+"\r\n"); res.status != 200 {
				t.Fatalf("before: %d", res.status)
			}

			busy := dialAddr(t, e.HTTPAddr())

			if _, err := io.WriteString(busy, "GET / HTTP/1.1\r\n"+hostLine+"\r\n"); err != nil {
				t.Fatal(err)
			}

			<-running
			begin()

			if got, err := io.ReadAll(idle); len(got) != 0 || isTimeout(err) {
				t.Errorf("idle: %q, %v", got, err)
			}

			if abort {
				e.Abort()
				e.Abort()
			}

			if got, err := io.ReadAll(busy); strings.Contains(string(got), "too late") || isTimeout(err) {
				t.Errorf("busy: %q, %v", got, err)
			}

			if err := <-ended; err != nil || cut.Load() != 1 {
				t.Errorf("%v, %d cut", err, cut.Load())
			}
		})
	}
}

func TestDrainWaitsForTheFirstRequestOfANewConnection(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Drain.Deadline = ms(60_000)
	e, begin, ended := drains(t, cfg, &echo{}, edge.Hooks{})

	late, silent := dialAddr(t, e.HTTPAddr()), dialAddr(t, e.HTTPAddr())

	begin()
	eventually(t, "the door closes", func() bool {
		c, err := net.DialTimeout("tcp", e.HTTPAddr(), time.Second)
		if err == nil {
			_ = c.Close()
		}

		return err != nil
	})

	if res := ask(t, late, bufio.NewReader(late), "GET /t HTTP/1.1\r\n"+hostLine+"\r\n"); res.status != 200 || !res.close {
		t.Errorf("first request after the door closed: %d, close %v", res.status, res.close)
	}

	if got, err := io.ReadAll(silent); len(got) != 0 || isTimeout(err) {
		t.Errorf("silent: %q, %v", got, err)
	}

	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestRunIsForOnce(t *testing.T) {
	t.Parallel()

	e, begin, ended := drains(t, testConfig(), &echo{}, edge.Hooks{})
	begin()

	if err := <-ended; err != nil {
		t.Fatal(err)
	}

	if err := e.Run(t.Context()); err == nil {
		t.Fatal("ran twice")
	}

	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestListenReportsATakenPort(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), &echo{})

	cfg := testConfig()
	cfg.HTTP = r.HTTPAddr()

	if _, err := edge.Listen(t.Context(), cfg, edge.Deps{Handler: &echo{}, Log: discard()}); err == nil {
		t.Fatal("listened twice")
	}
}

func TestDesertedDoorsCloseBeforeTheDelayIsOver(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Drain.Delay = ms(60_000)
	e, begin, ended := drains(t, cfg, &echo{}, edge.Hooks{})

	c := dialAddr(t, e.HTTPAddr())

	eventually(t, "counted", func() bool { return e.Connections() == 1 })
	begin()
	<-time.After(2200 * time.Millisecond)

	select {
	case err := <-ended:
		t.Fatalf("closed with a client connected: %v", err)
	default:
	}

	_ = c.Close()

	if err := <-ended; err != nil {
		t.Fatal(err)
	}
}
