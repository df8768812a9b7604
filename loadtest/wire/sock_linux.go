package wire

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sock is a socket that never blocks. While nc is set, that is for handshakes, it does block.
// crypto/tls reads and writes through it: it takes errWouldBlock for an error that passes.
type sock struct {
	fd  int
	nc  net.Conn
	out []byte // what could not be written yet
}

// wouldBlockError is the error of a socket that has nothing to read.
type wouldBlockError struct{}

// Error implements error.
func (wouldBlockError) Error() string { return "would block" }

// Timeout implements net.Error.
func (wouldBlockError) Timeout() bool { return true }

// Temporary makes crypto/tls go on afterwards.
func (wouldBlockError) Temporary() bool { return true }

// errWouldBlock is made once, so that the hot path does not allocate.
var errWouldBlock error = wouldBlockError{}

// Read implements io.Reader.
func (s *sock) Read(b []byte) (int, error) {
	if s.nc != nil {
		return s.nc.Read(b) //nolint:wrapcheck // io.Reader
	}

	for {
		n, err := quick(unix.SYS_READ, s.fd, b)

		switch {
		case err == nil && n > 0:
			return n, nil
		case err == nil:
			return 0, io.EOF
		case errors.Is(err, unix.EAGAIN):
			return 0, errWouldBlock
		case !errors.Is(err, unix.EINTR):
			return 0, err //nolint:wrapcheck // io.Reader
		}
	}
}

// quick reads or writes a socket that never blocks, without telling the runtime that this thread may.
func quick(call uintptr, fd int, b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}

	n, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
	if errno != 0 {
		return 0, errno
	}

	return int(n), nil
}

// Write takes all of b: what the socket does not is kept until flush.
func (s *sock) Write(b []byte) (int, error) {
	if s.nc != nil {
		return s.nc.Write(b) //nolint:wrapcheck // io.Writer
	}

	rest := b

	if len(s.out) == 0 {
		n, err := s.try(b)
		if err != nil {
			return 0, err
		}

		rest = b[n:]
	}

	s.out = append(s.out, rest...)

	return len(b), nil
}

// flush writes what is kept.
func (s *sock) flush() error {
	n, err := s.try(s.out)
	s.out = s.out[:copy(s.out, s.out[n:])]

	return err
}

// try writes until the socket is full.
func (s *sock) try(b []byte) (n int, err error) {
	for n < len(b) {
		k, err := quick(unix.SYS_WRITE, s.fd, b[n:])

		switch {
		case err == nil:
			n += k
		case errors.Is(err, unix.EAGAIN):
			return n, nil
		case !errors.Is(err, unix.EINTR):
			return n, err //nolint:wrapcheck // classified by the caller
		}
	}

	return n, nil
}

// detach takes the file descriptor out of the hands of the Go runtime.
func (s *sock) detach() error {
	sc, ok := s.nc.(syscall.Conn)
	if !ok {
		return errors.New("the connection has no file descriptor")
	}

	raw, err := sc.SyscallConn()
	if err != nil {
		return err //nolint:wrapcheck // os errors tell enough
	}

	var dupErr error

	err = raw.Control(func(fd uintptr) {
		s.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(err, dupErr); err != nil {
		return os.NewSyscallError("dup", err)
	}

	err = s.nc.Close()
	s.nc = nil

	return err //nolint:wrapcheck // os errors tell enough
}

// Close implements net.Conn.
func (s *sock) Close() error {
	if s.nc != nil {
		return s.nc.Close() //nolint:wrapcheck // net.Conn
	}

	return unix.Close(s.fd) //nolint:wrapcheck // net.Conn
}

// LocalAddr implements net.Conn.
func (*sock) LocalAddr() net.Addr { return &net.UnixAddr{} }

// RemoteAddr implements net.Conn.
func (*sock) RemoteAddr() net.Addr { return &net.UnixAddr{} }

// SetDeadline implements net.Conn.
func (s *sock) SetDeadline(t time.Time) error {
	if s.nc != nil {
		return s.nc.SetDeadline(t) //nolint:wrapcheck // net.Conn
	}

	return nil
}

// SetReadDeadline implements net.Conn.
func (s *sock) SetReadDeadline(t time.Time) error { return s.SetDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (s *sock) SetWriteDeadline(t time.Time) error { return s.SetDeadline(t) }
