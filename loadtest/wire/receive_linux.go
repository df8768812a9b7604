package wire

import (
	"errors"
	"io"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// handle reads what a connection has.
func (l *Loop) handle(fd int, ready uint32) {
	c := l.conns[fd]
	if c == nil {
		return
	}

	if ready&unix.EPOLLOUT != 0 && !l.flush(c) {
		return
	}

	for !c.ended {
		n, err := c.read(l.rbuf)
		if n > 0 && !l.take(c, l.rbuf[:n]) {
			return
		}

		if err == nil && (n == len(l.rbuf) || c.tls != nil) {
			continue
		}

		if err == nil && ready&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) == 0 {
			return
		}

		if err != nil {
			l.readError(c, err)

			return
		}
	}
}

func (l *Loop) readError(c *conn, err error) {
	if errors.Is(err, errWouldBlock) {
		return
	}

	now := l.now()

	if errors.Is(err, io.EOF) && c.inFlight() > 0 && c.frames == nil && c.parser.eof() {
		l.answered(c, now)

		return
	}

	l.broken(c, now, classify(err))
}

func (l *Loop) flush(c *conn) bool {
	err := c.sock.flush()
	if err == nil && len(c.sock.out) == 0 && c.writing {
		c.writing = false
		err = l.poll.writing(c.sock.fd, false)
	}

	if err != nil {
		l.broken(c, l.now(), classify(err))
	}

	return err == nil
}

// take gives bytes to the reader of the protocol; false when the connection has ended.
func (l *Loop) take(c *conn, b []byte) bool {
	now := l.now()

	if c.frames != nil {
		return l.takeFrames(c, b, now)
	}

	for len(b) > 0 {
		if c.inFlight() == 0 {
			l.broken(c, now, measure.Malformed) // an answer that nobody asked for

			return false
		}

		if f := c.first(); f.firstByte == 0 {
			f.firstByte = now
		}

		n, done, err := c.parser.feed(b)
		b = b[n:]

		if err != nil {
			l.broken(c, now, measure.Malformed)

			return false
		}

		if !done {
			return true
		}

		if len(b) > 0 {
			l.settle(c, now, c.parser.status, measure.Malformed)
			l.broken(c, now, measure.Malformed)

			return false
		}

		if !l.answered(c, now) {
			return false
		}
	}

	return true
}

func (l *Loop) takeFrames(c *conn, b []byte, now int64) bool {
	for len(b) > 0 {
		n, what, err := c.frames.feed(b)
		b = b[n:]

		if err != nil {
			l.broken(c, now, measure.Malformed)

			return false
		}

		if c.frames.started && c.inFlight() > 0 && c.first().firstByte == 0 {
			c.first().firstByte = now
		}

		switch what {
		case foundNothing:
			return true
		case foundClose:
			l.broken(c, now, measure.Closed)

			return false
		case foundPing:
			l.frame = appendFrame(l.frame[:0], opPong, c.frames.body, l.rng)
			c.frames.body = c.frames.body[:0]

			if err := c.write(l, l.frame); err != nil {
				l.broken(c, now, classify(err))

				return false
			}
		case foundMessage:
			if c.inFlight() == 0 {
				c.frames.reset() // a message that the server sends of its own accord

				continue
			}

			if !l.answered(c, now) {
				return false
			}
		}
	}

	return true
}

// answered counts a complete answer and makes its connection free; false when the connection has ended.
func (l *Loop) answered(c *conn, now int64) bool {
	status, failure := c.parser.status, measure.None

	if c.parser.sse && c.events.failed {
		failure = measure.StreamFail
	}

	if c.frames != nil {
		status = statusMessage
	}

	ends := c.frames == nil && c.parser.close

	full := c.inFlight() == l.cfg.InFlight
	l.settle(c, now, status, failure)

	if ends {
		l.drop(c)
	} else if full {
		l.free = append(l.free, c)
	}

	l.dispatch(now)

	return !c.ended
}

// statusMessage stands for the answer to a WebSocket message, which has no status.
const statusMessage = 200
