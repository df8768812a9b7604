package edge

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/sockio"
)

// States of a connection, for the drain.
const (
	connIdle    int32 = iota // between requests
	connActive               // from the first byte of a request until its answer was written
	connClosing              // told to end; set by the drain on an idle connection
)

// conn stands between a socket and fasthttp. Its goroutine is the one of the connection; what others
// may touch is atomic or under mu.
type conn struct {
	net.Conn // the socket, or TLS over it

	in     *sockio.Reader // reads from Conn
	now    *sockio.Quick  // writes to the socket what it takes at once; nil under TLS
	readBy time.Time      // the deadline of reading, as it was set last

	door   *door
	socket *net.TCPConn
	fd     int
	remote netip.AddrPort
	born   time.Time

	state atomic.Int32
	used  atomic.Bool // had a request

	// mu guards busy, which is the exchange whose handler runs, for the watcher.
	mu   sync.Mutex
	busy *exchange

	x        *exchange // nil while parked
	feed     string    // what fasthttp has not taken yet of the extract of x's head
	requests int

	ws *websocket // set when the handshake was answered

	one [1]byte // the first byte of a request while parked

	ending   bool // no further request
	parking  bool // fasthttp is left without closing
	linger   bool // the client may still be sending
	mute     bool // the answer was written past fasthttp
	writeErr error
}

// Read gives fasthttp the extract of the next request's head, which the guard let in, and nothing else.
func (c *conn) Read(p []byte) (int, error) {
	if c.feed == "" {
		c.finish()

		if c.ending {
			return 0, io.EOF
		}

		switch c.next() {
		case nextReady:
		case nextIdle:
			c.parking = true

			return 0, io.EOF
		case nextEnd:
			c.ending = true

			return 0, io.EOF
		}
	}

	n := copy(p, c.feed)
	c.feed = c.feed[n:]

	return n, nil
}

// Close is what fasthttp calls when it is done with the connection; whether the socket ends then
// is decided by serve.
func (c *conn) Close() error {
	c.finish()

	if !c.parking {
		c.ending = true
	}

	return nil
}

type nextResult uint8

const (
	nextReady nextResult = iota // x holds an acceptable head
	nextIdle                    // nothing came for a while: park
	nextEnd                     // the connection is over
)

// next waits for the next head. While it is parked (x is nil) it waits as long as a connection may be
// idle, otherwise until it should be parked.
func (c *conn) next() nextResult {
	if c.state.Load() == connClosing {
		return nextEnd
	}

	if r := c.await(); r != nextReady {
		return r
	}

	c.x.begin()

	if err := c.readHead(); err != nil {
		var f *fault.Error
		if errors.As(err, &f) {
			c.refuse(f)
		}

		return nextEnd
	}

	return nextReady
}

// await returns when there is something to read, with the connection marked as active.
func (c *conn) await() nextResult {
	x := c.x

	switch {
	case x == nil:
		if !c.awaitFirstByte() {
			return nextEnd
		}
	case x.r < x.w: // a pipelined request
		if !c.state.CompareAndSwap(connIdle, connActive) {
			return nextEnd
		}
	case c.door.edge.cfg.LowMemory:
		return nextIdle
	default:
		x.r, x.w = 0, 0

		return c.awaitHot()
	}

	return nextReady
}

// awaitFirstByte waits without holding any buffer.
func (c *conn) awaitFirstByte() bool {
	wait := c.door.edge.cfg.Timeouts.Idle.D()
	if c.requests == 0 {
		wait = c.door.edge.cfg.Timeouts.Header.D()
	}

	if c.readUntil(time.Now().Add(wait)) != nil || c.state.Load() == connClosing {
		return false
	}

	n, _ := c.in.Read(c.one[:])
	if n == 0 || !c.state.CompareAndSwap(connIdle, connActive) {
		return false
	}

	c.x = c.door.edge.acquire(c)
	c.x.buf[0] = c.one[0]
	c.x.w = 1

	return true
}

// awaitHot waits a little with the buffers at hand, because most requests follow closely.
func (c *conn) awaitHot() nextResult {
	t := &c.door.edge.cfg.Timeouts

	wait := min(t.ParkAfter.D(), t.Idle.D())
	limit := c.x.settled.Add(wait)

	// Setting a deadline costs as much as parsing a head: one that is nearly right stays.
	if ahead := limit.Sub(c.readBy); ahead > wait/4 || ahead < 0 {
		if c.readUntil(limit) != nil {
			return nextEnd
		}
	}

	if c.state.Load() == connClosing {
		return nextEnd
	}

	// Others that have something to do go first: by then the next request may be there, which saves
	// asking in vain, and waiting.
	runtime.Gosched()

	n, err := c.in.Read(c.x.buf)
	if n == 0 {
		if errors.Is(err, os.ErrDeadlineExceeded) && c.state.Load() == connIdle {
			return nextIdle
		}

		return nextEnd
	}

	if !c.state.CompareAndSwap(connIdle, connActive) {
		return nextEnd
	}

	c.x.w = n

	return nextReady
}

// readHead collects a head and has it judged. A returned fault is to be told to the client;
// another error is the end of the connection.
func (c *conn) readHead() error {
	x, e := c.x, c.door.edge
	timed := false
	scan, blank := 0, 0

	for {
		if scan == 0 {
			n := wire.SkipBlank(x.buf[x.r:x.w], blank)
			blank += n
			x.r += n
		}

		got := x.buf[x.r:x.w]

		if end := wire.End(got, scan); end >= 0 {
			return c.judge(end)
		}

		if err := wire.Premature(got, scan, &e.lim); err != nil {
			return err
		}

		// A CR alone may be the first half of a blank line.
		if scan = len(got); scan == 1 && got[0] == '\r' {
			scan = 0
		}

		if !timed {
			timed = true

			limit := time.Now().Add(e.cfg.Timeouts.Header.D())
			if c.requests == 0 {
				limit = c.born.Add(e.cfg.Timeouts.Header.D() + c.door.handshakeShare())
			}

			if err := c.readUntil(limit); err != nil {
				return io.EOF
			}
		}

		x.room()

		n, err := c.in.Read(x.buf[x.w:])
		x.w += n

		if n == 0 && err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) && len(got) > 0 {
				return fault.New(fault.RequestTimeout, "The request header took too long to arrive.")
			}

			return io.EOF
		}
	}
}

// judge parses the head that ends at end bytes after x.r.
func (c *conn) judge(end int) error {
	x := c.x
	raw := x.buf[x.r : x.r+end]

	if err := x.head.Parse(raw, c.door.kind.String(), &c.door.edge.lim); err != nil {
		return err
	}

	x.r += end
	c.feed = extract(&x.head.Head)
	c.requests++

	return nil
}

// finish settles the exchange whose answer was written, and leaves the stream where the next
// request starts.
func (c *conn) finish() {
	x := c.x
	if x == nil || !x.active {
		return
	}

	x.settle()

	if !c.ending && !x.body.skip() {
		c.ending, c.linger = true, true
	}

	x.body.reset()
	x.compact()

	c.mute = false
	c.state.CompareAndSwap(connActive, connIdle)

	if !c.used.Load() {
		c.used.Store(true)
	}
}

// park gives the buffers back.
func (c *conn) park() {
	if c.x != nil {
		c.door.edge.release(c.x)
		c.x = nil
	}
}

// serve runs the whole life of a connection.
func (c *conn) serve() {
	defer c.end()
	defer c.recoverPanic()

	if !c.door.handshake(c) {
		c.door.edge.hooks.Refused(c.door.kind, RefusedTLS)

		return
	}

	for !c.ending {
		if c.feed == "" {
			if c.next() != nextReady {
				return
			}
		}

		c.parking = false

		err := c.door.edge.server.ServeConn(c)

		if err != nil && !isNetError(err) {
			c.door.edge.log.Debug("edge connection ended", slog.String("remote", c.remote.String()), slog.String("err", err.Error()))
		}

		if c.feed == "" && (c.x == nil || c.x.r == c.x.w) {
			c.park()
		}
	}
}

// recoverPanic keeps a panic that escaped the handler's own recover from ending the process.
func (c *conn) recoverPanic() {
	v := recover()
	if v == nil {
		return
	}

	c.door.edge.panicked(v, "")
	c.ending = true

	if c.x != nil {
		// In whatever state it is, nobody else may get it.
		c.x.abandon()
		c.x = nil
	}
}

// end closes the socket, in a way that lets the client read what was written.
func (c *conn) end() {
	c.finish()

	if c.ws != nil && c.x != nil {
		c.ws.early = bytes.Clone(c.x.buf[c.x.r:c.x.w])
	}

	c.park()

	if c.ws != nil {
		c.tunnel()

		return
	}

	if c.linger {
		c.lingeringClose()
	}

	_ = c.Conn.Close() // nobody is left to tell
	c.door.edge.forget(c)
}

// maxLingerBytes is what a client may still send after an early error before it is cut.
const maxLingerBytes = 16 << 20

// lingeringClose says that nothing more follows and reads on for a moment: closing with unread bytes
// would reset the connection, and the reset may overtake the answer.
func (c *conn) lingeringClose() {
	if t, ok := c.Conn.(interface{ CloseWrite() error }); ok && t.CloseWrite() != nil {
		return
	}

	if c.socket != nil && c.Conn != net.Conn(c.socket) && c.socket.CloseWrite() != nil {
		return
	}

	var from io.Reader = c.Conn
	if c.socket != nil {
		from = c.socket
		_ = c.socket.SetReadDeadline(time.Now().Add(c.door.edge.cfg.Timeouts.Linger.D()))
	} else {
		_ = c.Conn.SetReadDeadline(time.Now().Add(c.door.edge.cfg.Timeouts.Linger.D()))
	}

	buf := c.door.edge.buffer()
	defer c.door.edge.unbuffer(buf)

	for total := 0; total < maxLingerBytes; {
		n, err := from.Read(*buf)
		if err != nil {
			return
		}

		total += n
	}
}

// wake ends an idle connection, and reports whether it was idle.
func (c *conn) wake() bool {
	if !c.state.CompareAndSwap(connIdle, connClosing) {
		return c.state.Load() == connClosing
	}

	_ = c.Conn.SetReadDeadline(time.Unix(1, 0))

	return true
}

// newcomer is how long a drain leaves a connection without a request alone: its first request is likely on the way.
const newcomer = time.Second

// fresh reports whether the first request is still to be expected.
func (c *conn) fresh() bool { return !c.used.Load() && time.Since(c.born) < newcomer }

// Deadlines are set where they belong; fasthttp's are not wanted.

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(time.Time) error { return nil }

// SetReadDeadline implements net.Conn.
func (c *conn) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline implements net.Conn.
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

func isNetError(err error) bool {
	var n net.Error

	return errors.As(err, &n) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}
