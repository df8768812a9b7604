package edge

import (
	"crypto/rand"
	"encoding/hex"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge/wire"
)

// bufferSize holds the head and the body of most requests.
const bufferSize = 8 << 10

// head is a judged head.
type head struct{ wire.Head }

// Each implements gateway.Header.
func (h *head) Each(f func(name, value []byte) bool) {
	for i := range h.Count() {
		if !f(h.Field(i)) {
			return
		}
	}
}

// exchange is one request and its answer: everything that is needed from the first byte of
// the request until the answer was written. It is pooled; only its connection's goroutine touches it.
type exchange struct {
	conn *conn

	// buf[r:w] has arrived and was not used; the head that is being served lies before r.
	buf  []byte
	r, w int

	head head
	call gateway.Call
	ctx  *callContext
	body body
	out  answer
	ids  ids
	seat seat // of a WebSocket handshake

	active   bool // a call was started and not settled
	health   bool // it is a health check
	text     []byte
	start    time.Time
	settled  time.Time // when the last answer was written
	bytesOut int64
}

func (x *exchange) begin() {
	x.start = time.Now()
	x.bytesOut = 0
	x.health = false
}

// room makes space behind w while a head is being collected; nothing refers to buf then.
func (x *exchange) room() {
	if x.w < len(x.buf) {
		return
	}

	if x.r > 0 {
		x.w = copy(x.buf, x.buf[x.r:x.w])
		x.r = 0

		return
	}

	larger := make([]byte, 4*len(x.buf))
	x.w = copy(larger, x.buf[:x.w])
	x.buf = larger
}

// compact drops the head that was served; bytes of the next request move to the front.
func (x *exchange) compact() {
	rest := x.buf[x.r:x.w]

	if len(x.buf) > bufferSize && len(rest) <= bufferSize {
		x.buf = make([]byte, bufferSize)
	}

	x.w = copy(x.buf, rest)
	x.r = 0
}

// settle ends the call: it was answered, or the connection is gone.
func (x *exchange) settle() {
	x.leave()
	e, c, rec := x.conn.door.edge, x.conn, &x.call.Record

	x.out.endStream()

	rec.Total = time.Since(x.start)
	x.settled = x.start.Add(rec.Total)
	rec.BytesOut = x.bytesOut

	if rec.BytesIn == 0 {
		rec.BytesIn = x.body.got
	}

	if rec.Status == 0 {
		rec.Status = x.out.status
	}

	c.mu.Lock()
	c.busy = nil
	c.mu.Unlock()

	if c.ws != nil {
		e.hooks.SocketOpened(c.door.kind, rec)
	} else {
		e.hooks.Ended(c.door.kind, rec)
		e.access.request(x)
	}

	x.ctx = x.ctx.release()
	x.call, x.seat = gateway.Call{}, seat{}
	x.out.reset()
}

// leave counts the call out.
func (x *exchange) leave() {
	x.active = false
	x.conn.door.edge.inflight.Add(-1)
}

// abandon ends a call after a panic outside of its handler.
func (x *exchange) abandon() {
	if x.active {
		x.leave()
	}

	x.conn.mu.Lock()
	x.conn.busy = nil
	x.conn.mu.Unlock()

	x.ctx.cancel()
}

// ids makes request ids. They are cut from one string for many requests, so that an id costs no
// allocation and may still be kept by anybody.
type ids struct {
	block string
}

const (
	idLength  = 32
	idsInARow = 16
)

func (g *ids) next() string {
	if len(g.block) < idLength {
		var raw [idsInARow * idLength / 2]byte

		_, _ = rand.Read(raw[:]) // never fails
		g.block = hex.EncodeToString(raw[:])
	}

	id := g.block[:idLength]
	g.block = g.block[idLength:]

	return id
}

// maxClientID bounds an X-Request-Id that is taken over.
const maxClientID = 128

// id is the client's request id if it is harmless in logs and headers, else a new one.
func (x *exchange) id() string {
	given := x.head.Get("x-request-id")
	if len(given) == 0 || len(given) > maxClientID {
		return x.ids.next()
	}

	for _, b := range given {
		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z', b >= '0' && b <= '9', b == '.', b == '_', b == '-':
		default:
			return x.ids.next()
		}
	}

	return string(given)
}
