//go:build !linux || race

package sockio

import (
	"errors"
	"syscall"
)

// The race detector learns from package syscall what one end of a connection has to do with the other.

func read(fd int, p []byte) (int, syscall.Errno) { return result(syscall.Read(fd, p)) }

func write(fd int, p []byte) (int, syscall.Errno) { return result(syscall.Write(fd, p)) }

func peek(fd int) syscall.Errno {
	var b [1]byte

	_, _, err := syscall.Recvfrom(fd, b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	_, errno := result(0, err)

	return errno
}

func result(n int, err error) (int, syscall.Errno) {
	var errno syscall.Errno
	if err != nil && !errors.As(err, &errno) {
		errno = syscall.EIO
	}

	return n, errno
}
