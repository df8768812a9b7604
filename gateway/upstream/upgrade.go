package upstream

import (
	"bytes"
	"errors"
	"net"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/wsframe"
	"github.com/sluice-gateway/sluice/router/pool"
)

// upgrade asks the instance for a WebSocket, on a connection of its own. An answer other than 101 is
// passed on like any answer; the connection is a tunnel only when the engine agreed by the rules.
func (h *host) upgrade(c *gateway.Call, a *gateway.Attempt) gateway.Result {
	x, err := h.dial(c.Context, a.Deadline)
	if err != nil {
		return unreachable(c, err)
	}

	res, _ := x.exchange(c, a)

	return res
}

// beginUpgrade prepares the handshake with the engine. A page that is of the same origin as the
// gateway is told to be of the engine's, which compares it with the host it is called by.
func (x *conn) beginUpgrade(c *gateway.Call) {
	x.req.upgrade, x.req.key = true, wsframe.NewKey()

	_, host, ok := bytes.Cut(c.Header.Get("origin"), []byte("://"))
	if !ok || !bytes.EqualFold(host, c.Host) {
		return
	}

	x.req.origin = append(x.req.origin, "http"...)
	if x.host.tls != nil {
		x.req.origin = append(x.req.origin, 's')
	}

	x.req.origin = append(append(x.req.origin, "://"...), x.host.name...)
}

// take keeps what the client offers.
func (r *request) take(lower, value []byte) {
	switch string(lower) {
	case "sec-websocket-extensions":
		r.offers.Add(value)
	case "sec-websocket-protocol":
		if !safeValue(value) {
			return
		}

		if len(r.asked) > 0 {
			r.asked = append(r.asked, ", "...)
		}

		r.asked = append(r.asked, value...)
	}
}

// appendUpgrade ends the head of a handshake.
func (r *request) appendUpgrade(b []byte) []byte {
	b = append(b, "\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: "...)
	b = append(b, wsframe.Version...)
	b = append(b, "\r\nSec-WebSocket-Key: "...)
	b = append(b, r.key...)

	if len(r.asked) > 0 {
		b = append(append(b, "\r\nSec-WebSocket-Protocol: "...), r.asked...)
	}

	if line := r.offers.Line(); len(line) > 0 {
		b = append(append(b, "\r\nSec-WebSocket-Extensions: "...), line...)
	}

	return b
}

var (
	errNotAgreed = errors.New("the engine answered a WebSocket handshake without agreeing to it")
	errHandshake = errors.New("the engine agreed to a WebSocket in a wrong form")
)

// accepted takes an answer that claims success. Anything but a proper 101 is an error: the client must
// not believe that it has a WebSocket.
func (x *conn) accepted(c *gateway.Call, res *gateway.Result) gateway.Result {
	u := c.Upgrade

	if x.resp.status != 101 {
		x.close()

		res.Outcome = pool.Neutral
		res.Err = fault.Wrap(fault.BackendFailed, errNotAgreed,
			"The engine does not serve a WebSocket here: it answered the handshake with status %d.", x.resp.status)

		return *res
	}

	if err := x.judgeUpgrade(u); err != nil {
		x.close()

		res.Outcome = pool.Broken
		res.Err = fault.Wrap(fault.BackendFailed, err, "The engine answered the WebSocket handshake in a wrong form.")

		return *res
	}

	u.Conn, u.Socket = x.nc, x.below
	u.Early = bytes.Clone(x.rbuf[x.r:x.w])

	if t, ok := x.below.(*net.TCPConn); ok {
		_ = t.SetKeepAlive(true) // the dialer's default already; it finds machines that vanished
	}

	res.Answered, res.Upgraded, res.Status = true, true, 101
	c.Record.Status = 101

	return *res
}

// judgeUpgrade checks the head of a 101 and takes over what it chose.
func (x *conn) judgeUpgrade(u *gateway.Upgrade) error {
	upgrade, agreed, accept, protocols, extensions := false, false, 0, 0, 0

	want := wsframe.AppendAccept(nil, []byte(x.req.key))

	for _, f := range x.resp.fields {
		var small [maxKnownName]byte

		name, _ := lowerName(small[:0], x.rbuf[f.n0:f.n1])
		value := x.rbuf[f.v0:f.v1]

		switch string(name) {
		case "connection":
			upgrade = upgrade || wsframe.HasToken(value, "upgrade")
		case "upgrade":
			agreed = bytes.EqualFold(value, []byte("websocket"))
		case "sec-websocket-accept":
			if accept++; !bytes.Equal(value, want) {
				return errHandshake
			}
		case "sec-websocket-protocol":
			if protocols++; !named(x.req.asked, value) {
				return errHandshake
			}

			u.Protocol = string(value)
		case "sec-websocket-extensions":
			d, err := x.req.offers.Judge(value)
			if err != nil {
				return err //nolint:wrapcheck // says it all
			}

			extensions++
			u.Extensions, u.Deflate = string(value), d
		}
	}

	if !upgrade || !agreed || accept != 1 || protocols > 1 || extensions > 1 {
		return errHandshake
	}

	return nil
}

// named reports whether a list of subprotocols has this one; their case counts.
func named(list, one []byte) bool {
	for item := range bytes.SplitSeq(list, []byte{','}) {
		if bytes.Equal(bytes.Trim(item, " \t"), one) {
			return len(one) > 0
		}
	}

	return false
}
