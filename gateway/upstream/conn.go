package upstream

import (
	"context"
	"errors"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
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
	raw   syscall.RawConn // of the socket below TLS; nil if there is none to look at

	pollEvery time.Duration
	reused    bool
	used      time.Time

	rbuf []byte // what was read: rbuf[r:w] is unread
	r, w int
	wbuf []byte

	req    request
	resp   response
	stream stream

	poll      [1]unix.PollFd
	look      func(fd uintptr) // bound once
	addHeader func(name, value []byte) bool
}

func newConn(h *host, nc, below net.Conn) *conn {
	x := &conn{host: h, nc: nc, below: below, pollEvery: h.client.cfg.PollEvery}
	if sc, ok := below.(syscall.Conn); ok {
		if raw, err := sc.SyscallConn(); err == nil {
			x.raw = raw
		}
	}

	x.look = func(fd uintptr) {
		x.poll[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
		if _, err := unix.Poll(x.poll[:], 0); err != nil {
			x.poll[0].Revents = 0 // interrupted: say nothing
		}
	}
	x.addHeader = x.forwardHeader
	x.stream.conn = x

	return x
}

// usable reports whether an idle connection can carry a request. Anything that can be read
// from it now is the worker's farewell, or garbage.
func (x *conn) usable() bool {
	if time.Since(x.used) > x.host.client.cfg.IdleTimeout {
		return false
	}

	if x.raw == nil {
		return true
	}

	return x.raw.Control(x.look) == nil && x.poll[0].Revents == 0
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
func (x *conn) close() { _ = x.nc.Close() }

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
		if err := x.nc.SetReadDeadline(x.slice(deadline)); err != nil {
			return err //nolint:wrapcheck // classified by the caller
		}
		// The end of the client may have come before the deadline was set, which took its wake-up away.
		if x.pollEvery == streamPoll && ctx.Err() != nil {
			return errCanceled
		}

		n, err := x.nc.Read(x.rbuf[x.w:])
		x.w += n

		if n > 0 {
			return nil
		}

		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err //nolint:wrapcheck // classified by the caller
		}

		if err := over(ctx, deadline); err != nil {
			return err
		}
	}
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

// write sends all of b; sent tells whether any byte of it left.
func (x *conn) write(ctx context.Context, b []byte, deadline time.Time) (sent bool, err error) {
	for {
		if err := x.nc.SetWriteDeadline(x.slice(deadline)); err != nil {
			return sent, err //nolint:wrapcheck // classified by the caller
		}

		n, err := x.nc.Write(b)
		sent = sent || n > 0

		if err == nil {
			return true, nil
		}

		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return sent, err //nolint:wrapcheck // classified by the caller
		}

		if err := over(ctx, deadline); err != nil {
			return sent, err
		}

		b = b[n:]
	}
}
