package sockio

import (
	"net"
	"syscall"
)

// Peeker looks whether a connection that should be silent is. It is used by one goroutine at a time.
type Peeker struct {
	raw   syscall.RawConn // nil if the connection is no plain socket
	quiet bool
	once  func(fd uintptr) // bound once
}

// NewPeeker returns a Peeker for the socket conn, which must not be TLS: it is asked what lies below.
func NewPeeker(conn net.Conn) *Peeker {
	p := &Peeker{raw: rawOf(conn)}
	p.once = p.look

	return p
}

// Quiet reports that nothing can be read now: no byte, no end and no error. It is true if there is no
// way to know.
func (p *Peeker) Quiet() bool {
	return p.raw == nil || p.raw.Control(p.once) == nil && p.quiet
}

func (p *Peeker) look(fd uintptr) {
	errno := syscall.EINTR
	for errno == syscall.EINTR {
		errno = peek(int(fd))
	}

	p.quiet = errno == syscall.EAGAIN
}
