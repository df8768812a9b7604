package upstream

import (
	"bytes"
	"context"
	"errors"
	"net"
	"os"
	"time"
)

// errAnswered ends a request whose answer is there while the instance takes no more of it.
var errAnswered = errors.New("the instance answered and does not read on")

// paced lies between TLS and its socket. A write of crypto/tls that a deadline has ended can never be gone on with,
// so that it is below TLS where writing pauses to look whether the client is still there.
type paced struct {
	net.Conn

	push func(b []byte) (int, error) // of the request that is being sent; nil: none is
}

// Write implements io.Writer.
func (p *paced) Write(b []byte) (int, error) {
	if p.push == nil {
		return p.Conn.Write(b) //nolint:wrapcheck // net.Conn's contract
	}

	return p.push(b)
}

// write sends all of b; sent tells whether any byte of it left.
func (x *conn) write(ctx context.Context, b []byte, deadline time.Time) (sent bool, err error) {
	if x.paced == nil {
		n, err := x.push(ctx, b, deadline)

		return n > 0, err
	}

	x.paced.push = func(b []byte) (int, error) { return x.push(ctx, b, deadline) }
	n, err := x.nc.Write(b)
	x.paced.push = nil

	return n > 0, err //nolint:wrapcheck // classified by the caller
}

// push hands b to the socket.
func (x *conn) push(ctx context.Context, b []byte, deadline time.Time) (int, error) {
	n, err := x.out.WriteNow(b)
	if err != nil || n == len(b) && n > 0 {
		return n, err //nolint:wrapcheck // classified by the caller
	}

	more, err := x.pushSlowly(ctx, b[n:], deadline)
	if err == nil {
		err = x.below.SetWriteDeadline(time.Time{}) // it would end a write that does not wait as well
	}

	return n + more, err //nolint:wrapcheck // classified by the caller
}

// pushNow hands b to the socket if that takes it without waiting.
func (x *conn) pushNow(b []byte) (int, error) {
	n, err := x.out.WriteNow(b)
	if err == nil && n < len(b) {
		err = errDeadline
	}

	return n, err //nolint:wrapcheck // nobody looks at it
}

// pushSlowly writes what the socket does not take at once.
func (x *conn) pushSlowly(ctx context.Context, b []byte, deadline time.Time) (int, error) {
	for total := 0; ; {
		if err := x.below.SetWriteDeadline(x.slice(deadline)); err != nil {
			return total, err //nolint:wrapcheck // classified by the caller
		}

		n, err := x.out.Write(b)
		b, total = b[n:], total+n

		if err == nil {
			return total, nil
		}

		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return total, err //nolint:wrapcheck // classified by the caller
		}

		if err := over(ctx, deadline); err != nil {
			return total, err
		}

		if n == 0 && x.answered(ctx) {
			return total, errAnswered
		}
	}
}

// answered reports whether the whole of an answer, of which the length is known, has come already. One that is
// still coming may depend on what is still to be sent. Under TLS there is no telling.
func (x *conn) answered(ctx context.Context) bool {
	if x.paced != nil || x.peek.Quiet() || x.w >= x.host.client.cfg.MaxHead {
		return false
	}

	if err := x.fill(ctx, time.Now().Add(x.pollEvery)); err != nil {
		return false // the next write tells
	}

	for b := x.rbuf[:x.w]; ; {
		end := bytes.Index(b, []byte("\r\n\r\n")) + 4
		if end < 4 {
			return false
		}

		x.resp.reset()

		if x.resp.parse(b[:end-2], false) != nil {
			return true // no answer will come of it
		}

		b = b[end:]
		if x.resp.status >= 200 {
			return x.resp.length >= 0 && int64(len(b)) >= x.resp.length
		}
	}
}
