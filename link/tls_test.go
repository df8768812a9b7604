package link_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/peer/peertest"
	"github.com/sluice-gateway/sluice/link"
)

// starter starts a server and returns a client of it.
type starter func(tb testing.TB, h link.Handler, cfg link.Config) (*link.Server, *link.Client)

// both runs a test on a Unix socket and over TCP with certificates of both sides.
func both(t *testing.T, f func(t *testing.T, serve starter)) {
	t.Helper()

	t.Run("unix", func(t *testing.T) {
		t.Parallel()
		f(t, serve)
	})
	t.Run("mutual TLS", func(t *testing.T) {
		t.Parallel()
		f(t, serveTLS)
	})
}

// serveTLS is serve over TCP, where client and server prove themselves to each other.
func serveTLS(tb testing.TB, h link.Handler, cfg link.Config) (*link.Server, *link.Client) {
	tb.Helper()

	a := peertest.Authority(tb, 1)
	s, address := listenTLS(tb, h, peertest.Worker(tb, a, "svc-1"))
	cfg.Network, cfg.Address, cfg.TLS = "tcp", address, a.To("svc-1")
	c := link.NewClient(cfg)
	tb.Cleanup(c.Close)

	return s, c
}

func listenTLS(tb testing.TB, h link.Handler, conf *tls.Config) (*link.Server, string) {
	tb.Helper()

	ln, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}

	s := link.NewServer(link.ServerConfig{OnPanic: func(any, []byte) {}, HandshakeTimeout: time.Second}, h)
	done := make(chan error, 1)

	go func() { done <- s.Serve(tls.NewListener(ln, conf)) }()

	tb.Cleanup(func() {
		s.Close()

		if err := <-done; err != nil {
			tb.Errorf("serve: %v", err)
		}
	})

	return s, ln.Addr().String()
}

func TestOnlyGatewaysAndTheRightWorkerMeet(t *testing.T) {
	t.Parallel()

	var handled atomic.Int64

	ours, strangers := peertest.Authority(t, 1), peertest.Authority(t, 2)
	asWorker := peertest.Worker(t, ours, "svc-2")
	_, address := listenTLS(t, func(r *link.Request) {
		handled.Add(1)
		r.Respond(200, nil, nil)
	}, peertest.Worker(t, ours, "svc-1"))

	with := func(conf *tls.Config, change func(*tls.Config)) *tls.Config {
		conf = conf.Clone()
		change(conf)

		return conf
	}

	for name, conf := range map[string]*tls.Config{
		"in the clear":        nil,
		"without certificate": with(ours.To("svc-1"), func(c *tls.Config) { c.GetClientCertificate = nil }),
		"of strangers": with(strangers.To("svc-1"), func(c *tls.Config) {
			c.RootCAs = ours.To("svc-1").RootCAs
		}),
		"with the certificate of a worker": with(ours.To("svc-1"), func(c *tls.Config) {
			c.GetClientCertificate = nil
			c.Certificates = asWorker.Certificates
		}),
		"for another worker":      ours.To("svc-2"),
		"strangers to our worker": strangers.To("svc-1"),
	} {
		c := link.NewClient(link.Config{Network: "tcp", Address: address, TLS: conf})

		var (
			ans link.Answer
			le  *link.Error
		)

		err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans)
		if !errors.As(err, &le) || le.Reached {
			t.Errorf("%s: %v, want a refusal that says that nothing was sent", name, err)
		}

		c.Close()
	}

	if n := handled.Load(); n != 0 {
		t.Errorf("%d calls of strangers were handled", n)
	}

	c := link.NewClient(link.Config{Network: "tcp", Address: address, TLS: ours.To("svc-1")})
	defer c.Close()

	var ans link.Answer
	if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/")}, &ans); err != nil {
		t.Errorf("a gateway: %v", err)
	}
}

// A client that connects and says nothing, or stops in the middle of its handshake, holds nothing up.
func TestUnfinishedHandshakesEnd(t *testing.T) {
	t.Parallel()

	a := peertest.Authority(t, 1)
	_, address := listenTLS(t, echo, peertest.Worker(t, a, "svc-1"))

	for _, hello := range []string{"", "\x16\x03\x01", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"} {
		nc, err := new(net.Dialer).DialContext(t.Context(), "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()

		if _, err := io.WriteString(nc, hello); err != nil {
			t.Fatal(err)
		}

		nc.SetReadDeadline(time.Now().Add(10 * time.Second))

		if _, err := io.Copy(io.Discard, nc); err != nil {
			t.Errorf("after %q: %v", hello, err)
		}
	}
}

// path is a network between a client and a server that can be cut in three ways.
type path struct {
	address string
	hole    atomic.Bool // nothing comes through any more, nothing ends
	mu      sync.Mutex
	conns   []net.Conn
}

func newPath(t *testing.T, to string) *path {
	t.Helper()

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	p := &path{address: ln.Addr().String()}

	var wg sync.WaitGroup

	wg.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}

			far, err := new(net.Dialer).DialContext(context.WithoutCancel(t.Context()), "tcp", to)
			if err != nil {
				near.Close()

				continue
			}

			p.mu.Lock()
			p.conns = append(p.conns, near, far)
			p.mu.Unlock()

			wg.Go(func() { p.pump(far, near) })
			wg.Go(func() { p.pump(near, far) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.reset()
		wg.Wait()
	})

	return p
}

func (p *path) pump(to, from net.Conn) {
	defer to.Close()
	defer from.Close()

	buf := make([]byte, 4<<10)

	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}

		if p.hole.Load() {
			continue
		}

		if _, err := to.Write(buf[:n]); err != nil {
			return
		}
	}
}

// reset ends all connections at once, in the middle of whatever they carry.
func (p *path) reset() {
	p.mu.Lock()
	defer p.mu.Unlock()

	for _, c := range p.conns {
		if tcp, ok := c.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}

		c.Close()
	}

	p.conns = nil
}

// Whatever happens to the network, each call ends once and soon, and the next ones find a new connection.
func TestTroubleOnTCPWithCertificates(t *testing.T) {
	t.Parallel()

	for name, trouble := range map[string]func(*path){
		"reset":      (*path).reset,
		"black hole": func(p *path) { p.hole.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			a := peertest.Authority(t, 1)
			waiting := make(chan struct{}, 100)
			_, address := listenTLS(t, func(r *link.Request) {
				if string(r.Path) == "/wait" {
					waiting <- struct{}{}

					<-r.Context().Done()
				}

				r.Respond(200, nil, r.Body)
			}, peertest.Worker(t, a, "svc-1"))

			p := newPath(t, address)
			c := link.NewClient(link.Config{
				Network: "tcp", Address: p.address, TLS: a.To("svc-1"), DeadAfter: 400 * time.Millisecond,
			})
			t.Cleanup(c.Close)

			ends := make(chan error, 100)

			for range 50 {
				go func() {
					var ans link.Answer
					ends <- c.Do(context.WithoutCancel(t.Context()), &link.Call{Method: []byte("POST"), Path: []byte("/wait"), Body: make([]byte, 30<<10)}, &ans)
				}()
			}

			for range 50 {
				<-waiting
			}

			began := time.Now()

			trouble(p)

			for range 50 {
				var le *link.Error
				if err := <-ends; !errors.As(err, &le) || !le.Reached {
					t.Errorf("got %v", err)
				}
			}

			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("the calls ended after %v", d)
			}

			p.hole.Store(false)
			p.reset()

			var ans link.Answer
			if err := c.Do(t.Context(), &link.Call{Method: []byte("POST"), Path: []byte("/"), Body: []byte("again")}, &ans); err != nil ||
				string(ans.Body) != "again" {
				t.Errorf("afterwards: %v %q", err, ans.Body)
			}

			if len(ends) != 0 {
				t.Error("a call ended twice")
			}
		})
	}
}

func BenchmarkCallTLS(b *testing.B) {
	_, c := serveTLS(b, echo, link.Config{})
	body := make([]byte, 256)

	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		var ans link.Answer

		call := link.Call{Method: []byte("POST"), Path: []byte("/"), Body: body}
		for pb.Next() {
			if err := c.Do(context.Background(), &call, &ans); err != nil {
				b.Error(err)

				return
			}
		}
	})
}
