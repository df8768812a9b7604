package edge

import (
	"bytes"
	"strings"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/tunnel"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/wsframe"
	"github.com/sluice-gateway/sluice/router/pool"
)

// asksWebSocket reports whether the request is a WebSocket handshake, right or wrong.
func (x *exchange) asksWebSocket() bool {
	return x.head.WebSocket && (x.head.Switch || x.head.Get("sec-websocket-key") != nil)
}

// handshake lets a WebSocket handshake into the corridor, or refuses it. Whatever comes of it, this connection
// carries no further request: what a client sends behind a handshake may be frames.
func (x *exchange) handshake() {
	x.conn.ending = true

	if err := x.checkHandshake(); err != nil {
		x.call.Record.Outcome = gateway.RejectedBad
		gateway.WriteFault(&x.call, err)

		return
	}

	e := x.conn.door.edge

	seat, err := e.seats.take(source(x.conn.remote.Addr()), &e.cfg.WebSocket)
	if err != nil {
		x.call.Record.Outcome = gateway.RejectedOverload
		gateway.WriteFault(&x.call, err)

		return
	}

	x.seat = seat
	x.call.Upgrade = &gateway.Upgrade{Admit: x.seat.admit}
	e.handler.Do(&x.call)

	if x.call.Upgrade.Conn == nil {
		x.seat.leave()
	}
}

var (
	errWSMethod     = fault.New(fault.MethodNotAllowed, "A WebSocket handshake must be a GET request.")
	errWSBody       = fault.New(fault.HandshakeInvalid, "A WebSocket handshake must not have a body.")
	errWSConnection = fault.New(fault.HandshakeInvalid, "The Connection header of a WebSocket handshake must name Upgrade.")
	errWSOld        = fault.New(fault.HandshakeInvalid, "A WebSocket handshake must be made in HTTP/1.1.")
	errWSVersion    = fault.New(fault.HandshakeVersion, "")
	errWSKey        = fault.New(fault.HandshakeInvalid, "The Sec-WebSocket-Key header must appear once and be 16 bytes in base64.")
	errWSProtocol   = fault.New(fault.HandshakeInvalid, "The Sec-WebSocket-Protocol header must be a list of different names.")
	errWSOrigin     = fault.New(fault.OriginDenied, "")
	errWSDraining   = fault.New(fault.ShuttingDown, "").After(time.Second)
)

// checkHandshake judges what RFC 6455 4.2.1 asks of a client.
func (x *exchange) checkHandshake() error {
	h, e := &x.head, x.conn.door.edge

	switch {
	case string(h.Method) != "GET":
		x.call.Out.AddHeader("Allow", []byte("GET"))

		return errWSMethod
	case h.HTTP10:
		return errWSOld
	case !h.Switch:
		return errWSConnection
	case h.Length != 0:
		return errWSBody
	}

	keys, versions, asked := 0, 0, 0

	for i := range h.Count() {
		name, value := h.Field(i)

		switch {
		case fold(name, "sec-websocket-key"):
			if keys++; keys > 1 || !wsframe.ValidKey(value) {
				return errWSKey
			}
		case fold(name, "sec-websocket-version"):
			if versions++; string(value) != wsframe.Version {
				versions = 2
			}
		case fold(name, "sec-websocket-protocol"):
			if asked++; !tokens(value) {
				return errWSProtocol
			}
		}
	}

	switch {
	case versions != 1:
		x.out.res.Header.Set("Sec-WebSocket-Version", wsframe.Version)
		x.out.res.Header.Set("Upgrade", "websocket")

		return errWSVersion
	case keys != 1:
		return errWSKey
	case !e.originAllowed(h.Get("origin"), h.Host):
		return errWSOrigin
	case e.draining.Load():
		return errWSDraining
	}

	return nil
}

func fold(name []byte, lower string) bool {
	return len(name) == len(lower) && bytes.EqualFold(name, []byte(lower))
}

// tokens reports whether a list of subprotocols is one of tokens, none of them twice.
func tokens(list []byte) bool {
	var seen [][]byte

	for item := range bytes.SplitSeq(list, []byte{','}) {
		item = bytes.Trim(item, " \t")
		if len(item) == 0 || len(seen) == maxProtocols {
			return false
		}

		for _, c := range item {
			if c <= ' ' || c >= 0x7f || bytes.IndexByte([]byte(`()<>@,;:\"/[]?={}`), c) >= 0 {
				return false
			}
		}

		for _, s := range seen {
			if bytes.Equal(s, item) {
				return false
			}
		}

		seen = append(seen, item)
	}

	return true
}

const maxProtocols = 32

// originAllowed reports whether a page of this origin may connect. A client that is no browser sends none.
func (e *Edge) originAllowed(origin, host []byte) bool {
	if len(origin) == 0 {
		return true
	}

	o := strings.ToLower(string(origin))
	if _, at, ok := strings.Cut(o, "://"); ok && at == strings.ToLower(string(host)) {
		return true
	}

	for _, pattern := range e.cfg.WebSocket.Origins {
		if matchOrigin(strings.ToLower(pattern), o) {
			return true
		}
	}

	return false
}

// matchOrigin knows "*", whole origins, and "https://*.example.com".
func matchOrigin(pattern, origin string) bool {
	if pattern == "*" || pattern == origin {
		return true
	}

	scheme, rest, ok := strings.Cut(pattern, "://*.")
	if !ok {
		return false
	}

	host, found := strings.CutPrefix(origin, scheme+"://")

	return found && strings.HasSuffix(host, "."+rest) && len(host) > len(rest)+1
}

// websocket is what is kept of an exchange while its WebSocket lives.
type websocket struct {
	line  logLine
	up    *gateway.Upgrade
	seat  seat
	early []byte
}

// switchOver answers the handshake of a call whose engine agreed. The connection leaves fasthttp then.
func (x *exchange) switchOver(ctx *fasthttp.RequestCtx) {
	c, up := x.conn, x.call.Upgrade

	_, err := c.Write(x.switching(up))

	// fasthttp writes an answer as well; it goes nowhere.
	c.mute = true
	ctx.Response.SetConnectionClose()

	if err != nil {
		x.dropUpgrade(pool.Neutral)
		x.call.Record.Outcome, x.call.Record.Err = gateway.ClientGone, err

		return
	}

	x.call.Record.Status = fasthttp.StatusSwitchingProtocols
	up.Admit = nil // it refers to the exchange
	c.ws = &websocket{line: x.logLine(), up: up, seat: x.seat}
}

// switching is the head of the answer.
func (x *exchange) switching(up *gateway.Upgrade) []byte {
	b := make([]byte, 0, 512)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = wsframe.AppendAccept(b, x.head.Get("sec-websocket-key"))

	for _, h := range [][2]string{{"Sec-WebSocket-Protocol", up.Protocol}, {"Sec-WebSocket-Extensions", up.Extensions}} {
		if h[1] != "" {
			b = append(append(append(append(b, "\r\n"...), h[0]...), ": "...), h[1]...)
		}
	}

	// What the corridor said about limits and about the instance.
	for name, value := range x.out.res.Header.All() {
		if len(name) > 2 && (name[0] == 'X' || name[0] == 'x') && name[1] == '-' {
			b = append(append(append(append(b, "\r\n"...), name...), ": "...), value...)
		}
	}

	b = append(append(b, "\r\nX-Request-Id: "...), x.call.ID...)

	return append(b, "\r\n\r\n"...)
}

// dropUpgrade gives back what an upgrade holds that came to nothing.
func (x *exchange) dropUpgrade(o pool.Outcome) {
	up := x.call.Upgrade
	if up == nil || up.Conn == nil {
		return
	}

	_ = up.Conn.Close() // nothing was said on it

	up.Conn = nil
	up.Settle(o)
	x.seat.leave()
}

// tunnel starts to relay. The connection's own goroutine ends; what follows is up to the tunnel.
func (c *conn) tunnel() {
	ws, e := c.ws, c.door.edge
	up := ws.up

	spec := tunnel.Spec{
		Client:  tunnel.End{Conn: c.Conn, Early: ws.early},
		Engine:  tunnel.End{Conn: up.Conn, Socket: up.Socket, Early: up.Early},
		Deflate: up.Deflate, MaxMessage: up.MaxMessage,
		Done: c.closed,
	}
	if c.socket != nil {
		spec.Client.Socket = c.socket
	}

	ws.early, up.Early = nil, nil

	if !e.tunnels.Open(&spec) {
		_ = up.Conn.Close() // the doors are shut

		c.closed(tunnel.Result{Code: wsframe.CodeGoingAway, Local: true, Broken: true, Reason: "the gateway has shut down"})
	}
}

// closed settles a WebSocket and ends its connection.
func (c *conn) closed(r tunnel.Result) {
	e, ws := c.door.edge, c.ws
	rec := &ws.line.record

	ws.up.Settle(settled(rec, &r))
	ws.seat.leave()

	rec.CloseCode = uint16(r.Code)
	rec.MessagesIn, rec.MessagesOut = r.Messages[tunnel.Client], r.Messages[tunnel.Engine]
	rec.BytesIn, rec.BytesOut = r.Bytes[tunnel.Client], r.Bytes[tunnel.Engine]
	rec.Total = time.Since(ws.line.at)

	e.hooks.SocketClosed(c.door.kind, rec)
	e.access.socket(&ws.line)

	if r.Linger {
		c.parting()
	}

	_ = c.Conn.Close() // nobody is left to tell

	e.forget(c)
}

// settled says what the end of a WebSocket means for its record and for the instance.
func settled(rec *gateway.Record, r *tunnel.Result) pool.Outcome {
	if r.Broken {
		rec.Err = &fault.Error{Code: fault.BackendFailed, Msg: r.Reason}
	}

	switch {
	case !r.Broken:
		rec.Outcome = gateway.Served

		return pool.OK
	case r.Local:
		rec.Outcome = gateway.Served

		return pool.Neutral
	case r.By == tunnel.Engine:
		rec.Outcome = gateway.UpstreamError

		return pool.Broken
	case r.Code == wsframe.CodeLost:
		rec.Outcome = gateway.ClientGone
		rec.Err = &fault.Error{Code: fault.ClientGone, Msg: r.Reason}
	default:
		rec.Outcome = gateway.RejectedBad
		rec.Err = &fault.Error{Code: fault.BadRequest, Msg: r.Reason}
	}

	return pool.Neutral
}

// parting lets the client read what was written last before the connection ends.
func (c *conn) parting() {
	limit := time.Now().Add(c.door.edge.cfg.Timeouts.Linger.D())

	sock := c.Conn
	if c.socket != nil {
		sock = c.socket
	}

	// A tunnel leaves deadlines behind that have passed.
	if sock.SetDeadline(limit) == nil && c.Conn.SetDeadline(limit) == nil {
		c.lingeringClose()
	}
}
