package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/sockio"
)

// door is one listener.
type door struct {
	edge *Edge
	kind Door
	ln   *net.TCPListener
	tls  *tls.Config // nil for HTTP
}

// listen opens a door.
func (e *Edge) listen(ctx context.Context, kind Door, addr string, conf *tls.Config) (*door, error) {
	lc := net.ListenConfig{KeepAlive: 30 * time.Second}

	ln, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("listen for %s: %w", kind, err)
	}

	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, errors.Join(fmt.Errorf("listen for %s: %q is not a TCP address", kind, addr), ln.Close())
	}

	return &door{edge: e, kind: kind, ln: tcp, tls: conf}, nil
}

const maxAcceptPause = time.Second

// accept takes connections until the listener is closed.
func (d *door) accept(ctx context.Context) {
	pause := time.Duration(0)

	for {
		sock, err := d.ln.AcceptTCP()
		if err == nil {
			pause = 0

			d.admit(sock)

			continue
		}

		if errors.Is(err, net.ErrClosed) {
			return
		}

		// Out of descriptors or a connection that died in the queue: try again, slower each time.
		pause = min(max(2*pause, 5*time.Millisecond), maxAcceptPause)
		d.edge.log.Warn("edge cannot accept", slog.String("door", d.kind.String()), slog.String("err", err.Error()),
			slog.Int64("pause_ms", pause.Milliseconds()))

		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()

			return
		case <-timer.C:
		}
	}
}

// admit starts a connection, or turns it away when there are too many.
func (d *door) admit(sock *net.TCPConn) {
	e := d.edge
	remote, _ := netip.ParseAddrPort(sock.RemoteAddr().String())

	if a, ok := sock.RemoteAddr().(*net.TCPAddr); ok {
		remote = a.AddrPort()
	}

	c := &conn{
		Conn: sock, socket: sock, door: d, fd: descriptor(sock), born: time.Now(),
		remote: netip.AddrPortFrom(remote.Addr().Unmap(), remote.Port()),
	}

	if d.tls == nil {
		c.now = sockio.New(sock)
	} else {
		c.Conn = tls.Server(sockio.Wrap(sock), d.tls)
	}

	c.in = sockio.NewReader(c.Conn)

	if why, ok := e.remember(c); !ok {
		e.hooks.Refused(d.kind, why)
		d.turnAway(sock, why)

		return
	}

	e.hooks.Opened(d.kind)
	e.conns.running.Go(c.serve)
}

// turnAway answers in clear text where that is possible without waiting.
func (d *door) turnAway(sock *net.TCPConn, why Refusal) {
	if d.tls == nil {
		f := fault.New(fault.Overloaded, "Too many connections.").After(time.Second)
		if why == RefusedSource {
			f = fault.New(fault.TooManyRequests, "Too many connections from one source.").After(time.Second)
		}

		var g ids

		if sock.SetWriteDeadline(time.Now().Add(100*time.Millisecond)) == nil {
			_, _ = sock.Write(d.edge.rawAnswer(f, g.next(), d.kind))
		}
	}

	_ = sock.Close() // nobody is left to tell
}

// handshake runs TLS under its own deadline.
func (d *door) handshake(c *conn) bool {
	t, ok := c.Conn.(*tls.Conn)
	if !ok {
		return true
	}

	limit := time.Now().Add(d.edge.cfg.Timeouts.Handshake.D())
	if c.socket.SetDeadline(limit) != nil {
		return false
	}

	if err := t.HandshakeContext(context.Background()); err != nil {
		d.explain(c, err)
		d.edge.log.Debug("edge TLS handshake failed", slog.String("remote", c.remote.String()), slog.String("err", err.Error()))

		return false
	}

	return c.socket.SetDeadline(time.Time{}) == nil
}

// explain answers a client that speaks plain HTTP to the HTTPS door, in plain HTTP.
func (d *door) explain(c *conn, err error) {
	var record tls.RecordHeaderError
	if !errors.As(err, &record) || !fault.SpeaksHTTP(record.RecordHeader[:]) {
		return
	}

	var g ids

	c.Conn, c.linger = c.socket, true
	_, _ = c.socket.Write(d.edge.rawAnswer(fault.New(fault.BadRequest, fault.PlainOnTLS), g.next(), DoorHTTP)) // the connection ends anyhow
}

// handshakeShare is what the first head may take longer because of TLS.
func (d *door) handshakeShare() time.Duration {
	if d.tls == nil {
		return 0
	}

	return d.edge.cfg.Timeouts.Handshake.D()
}

// readerSize is that of fasthttp's read buffer: an extract of a head is short.
const readerSize = 512

func (e *Edge) newServer() *fasthttp.Server {
	return &fasthttp.Server{
		Handler:                       e.handle,
		ErrorHandler:                  e.handleError,
		Name:                          "",
		NoDefaultServerHeader:         true,
		NoDefaultContentType:          true,
		DisableHeaderNamesNormalizing: true,    // those of answers go as they come
		Concurrency:                   1 << 30, // counted by connSet
		ReadBufferSize:                readerSize,
		WriteBufferSize:               4 << 10,
		MaxRequestBodySize:            1, // bodies never reach fasthttp
		DisablePreParseMultipartForm:  true,
		LazyRequestTime:               true,
		SecureErrorLogMessage:         true,
		Logger:                        quietLogger{},
	}
}

// quietLogger drops fasthttp's own messages: what it can complain about is judged and logged by conn.
type quietLogger struct{}

// Printf implements fasthttp.Logger.
func (quietLogger) Printf(string, ...any) {}

// connSet knows every connection.
type connSet struct {
	mu      sync.Mutex // guards the maps and last
	all     map[*conn]struct{}
	sources map[netip.Addr]int
	last    time.Time // when the last one came

	running sync.WaitGroup
}

// remember counts a connection in, within the limits.
func (e *Edge) remember(c *conn) (Refusal, bool) {
	s, l := &e.conns, &e.cfg.Limits
	src := source(c.remote.Addr())

	s.mu.Lock()
	defer s.mu.Unlock()

	if l.Connections > 0 && len(s.all) >= l.Connections {
		return RefusedTotal, false
	}

	if l.ConnectionsPerSource > 0 && s.sources[src] >= l.ConnectionsPerSource {
		return RefusedSource, false
	}

	s.all[c] = struct{}{}
	s.last = c.born
	s.sources[src]++

	return 0, true
}

func (e *Edge) forget(c *conn) {
	s := &e.conns
	src := source(c.remote.Addr())

	s.mu.Lock()
	delete(s.all, c)

	if s.sources[src]--; s.sources[src] <= 0 {
		delete(s.sources, src)
	}
	s.mu.Unlock()

	e.hooks.Closed(c.door.kind, time.Since(c.born))
}

// count is the number of open connections.
func (s *connSet) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()

	return len(s.all)
}

// latest is when the last connection came.
func (s *connSet) latest() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.last
}

// each calls f for every connection, under the lock.
func (s *connSet) each(f func(c *conn)) {
	s.mu.Lock()
	defer s.mu.Unlock()

	for c := range s.all {
		f(c)
	}
}

// source is what connections are counted by: an IPv4 address or an IPv6 /64.
func source(a netip.Addr) netip.Addr {
	if a.Is6() && !a.Is4In6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}

	return a
}

// handle is fasthttp's handler: the exchange is known by the connection.
func (e *Edge) handle(ctx *fasthttp.RequestCtx) {
	c, ok := ctx.Conn().(*conn)
	if !ok {
		panic("BUG: a request on a foreign connection")
	}

	c.x.serve(ctx)
}

// handleError answers what fasthttp refuses although the guard let it in.
func (e *Edge) handleError(ctx *fasthttp.RequestCtx, err error) {
	c, ok := ctx.Conn().(*conn)
	if !ok || c.x == nil {
		return
	}

	f := fault.Wrap(fault.BadRequest, err, "")
	id := c.x.ids.next()
	c.ending, c.linger = true, true
	e.hooks.Rejected(c.door.kind, f.Code)
	e.access.rejected(c, f, id)

	ctx.Response.Reset()
	e.ownHeaders(&ctx.Response.Header, id, c.door.kind)
	ctx.Response.Header.SetContentType("application/json")
	ctx.Response.SetStatusCode(f.Code.Status())
	ctx.Response.SetBody(gateway.FaultBody(nil, f, id, false))
}
