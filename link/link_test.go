package link_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/link"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a server on a Unix socket and returns a client of it.
func serve(tb testing.TB, h link.Handler, cfg link.Config) (*link.Server, *link.Client) {
	tb.Helper()

	path := filepath.Join(tb.TempDir(), "l.sock")

	ln, err := new(net.ListenConfig).Listen(tb.Context(), "unix", path)
	if err != nil {
		tb.Fatal(err)
	}

	s := link.NewServer(link.ServerConfig{OnPanic: func(any, []byte) {}}, h)
	done := make(chan error, 1)

	go func() { done <- s.Serve(ln) }()

	cfg.Network, cfg.Address = "unix", path
	c := link.NewClient(cfg)

	tb.Cleanup(func() {
		c.Close()
		s.Close()

		if err := <-done; err != nil {
			tb.Errorf("serve: %v", err)
		}
	})

	return s, c
}

func echo(r *link.Request) {
	var h link.Header

	h.AddBytes([]byte("path"), r.Path)
	r.Header.Each(h.AddBytes)
	r.Respond(200, &h, r.Body)
}

func TestEveryCallGetsItsOwnAnswer(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		_, c := serve(t, echo, link.Config{Conns: 2})

		var wg sync.WaitGroup

		for g := range 32 {
			wg.Go(func() {
				var (
					call link.Call
					ans  link.Answer
				)

				for i := range 200 {
					body := bytes.Repeat(fmt.Appendf(nil, "%d-%d;", g, i), 1+i*7%500)
					call.Method, call.Path, call.Body = []byte("POST"), fmt.Appendf(nil, "/p/%d/%d", g, i), body
					call.Header.Reset()
					call.Header.Add("x-n", fmt.Appendf(nil, "%d", i))

					if err := c.Do(t.Context(), &call, &ans); err != nil {
						t.Errorf("%d/%d: %v", g, i, err)

						return
					}

					if ans.Status != 200 || !bytes.Equal(ans.Body, body) || !bytes.Equal(ans.Header.Get("path"), call.Path) ||
						string(ans.Header.Get("x-n")) != strconv.Itoa(i) {
						t.Errorf("%d/%d: an answer to another call", g, i)

						return
					}
				}
			})
		}

		wg.Wait()
	})
}

func TestAnswersComeInAnyOrder(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		release := make(chan struct{})
		_, c := serve(t, func(r *link.Request) {
			if string(r.Path) == "/slow" {
				<-release
			}

			r.Respond(200, nil, r.Path)
		}, link.Config{})

		slow := make(chan error, 1)

		go func() {
			var ans link.Answer
			slow <- c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/slow")}, &ans)
		}()

		for range 100 {
			var ans link.Answer
			if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/fast")}, &ans); err != nil {
				t.Fatal(err)
			}
		}

		close(release)

		if err := <-slow; err != nil {
			t.Fatal(err)
		}
	})
}

func TestCancelReachesTheHandlerAndLateAnswersAreDropped(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		started, cancelled := make(chan struct{}), make(chan struct{})
		_, c := serve(t, func(r *link.Request) {
			if string(r.Path) == "/wait" {
				close(started)
				<-r.Context().Done()
				close(cancelled)
			}

			r.Respond(200, nil, r.Path)
		}, link.Config{})

		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)

		go func() {
			var ans link.Answer
			result <- c.Do(ctx, &link.Call{Method: []byte("GET"), Path: []byte("/wait")}, &ans)
		}()

		<-started
		cancel()

		var le *link.Error
		if err := <-result; !errors.Is(err, context.Canceled) || !errors.As(err, &le) || !le.Reached {
			t.Fatalf("got %v", err)
		}

		<-cancelled

		for i := range 50 {
			var ans link.Answer

			path := fmt.Appendf(nil, "/%d", i)
			if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: path}, &ans); err != nil || !bytes.Equal(ans.Body, path) {
				t.Fatalf("after a cancel: %q, %v", ans.Body, err)
			}
		}
	})
}

func TestTimeoutEndsTheCallAndIsToldToTheWorker(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		seen := make(chan time.Duration, 1)
		_, c := serve(t, func(r *link.Request) {
			d, _ := r.Context().Deadline()
			seen <- time.Until(d)

			<-r.Context().Done()
			r.Respond(200, nil, nil)
		}, link.Config{})

		var ans link.Answer

		err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/"), Timeout: 80 * time.Millisecond}, &ans)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("got %v", err)
		}

		if d := <-seen; d <= 0 || d > 80*time.Millisecond {
			t.Fatalf("the worker saw %v left", d)
		}
	})
}

func TestPanicAnswersThatOneCall(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		_, c := serve(t, func(r *link.Request) {
			switch string(r.Path) {
			case "/panic":
				panic("boom")
			case "/late":
				r.Respond(200, nil, nil)
				panic("after the answer")
			}

			r.Respond(200, nil, r.Path)
		}, link.Config{})

		for i := range 200 {
			path, want := "/ok", 200

			switch i % 4 {
			case 0:
				path, want = "/panic", 500
			case 1:
				path = "/late"
			}

			var ans link.Answer
			if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte(path)}, &ans); err != nil || ans.Status != want {
				t.Fatalf("%s: %d, %v", path, ans.Status, err)
			}
		}
	})
}

func TestBusyWhenAllSlotsAreTaken(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		release := make(chan struct{})

		var waiting sync.WaitGroup

		waiting.Add(4)

		_, c := serve(t, func(r *link.Request) {
			waiting.Done()
			<-release
			r.Respond(200, nil, nil)
		}, link.Config{MaxInFlight: 4})

		var wg sync.WaitGroup

		for range 4 {
			wg.Go(func() {
				var ans link.Answer
				if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans); err != nil {
					t.Error(err)
				}
			})
		}

		waiting.Wait()

		var (
			ans link.Answer
			le  *link.Error
		)

		err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans)
		if !errors.Is(err, link.ErrBusy) || !errors.As(err, &le) || le.Reached {
			t.Errorf("got %v", err)
		}

		close(release)
		wg.Wait()
	})
}

func TestDrainStopsNewCallsAndFinishesOld(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		release, told := make(chan struct{}), make(chan struct{})
		started := make(chan struct{}, 1)
		s, c := serve(t, func(r *link.Request) {
			started <- struct{}{}

			<-release
			r.Respond(200, nil, nil)
		}, link.Config{OnDrain: func() { close(told) }})

		old := make(chan error, 1)

		go func() {
			var ans link.Answer
			old <- c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans)
		}()

		<-started
		s.Drain()
		<-told

		var (
			ans link.Answer
			le  *link.Error
		)

		if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans); !errors.Is(err, link.ErrDraining) ||
			!errors.As(err, &le) || le.Reached {
			t.Fatalf("got %v", err)
		}

		close(release)

		if err := <-old; err != nil {
			t.Fatalf("the old call: %v", err)
		}
	})
}

func TestServerGoneFailsEveryCallOnce(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		var inHandler atomic.Int64

		s, c := serve(t, func(r *link.Request) {
			inHandler.Add(1)
			<-r.Context().Done()
			r.Respond(200, nil, nil)
		}, link.Config{})

		errs := make(chan error, 64)

		for range 64 {
			go func() {
				var ans link.Answer
				errs <- c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans)
			}()
		}

		for tick := time.NewTicker(time.Millisecond); inHandler.Load() < 64; <-tick.C {
		}

		s.Close()

		for range 64 {
			var le *link.Error
			if err := <-errs; !errors.As(err, &le) || !le.Reached {
				t.Errorf("got %v", err)
			}
		}

		var (
			ans link.Answer
			le  *link.Error
		)

		err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans)
		if !errors.As(err, &le) || le.Reached {
			t.Errorf("call to a server that is gone: %v", err)
		}
	})
}

// TestBlackHoleIsNoticed talks to a peer that shakes hands and then says nothing.
func TestBlackHoleIsNoticed(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "l.sock")

	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", path)
	if err != nil {
		t.Fatal(err)
	}

	gone := make(chan struct{})

	go func() {
		defer close(gone)

		nc, err := ln.Accept()
		if err != nil {
			return
		}

		var p [8]byte

		io.ReadFull(nc, p[:])
		nc.Write([]byte{'S', 'L', 'N', 'K', 1, 1, 0, 0})
		io.Copy(io.Discard, nc)
		nc.Close()
	}()

	c := link.NewClient(link.Config{Network: "unix", Address: path, DeadAfter: 200 * time.Millisecond})
	defer c.Close()

	began := time.Now()

	var (
		ans link.Answer
		le  *link.Error
	)

	err = c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans)
	if !errors.Is(err, link.ErrDead) || !errors.As(err, &le) || !le.Reached {
		t.Errorf("got %v", err)
	}

	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("noticed after %v", d)
	}

	ln.Close()
	<-gone
}

func TestOversizeCallNeverReachesTheWire(t *testing.T) {
	t.Parallel()

	_, c := serve(t, echo, link.Config{})

	var (
		ans link.Answer
		le  *link.Error
	)

	big := link.Call{Method: []byte("POST"), Path: []byte("/"), Body: make([]byte, link.MaxBody+1)}
	if err := c.Do(t.Context(), &big, &ans); !errors.As(err, &le) || le.Reached || big.Fits() {
		t.Errorf("got %v", err)
	}
}

func TestLongAnswersComeInPieces(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, serve starter) { //nolint:thelper // the test itself
		const most = 1 << 20

		_, c := serve(t, func(r *link.Request) {
			n, err := strconv.Atoi(string(r.Body))
			if err != nil {
				n = 0
			}

			body := make([]byte, n)
			for i := range body {
				body[i] = byte(i * 7 >> 3)
			}

			r.Respond(200, nil, body)
		}, link.Config{MaxAnswer: most})

		var wg sync.WaitGroup

		for _, size := range []int{0, 1, link.MaxBody, link.MaxBody + 1, 3 * link.MaxBody, 777_777, most} {
			wg.Go(func() {
				var ans link.Answer

				for range 5 {
					call := link.Call{Method: []byte("POST"), Path: []byte("/"), Body: strconv.AppendInt(nil, int64(size), 10)}
					if err := c.Do(t.Context(), &call, &ans); err != nil || len(ans.Body) != size {
						t.Errorf("%d bytes: got %d, %v", size, len(ans.Body), err)

						return
					}

					for i, b := range ans.Body {
						if b != byte(i*7>>3) {
							t.Errorf("%d bytes: wrong at %d", size, i)

							return
						}
					}
				}
			})
		}

		wg.Wait()

		var ans link.Answer

		call := link.Call{Method: []byte("POST"), Path: []byte("/"), Body: strconv.AppendInt(nil, most+link.MaxBody*2, 10)}
		if err := c.Do(t.Context(), &call, &ans); !errors.Is(err, link.ErrAnswer) {
			t.Errorf("over the bound: %v", err)
		}
	})
}

// TestGarbageEndsOnlyItsConnection sends broken prefaces and frames beside a good client.
func TestGarbageEndsOnlyItsConnection(t *testing.T) {
	t.Parallel()

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	s := link.NewServer(link.ServerConfig{}, echo)
	done := make(chan error, 1)

	go func() { done <- s.Serve(ln) }()

	good := "SLNK\x01\x01\x00\x00"
	for _, garbage := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "SLNK\x02\x09\x00\x00", "SLNK\x09\x02\x00\x00",
		good + "\xff\xff\xff\xff", good + "\x00\x00\x00\x00", good + "\x02\x00\x00\x00\x01x",
		good + "\x09\x00\x00\x00\x02aaaaaaaa", good + "\x03\x00\x00\x00\x03xx",
	} {
		nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}

		nc.Write([]byte(garbage))
		nc.SetReadDeadline(time.Now().Add(5 * time.Second))

		if _, err := io.ReadAll(nc); err != nil && errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%q: the connection stays open", garbage)
		}

		nc.Close()
	}

	c := link.NewClient(link.Config{Network: "tcp", Address: ln.Addr().String()})

	var ans link.Answer
	if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans); err != nil || ans.Status != 200 {
		t.Errorf("the good client: %v", err)
	}

	c.Close()
	s.Close()

	if err := <-done; err != nil {
		t.Error(err)
	}
}

func BenchmarkCall(b *testing.B) {
	_, c := serve(b, func(r *link.Request) { r.Respond(200, nil, r.Body) }, link.Config{})
	body := make([]byte, 256)

	b.ReportAllocs()
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		call := link.Call{Method: []byte("POST"), Path: []byte("/v2/models/m/infer"), Body: body, Timeout: 10 * time.Second}

		var ans link.Answer
		for pb.Next() {
			if err := c.Do(context.Background(), &call, &ans); err != nil {
				b.Error(err)

				return
			}
		}
	})
}
