package edge

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// answer takes what the corridor answers and puts it into fasthttp's response. It implements
// gateway.Out.
type answer struct {
	x        *exchange
	res      *fasthttp.Response
	status   int
	answered bool
	hsts     bool // the door says Strict-Transport-Security

	stream *stream
}

func (a *answer) prepare(x *exchange, res *fasthttp.Response) {
	a.x, a.res = x, res
	a.status, a.answered, a.stream = 0, false, nil
	a.hsts = x.conn.door.edge.hsts(x.conn.door.kind) != ""
}

func (a *answer) reset() { *a = answer{} }

// ownedByDoor are the fields that frame the message or that the door sets itself; hsts tells whether it
// sets Strict-Transport-Security.
func ownedByDoor(name string, hsts bool) bool {
	switch len(name) {
	case 2:
		return strings.EqualFold(name, "te")
	case 4:
		return strings.EqualFold(name, "date")
	case 6:
		return strings.EqualFold(name, "server")
	case 7:
		return strings.EqualFold(name, "trailer") || strings.EqualFold(name, "upgrade")
	case 10:
		return strings.EqualFold(name, "connection") || strings.EqualFold(name, "keep-alive")
	case 12:
		return strings.EqualFold(name, "x-request-id")
	case 14:
		return strings.EqualFold(name, "content-length")
	case 16:
		return strings.EqualFold(name, "proxy-connection")
	case 17:
		return strings.EqualFold(name, "transfer-encoding")
	case 22:
		return strings.EqualFold(name, "x-content-type-options")
	case 25:
		return hsts && strings.EqualFold(name, "strict-transport-security")
	default:
		return false
	}
}

// AddHeader implements gateway.Out.
func (a *answer) AddHeader(name string, value []byte) {
	if !ownedByDoor(name, a.hsts) {
		a.res.Header.AddBytesV(name, value)
	}
}

// begin takes the status; an interim one would never be followed by an answer.
func (a *answer) begin(status int) {
	if a.answered {
		panic("BUG: a call was answered twice")
	}

	if status < fasthttp.StatusOK || status > 599 {
		panic("BUG: " + strconv.Itoa(status) + " is no status of an answer")
	}

	a.answered, a.status = true, status
	a.res.SetStatusCode(status)
}

// Set implements gateway.Out.
func (a *answer) Set(status int, body []byte) {
	a.begin(status)
	a.res.SetBody(body)
}

// Stream implements gateway.Out.
func (a *answer) Stream(status int, next func() ([]byte, error), done func(err error)) {
	a.begin(status)
	a.stream = &stream{x: a.x, next: next, done: done}
}

// takeBack forgets an answer of which nothing was sent, because the corridor panicked after it.
func (a *answer) takeBack() {
	if a.stream != nil {
		a.stream.err = errPanicked
		a.endStream()
		a.stream = nil
	}

	a.res.Reset()
	a.answered = false
}

// start hands a stream to fasthttp, which sends a chunk for every one it reads. HTTP/1.0 has no
// chunks: there the end of the connection ends the answer, and it is written past fasthttp.
func (a *answer) start(ctx *fasthttp.RequestCtx) {
	if a.stream == nil {
		return
	}

	if a.x.head.HTTP10 {
		a.oldStream(ctx)

		return
	}

	a.res.ImmediateHeaderFlush = true
	a.res.SetBodyStream(a.stream, -1)
}

func (a *answer) oldStream(ctx *fasthttp.RequestCtx) {
	c := a.x.conn
	h := &a.res.Header

	h.SetContentLength(-2)
	h.SetConnectionClose()

	c.ending = true

	head := append([]byte(nil), h.Header()...)
	if _, err := c.Write(head); err == nil && !ctx.IsHead() {
		_, err = io.Copy(c, a.stream)
		if err != nil && a.stream.err == nil {
			a.stream.err = err
		}
	}

	// fasthttp writes an answer as well; it goes nowhere.
	c.mute = true
}

// endStream tells the corridor that its stream is over, once.
func (a *answer) endStream() {
	s := a.stream
	if s == nil || s.ended {
		return
	}

	s.ended = true

	err := s.err
	if errors.Is(err, io.EOF) {
		err = nil
	}

	if err == nil {
		err = s.x.conn.writeErr
	}

	defer func() {
		if v := recover(); v != nil {
			s.x.conn.door.edge.panicked(v, s.x.call.ID)
		}
	}()

	s.done(err)
}

var errPanicked = errors.New("edge: the stream panicked")

// stream adapts chunks to io.Reader.
type stream struct {
	x     *exchange
	next  func() ([]byte, error)
	done  func(err error)
	rest  []byte
	err   error
	ended bool
}

// Read implements io.Reader. One call gives bytes of one chunk.
func (s *stream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		if s.err != nil {
			return 0, s.err
		}

		s.rest, s.err = s.chunk()
	}

	n := copy(p, s.rest)
	s.rest = s.rest[n:]

	return n, nil
}

// chunk calls next; a panic breaks the stream off.
func (s *stream) chunk() (b []byte, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.x.conn.door.edge.panicked(v, s.x.call.ID)

			b, err = nil, fmt.Errorf("%w: %v", errPanicked, v)
		}
	}()

	return s.next()
}
