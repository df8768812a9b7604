package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// flight is a request under way.
type flight struct {
	intended, started, firstByte int64
	target                       int
	waited                       bool
}

// conn is one connection of a Loop.
type conn struct {
	sock    *sock
	tls     *tls.Conn
	parser  parser
	frames  *frames // of a WebSocket
	events  *events
	flights []flight // a ring
	head, n int
	writing bool // waits for room to write
	ended   bool
}

func (c *conn) inFlight() int  { return c.n }
func (c *conn) first() *flight { return &c.flights[c.head] }

func (c *conn) push(f flight) {
	c.flights[(c.head+c.n)%len(c.flights)] = f
	c.n++
}

func (c *conn) shift() flight {
	f := c.flights[c.head]
	c.head = (c.head + 1) % len(c.flights)
	c.n--

	return f
}

func (c *conn) read(b []byte) (int, error) {
	if c.tls != nil {
		return c.tls.Read(b) //nolint:wrapcheck // classified by the caller
	}

	return c.sock.Read(b)
}

// write sends bytes; what does not fit is sent when there is room.
func (c *conn) write(l *Loop, b []byte) error {
	var err error
	if c.tls != nil {
		_, err = c.tls.Write(b)
	} else {
		_, err = c.sock.Write(b)
	}

	if err != nil {
		return err //nolint:wrapcheck // classified by the caller
	}

	if len(c.sock.out) > 0 && !c.writing {
		c.writing = true

		return l.poll.writing(c.sock.fd, true)
	}

	return nil
}

func classify(err error) measure.Failure {
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return measure.Closed
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return measure.Reset
	case errors.Is(err, unix.ETIMEDOUT):
		return measure.Timeout
	default:
		return measure.Other
	}
}

// adopt makes a connection part of the loop.
func (l *Loop) adopt(k *link) {
	if err := k.sock.detach(); err != nil {
		l.stats.DialErrors++

		return
	}

	fd := k.sock.fd
	if l.poll.add(fd) != nil {
		k.sock.Close() //nolint:errcheck // the connection is given up
		l.stats.DialErrors++

		return
	}

	c := &conn{sock: k.sock, tls: k.tls, flights: make([]flight, l.cfg.InFlight)}
	c.parser.headOnly = l.cfg.HeadOnly

	if l.cfg.Endpoint.Upgrade != nil {
		c.frames = &frames{}
	} else if l.cfg.Stream {
		c.events = &events{now: l.now, onGap: l.rec.Gap}
		c.parser.events = c.events
	}

	for len(l.conns) <= fd {
		l.conns = append(l.conns, nil)
	}

	l.conns[fd] = c
	l.open++
	l.stats.Connections = max(l.stats.Connections, l.open)
	l.free = append(l.free, c)

	if len(k.rest) > 0 {
		l.take(c, k.rest)
	}

	if c.tls != nil && !c.ended {
		l.handle(fd, 0) // the handshake may have read ahead
	}
}

// drop closes a connection. What was under way on it must have been settled.
func (l *Loop) drop(c *conn) {
	if c.ended {
		return
	}

	c.ended = true
	l.conns[c.sock.fd] = nil
	l.open--

	c.sock.Close() //nolint:errcheck // nothing to do about it
}

// broken ends a connection and everything under way on it.
func (l *Loop) broken(c *conn, now int64, why measure.Failure) {
	if c.ended {
		return
	}

	for c.inFlight() > 0 {
		l.settle(c, now, c.parser.status, why)
	}

	l.drop(c)
}

// settle records the oldest request on a connection.
func (l *Loop) settle(c *conn, now int64, status int, failure measure.Failure) {
	f := c.shift()
	l.busy--

	s := &l.sample
	*s = measure.Sample{
		Target: f.target, Intended: f.intended, Started: f.started, FirstByte: f.firstByte, End: now,
		Waited: f.waited, Status: status, Failure: failure, Bytes: c.parser.bytes, Body: c.parser.body,
	}

	if c.frames != nil {
		s.Bytes, s.Body = c.frames.bytes, c.frames.body
		if isErrorMessage(s.Body) {
			s.Status = statusErrorMessage
		}

		c.frames.reset()
	} else {
		c.parser.reset()
	}

	if c.events != nil {
		if c.events.count > 0 {
			s.FirstByte = c.events.first
		}

		c.events.reset()
	}

	l.rec.Record(s)
}

// statusErrorMessage stands for a WebSocket message that tells an error.
const statusErrorMessage = 500

func isErrorMessage(b []byte) bool {
	const mark = `{"error_code"`

	return len(b) >= len(mark) && string(b[:len(mark)]) == mark
}

func (l *Loop) scanEvery() time.Duration {
	return min(max(l.cfg.Timeout/20, time.Millisecond), 100*time.Millisecond)
}

// scan ends what has taken too long.
func (l *Loop) scan(now int64) {
	l.nextScan = now + int64(l.scanEvery())

	for _, c := range l.conns {
		if c != nil && c.inFlight() > 0 && now-c.first().started > int64(l.cfg.Timeout) {
			l.broken(c, now, measure.Timeout)
		}
	}
}

// grow asks for more connections when requests are due and none is free.
func (l *Loop) grow() {
	if l.dialing == 0 {
		const step = 8
		l.goal = min(l.cfg.Connections, l.open+max(step, l.open/2))
	}
}

// short tells whether there should be more connections.
func (l *Loop) short() bool { return !l.over && l.open+l.dialing < l.goal }

const (
	firstBackoff = int64(10 * time.Millisecond)
	lastBackoff  = int64(time.Second)
	atATime      = 64
)

// topUp makes the connections that are missing.
func (l *Loop) topUp(ctx context.Context, now int64) {
	if l.starved && l.goal < l.cfg.Connections && l.open+l.dialing >= l.goal {
		l.grow()
	}

	for l.short() && l.dialing < atATime && now >= l.redialAt {
		l.dialing++
		l.dialed++
		l.stats.Dials++

		n := l.dialed

		l.wg.Go(func() {
			k, err := l.cfg.Endpoint.dial(ctx, n)

			l.ready.Lock()
			l.ready.list = append(l.ready.list, dialed{link: k, err: err, began: now})
			l.ready.Unlock()

			l.poll.wakeUp()
		})
	}
}

// welcome takes the connections that were made.
func (l *Loop) welcome() {
	l.ready.Lock()
	list := l.ready.list
	l.ready.list = nil
	l.ready.Unlock()

	for _, d := range list {
		l.dialing--

		if d.err == nil {
			l.backoff = 0
			l.adopt(d.link)

			continue
		}

		l.stats.DialErrors++
		l.dialFailed(&d)
	}
}

// dialFailed counts the requests that would have gone over a connection.
func (l *Loop) dialFailed(d *dialed) {
	now := l.now()

	if l.redialAt <= now {
		l.backoff = min(max(2*l.backoff, firstBackoff), lastBackoff)
		l.redialAt = now + l.backoff
	}

	if l.cfg.Schedule == nil {
		if _, due := l.due(now); due && l.shared.claim() {
			l.fail(d.began, now, d.err)
		}

		return
	}

	// Without any connection, everything that is due would have failed in the same way.
	for l.open == 0 {
		intended, due := l.due(now)
		if !due || !l.shared.claim() {
			return
		}

		l.fail(intended, now, d.err)
		l.advance(now)
	}
}

// discard closes connections that were made too late. No dial is under way any more.
func (l *Loop) discard() {
	for _, d := range l.ready.list {
		if d.link != nil {
			d.link.sock.Close() //nolint:errcheck // it was never used
		}
	}

	l.ready.list = nil
}
