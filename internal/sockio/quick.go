// Package sockio reads from sockets and writes to them without what calls that may block need.
package sockio

import (
	"net"
	"syscall"
)

// Quick writes to a socket as much as it takes at once. That saves the deadline which a write that
// may wait needs, and lets one write who must not wait. A write deadline that has passed ends its writes
// as well, so that whoever sets one takes it back. It is used by one goroutine at a time.
type Quick struct {
	raw  syscall.RawConn // nil if the connection is no plain socket
	data []byte
	n    int
	err  error
	once func(fd uintptr) bool // bound once
}

// New returns a Quick for conn. If that is no plain socket, such as TLS, nothing is ever written.
func New(conn net.Conn) *Quick {
	q := &Quick{raw: rawOf(conn)}
	q.once = q.attempt

	return q
}

// rawOf is the socket behind a connection that is nothing but one, or nil.
func rawOf(conn net.Conn) syscall.RawConn {
	s, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}

	raw, err := s.SyscallConn()
	if err != nil {
		return nil
	}

	return raw
}

// Write returns how much was written, which is nothing if that would have meant to wait.
func (q *Quick) Write(b []byte) (int, error) {
	if q.raw == nil {
		return 0, nil
	}

	q.data, q.n, q.err = b, 0, nil
	err := q.raw.Write(q.once)
	q.data = nil

	if err == nil {
		err = q.err
	}

	return q.n, err //nolint:wrapcheck // wrapped by the caller
}

// attempt never asks to be called again.
func (q *Quick) attempt(fd uintptr) bool {
	for q.n < len(q.data) {
		n, errno := write(int(fd), q.data[q.n:])

		switch {
		case errno == 0 && n > 0:
			q.n += n
		case errno == syscall.EINTR:
		case errno == 0 || errno == syscall.EAGAIN:
			return true
		default:
			q.err = errno

			return true
		}
	}

	return true
}
