package sockio

import (
	"io"
	"net"
	"os"
	"syscall"
)

// Reader reads from a connection as its Read does, deadlines included. It is used by one goroutine
// at a time.
type Reader struct {
	conn net.Conn
	raw  syscall.RawConn // nil if the connection is no plain socket
	data []byte
	n    int
	err  error
	once func(fd uintptr) bool // bound once
}

// NewReader returns a Reader for conn.
func NewReader(conn net.Conn) *Reader {
	r := &Reader{conn: conn, raw: rawOf(conn)}
	r.once = r.attempt

	return r
}

// Read implements io.Reader.
func (r *Reader) Read(p []byte) (int, error) {
	if r.raw == nil || len(p) == 0 {
		return r.conn.Read(p) //nolint:wrapcheck // the connection's own
	}

	r.data, r.n, r.err = p, 0, nil
	err := r.raw.Read(r.once)
	r.data = nil

	if err == nil {
		err = r.err
	}

	return r.n, err //nolint:wrapcheck // as of the connection's own Read
}

// attempt asks to be called again when there is something to read.
func (r *Reader) attempt(fd uintptr) bool {
	for {
		n, errno := read(int(fd), r.data)

		switch errno { //nolint:exhaustive // the rest are failures
		case 0:
			if r.n = n; n == 0 {
				r.err = io.EOF
			}

			return true
		case syscall.EINTR:
		case syscall.EAGAIN:
			return false
		default:
			r.err = os.NewSyscallError("read", errno)

			return true
		}
	}
}
