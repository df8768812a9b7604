//go:build !race

package sockio

import (
	"syscall"
	"unsafe"
)

// The sockets are in non-blocking mode, so that the scheduler need not hear of these calls. Telling it
// costs more than the bookkeeping: a process that idles between requests, as one does that is less than
// busy, wakes its monitor thread with every call that might block, for nothing.

// read reads once.
func read(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))

	return int(n), errno
}

// write writes once.
func write(fd int, p []byte) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))

	return int(n), errno
}

// peek looks at one byte without taking it; EAGAIN is that there is none yet.
func peek(fd int) syscall.Errno {
	var b [1]byte

	_, _, errno := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), 1,
		syscall.MSG_PEEK|syscall.MSG_DONTWAIT, 0, 0)

	return errno
}
