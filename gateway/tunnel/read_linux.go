package tunnel

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// reader returns what direct is: it takes a buffer, tries to read, and gives the buffer back when there is
// nothing to read and nothing in it.
func (p *pump) reader() func(fd uintptr) bool {
	return func(fd uintptr) bool {
		p.lend()

		for {
			n, err := syscall.Read(int(fd), p.buf[p.end:])

			switch {
			case errors.Is(err, syscall.EINTR):
				continue
			case errors.Is(err, syscall.EAGAIN):
				if p.end == 0 {
					p.release()
				}

				return false
			case err != nil:
				p.failed = os.NewSyscallError("read", err)
			case n == 0:
				p.failed = io.EOF
			default:
				p.got = n
			}

			return true
		}
	}
}
