package edge

import (
	"bytes"
	"net/netip"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router/pool"
)

// serve answers one request; fasthttp writes the answer after it returned.
func (x *exchange) serve(ctx *fasthttp.RequestCtx) {
	c := x.conn
	e := c.door.edge

	x.body.prepare(x)
	x.out.prepare(x, &ctx.Response)
	x.fill()

	x.active = true
	e.inflight.Add(1)
	e.hooks.Started(c.door.kind)

	c.mu.Lock()
	c.busy = x
	c.mu.Unlock()

	x.guarded()
	x.commit(ctx)
}

func (x *exchange) fill() {
	c := x.conn
	h := &x.head

	x.call.ID = x.id()
	x.call.Method, x.call.Target, x.call.Path, x.call.Query, x.call.Host = h.Method, h.Target, h.Path, h.Query, h.Host
	x.call.Header, x.call.Body, x.call.Out = h, &x.body, &x.out
	x.call.Remote = c.door.edge.client(c.remote, h)
	x.call.TLS = c.door.kind == DoorHTTPS
	x.call.Start = x.start
	x.call.Context = x.ctx //nolint:fatcontext // one context for one call
}

// guarded runs the request; a panic becomes its 500.
func (x *exchange) guarded() {
	defer func() {
		v := recover()
		if v == nil {
			return
		}

		x.conn.door.edge.panicked(v, x.call.ID)
		x.dropUpgrade(pool.Neutral)
		x.seat.leave()
		x.out.takeBack()
		gateway.WriteFault(&x.call, fault.New(fault.Internal, ""))
		x.call.Record.Outcome = gateway.Panicked
		x.conn.ending = true
	}()

	x.route()

	if !x.out.answered && !x.upgraded() {
		gateway.WriteFault(&x.call, fault.New(fault.Internal, "BUG: no answer"))
	}
}

// upgraded reports whether the call became a WebSocket.
func (x *exchange) upgraded() bool { return x.call.Upgrade != nil && x.call.Upgrade.Conn != nil }

// route sends the call into the corridor, or answers what is the door's own.
func (x *exchange) route() {
	e := x.conn.door.edge
	call := &x.call

	if e.cfg.HealthPath != "" && string(call.Path) == e.cfg.HealthPath {
		x.answerHealth()

		return
	}

	if e.cfg.RedirectToHTTPS && !call.TLS {
		x.redirect()

		return
	}

	if string(call.Path) == "*" {
		call.Out.AddHeader("Allow", []byte("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"))
		x.own(fasthttp.StatusNoContent, nil)

		return
	}

	for _, p := range e.cfg.Prefixes {
		if len(call.Path) >= len(p) && string(call.Path[:len(p)]) == p {
			if x.asksWebSocket() {
				x.handshake()
			} else {
				e.handler.Do(call)
			}

			return
		}
	}

	call.Record.Outcome = gateway.RejectedNotFound
	gateway.WriteFault(call, fault.New(fault.APINotFound, ""))
}

// own gives an answer of the door itself.
func (x *exchange) own(status int, body []byte) {
	x.call.Record.Outcome = gateway.Served
	x.call.Out.Set(status, body)
}

func (x *exchange) answerHealth() {
	x.health = true
	e := x.conn.door.edge

	if m := string(x.call.Method); m != "GET" && m != "HEAD" {
		x.call.Out.AddHeader("Allow", []byte("GET, HEAD"))
		x.call.Record.Outcome = gateway.RejectedBad
		gateway.WriteFault(&x.call, fault.New(fault.MethodNotAllowed, ""))

		return
	}

	x.call.Out.AddHeader("Content-Type", []byte("application/json"))
	x.call.Out.AddHeader("Cache-Control", []byte("no-store"))

	switch {
	case e.draining.Load():
		x.own(fasthttp.StatusServiceUnavailable, []byte(`{"health":"false","state":"draining"}`))
	case !e.ready():
		x.own(fasthttp.StatusServiceUnavailable, []byte(`{"health":"false","state":"starting"}`))
	default:
		x.own(fasthttp.StatusOK, []byte(`{"health":"true"}`))
	}
}

// redirect points at the HTTPS door with the same host and target; 308 keeps method and body.
func (x *exchange) redirect() {
	host := x.head.Host
	if i := bytes.LastIndexByte(host, ':'); i >= 0 && bytes.IndexByte(host[i:], ']') < 0 {
		host = host[:i]
	}

	if len(host) == 0 {
		x.call.Record.Outcome = gateway.RejectedBad
		gateway.WriteFault(&x.call, fault.New(fault.TLSRequired, ""))

		return
	}

	to := append([]byte("https://"), host...)

	if port := x.conn.door.edge.redirectPort(); port != httpsPort {
		to = strconv.AppendUint(append(to, ':'), uint64(port), 10)
	}

	to = append(to, x.call.Path...)
	if x.call.Query != nil {
		to = append(append(to, '?'), x.call.Query...)
	}

	x.call.Out.AddHeader("Location", to)
	x.own(fasthttp.StatusPermanentRedirect, nil)
}

// httpsPort is the one that needs no mention.
const httpsPort = 443

// redirectPort is the port that clients know the HTTPS door by.
func (e *Edge) redirectPort() uint16 {
	if e.cfg.RedirectPort > 0 {
		return uint16(e.cfg.RedirectPort)
	}

	at, err := netip.ParseAddrPort(e.HTTPSAddr())
	if err != nil {
		return httpsPort
	}

	return at.Port()
}

// commit completes the answer and decides whether the connection goes on.
func (x *exchange) commit(ctx *fasthttp.RequestCtx) {
	c := x.conn
	e := c.door.edge
	res := &ctx.Response

	if x.upgraded() {
		x.switchOver(ctx)

		return
	}

	e.ownHeaders(&res.Header, x.call.ID, c.door.kind)

	unread := !x.body.keepsConnection()
	lim := &e.cfg.Limits

	if unread || c.ending || x.head.Close || x.body.err != nil || e.draining.Load() ||
		lim.RequestsPerConnection > 0 && c.requests >= lim.RequestsPerConnection || c.aged() {
		res.SetConnectionClose()

		c.ending = true
		c.linger = c.linger || unread
	}

	x.out.start(ctx)
}

// aged reports that the connection is older than it may become.
func (c *conn) aged() bool {
	most := c.door.edge.cfg.Timeouts.ConnectionAge.D()

	return most > 0 && c.x.start.Sub(c.born) > most
}

// ownHeaders adds what every answer carries.
func (e *Edge) ownHeaders(h *fasthttp.ResponseHeader, id string, kind Door) {
	h.Add("X-Request-Id", id)
	h.Add("X-Content-Type-Options", "nosniff")

	if hsts := e.hsts(kind); hsts != "" {
		h.Add("Strict-Transport-Security", hsts)
	}
}

func (e *Edge) hsts(kind Door) string {
	if kind != DoorHTTPS {
		return ""
	}

	return e.hstsValue
}

// refuse answers a request that the guard turned away, past fasthttp, which never saw it.
func (c *conn) refuse(f *fault.Error) {
	e := c.door.edge
	id := c.x.ids.next()

	c.ending, c.linger = true, true

	_, _ = c.Write(e.rawAnswer(f, id, c.door.kind)) // a failure ends the connection as well

	e.hooks.Rejected(c.door.kind, f.Code)
	e.access.rejected(c, f, id)
}

// rawAnswer renders a whole answer that ends the connection.
func (e *Edge) rawAnswer(f *fault.Error, id string, kind Door) []byte {
	body := gateway.FaultBody(nil, f, id, false)

	b := make([]byte, 0, 512+len(body))
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(f.Code.Status()), 10)
	b = append(b, ' ')
	b = append(b, fasthttp.StatusMessage(f.Code.Status())...)
	b = append(b, "\r\nDate: "...)
	b = fasthttp.AppendHTTPDate(b, time.Now())
	b = append(b, "\r\nContent-Type: application/json\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(body)), 10)
	b = append(b, "\r\nConnection: close\r\nX-Content-Type-Options: nosniff\r\nX-Request-Id: "...)
	b = append(b, id...)

	if f.Code == fault.MethodNotAllowed {
		b = append(b, "\r\nAllow: GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"...)
	}

	if f.RetryAfter > 0 {
		b = append(b, "\r\nRetry-After: "...)
		b = strconv.AppendInt(b, int64((f.RetryAfter+time.Second-1)/time.Second), 10)
	}

	if hsts := e.hsts(kind); hsts != "" {
		b = append(b, "\r\nStrict-Transport-Security: "...)
		b = append(b, hsts...)
	}

	b = append(b, "\r\n\r\n"...)

	return append(b, body...)
}
