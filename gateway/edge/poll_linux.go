package edge

import "golang.org/x/sys/unix"

// poller asks the kernel which sockets were closed by the other side. POLLRDHUP is told even while bytes
// wait to be read, as a pipelined request or TLS's good-bye do.
type poller struct {
	fds  []unix.PollFd
	gone []bool
}

func (p *poller) add(fd int) {
	p.fds = append(p.fds, unix.PollFd{Fd: int32(fd), Events: unix.POLLRDHUP})
}

func (p *poller) poll() []bool {
	p.gone = p.gone[:0]

	if len(p.fds) == 0 {
		return p.gone
	}

	n, err := unix.Poll(p.fds, 0)
	if err != nil || n == 0 {
		return p.gone
	}

	for i := range p.fds {
		// POLLNVAL is a connection of our own that has just been closed.
		p.gone = append(p.gone, p.fds[i].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0)
	}

	return p.gone
}

func (p *poller) reset() { p.fds = p.fds[:0] }
