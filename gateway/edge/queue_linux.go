package edge

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// emptyQueue admits the connections that the system has taken for the door but nobody has accepted.
// Closing the door would reset them, with the requests that they may carry.
func (d *door) emptyQueue() {
	raw, err := d.ln.SyscallConn()
	if err != nil {
		return
	}

	// The listener is closed already if this fails.
	_ = raw.Control(func(fd uintptr) {
		for {
			sock, _, err := unix.Accept4(int(fd), unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
			if err != nil {
				return // nobody waits
			}

			if c := connOf(sock); c != nil {
				d.admit(c)
			}
		}
	})
}

// connOf hands a socket to the runtime; nil if that does not go.
func connOf(sock int) *net.TCPConn {
	f := os.NewFile(uintptr(sock), "accepted")
	defer f.Close() //nolint:errcheck // the duplicate lives on

	c, err := net.FileConn(f) // a duplicate
	if err != nil {
		return nil
	}

	tcp, ok := c.(*net.TCPConn)
	if !ok {
		_ = c.Close()
	}

	return tcp
}
