package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/internal/sockio"
)

const (
	readSize = 8 << 10  // of a read buffer; it grows up to what an answer needs
	keepSize = 64 << 10 // a larger buffer is not kept with an idle connection
)

// conn is one connection to an instance, used by one call at a time.
type conn struct {
	host *host
	nc   net.Conn
	// below is the connection under TLS, or nc itself.
	below net.Conn
	io    *sockio.Conn // reads nc
	out   *sockio.Conn // writes to below
	paced *paced       // under TLS; nil without
	peek  *sockio.Peeker

	pollEvery time.Duration
	readBy    time.Time // the deadline of reading, as fill has set it last; zero if it may be another
	reused    bool
	used      time.Time

	rbuf []byte // what was read: rbuf[r:w] is unread
	r, w int
	wbuf []byte

	req    request
	resp   response
	stream stream

	addHeader func(name, value []byte) bool
}

func newConn(h *host, nc, below net.Conn) *conn {
	x := &conn{host: h, nc: nc, below: below, io: sockio.Wrap(nc), peek: sockio.NewPeeker(below), pollEvery: h.client.cfg.PollEvery}

	x.out = x.io
	if nc != below {
		x.out = sockio.Wrap(below)
	}

	x.addHeader = x.forwardHeader
	x.stream.conn = x

	return x
}

// usable reports whether an idle connection can carry a request. Anything that can be read
// from it now is the worker's farewell, or garbage.
func (x *conn) usable() bool {
	return time.Since(x.used) <= x.host.client.cfg.IdleTimeout && x.peek.Quiet()
}

// rest prepares the connection for being idle.
func (x *conn) rest() {
	if cap(x.rbuf) > keepSize {
		x.rbuf = nil
	}

	if cap(x.wbuf) > keepSize {
		x.wbuf = nil
	}

	x.r, x.w, x.pollEvery = 0, 0, x.host.client.cfg.PollEvery
	x.req, x.stream = request{}, stream{conn: x}
	x.resp.reset()
}

// close ends the connection. Nothing depends on how.
func (x *conn) close() {
	if x.paced != nil {
		x.paced.push = x.pushNow // TLS would wait for seconds to say good-bye to an instance that does not read
	}

	_ = x.nc.Close()
}

var (
	errCanceled = errors.New("the client is gone")
	errDeadline = errors.New("the deadline passed")
)

// slice is until when the next system call may block.
func (x *conn) slice(deadline time.Time) time.Time {
	if next := time.Now().Add(x.pollEvery); next.Before(deadline) {
		return next
	}

	return deadline
}

// over decides what a timed out system call means.
func over(ctx context.Context, deadline time.Time) error {
	if ctx.Err() != nil {
		return errCanceled
	}

	if !time.Now().Before(deadline) {
		return errDeadline
	}

	return nil
}

// fill reads at least one byte behind rbuf[:w].
func (x *conn) fill(ctx context.Context, deadline time.Time) error {
	if x.w == len(x.rbuf) {
		x.grow(max(2*len(x.rbuf), readSize))
	}

	for {
		if err := x.readUntil(x.slice(deadline)); err != nil {
			return err //nolint:wrapcheck // classified by the caller
		}
		// The end of the client may have come before the deadline was set, which took its wake-up away.
		if x.pollEvery == streamPoll && ctx.Err() != nil {
			return errCanceled
		}

		n, err := x.io.Read(x.rbuf[x.w:])
		x.w += n

		if n > 0 {
			return nil
		}

		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err //nolint:wrapcheck // classified by the caller
		}

		x.readBy = time.Time{}

		if err := over(ctx, deadline); err != nil {
			return err
		}
	}
}

// readUntil sets the deadline of reading. One that comes a little sooner does as well: whoever waits then
// looks around and waits again. Setting it costs as much as parsing a head.
func (x *conn) readUntil(t time.Time) error {
	if ahead := t.Sub(x.readBy); ahead >= 0 && ahead <= x.pollEvery/2 && x.pollEvery != streamPoll {
		return nil
	}

	x.readBy = t
	if x.pollEvery == streamPoll {
		x.readBy = time.Time{} // the end of the client may move it at any time
	}

	return x.nc.SetReadDeadline(t) //nolint:wrapcheck // classified by the caller
}

// grow makes room for size bytes in all.
func (x *conn) grow(size int) {
	if size <= len(x.rbuf) {
		return
	}

	next := make([]byte, size)
	copy(next, x.rbuf[:x.w])
	x.rbuf = next
}
