package link

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/sockio"
)

// clientConn is one connection. Each slot has its own lock; freeMu guards the list of free slots.
type clientConn struct {
	cfg      *Config
	nc       net.Conn
	w        *writer
	dead     atomic.Bool
	draining atomic.Bool
	lastRead atomic.Int64 // nanoseconds since began
	began    time.Time
	stop     chan struct{}
	once     sync.Once
	wg       sync.WaitGroup

	freeMu sync.Mutex
	free   []*slot
	slots  []*slot
}

// slot is the place of one call in flight. mu guards gen, waiting, ans and err.
type slot struct {
	index uint32
	mu    sync.Mutex
	gen   uint32
	// waiting is true from the call until the answer, the failure or the cancel, whichever is first.
	waiting bool
	ans     *Answer
	err     error
	done    chan struct{} // holds one token when the call has ended otherwise than by its caller
	// expires is when the call ends by itself, in time since the connection began; 0 is never.
	expires time.Duration
	dropped bool        // the worker is to be told that nobody waits any more
	end     func()      // ends the call because its context ended; bound once
	timer   *time.Timer // for calls that the sweep would end too late
}

func (s *slot) id() uint64 { return uint64(s.gen)<<32 | uint64(s.index) }

func dialConn(ctx context.Context, cfg *Config) (*clientConn, error) {
	var d net.Dialer

	nc, err := d.DialContext(ctx, cfg.Network, cfg.Address)
	if err != nil {
		return nil, fmt.Errorf("link: dial: %w", err)
	}

	if cfg.TLS != nil {
		nc = tls.Client(nc, cfg.TLS)
	}

	if err := handshake(ctx, nc); err != nil {
		nc.Close() //nolint:errcheck // the handshake's error is the one that counts

		return nil, err
	}

	return &clientConn{
		cfg: cfg, nc: nc, w: newWriter(nc, cfg.DeadAfter), began: time.Now(), stop: make(chan struct{}),
	}, nil
}

func handshake(ctx context.Context, nc net.Conn) error {
	if deadline, ok := ctx.Deadline(); ok {
		if err := nc.SetDeadline(deadline); err != nil {
			return fmt.Errorf("link: handshake: %w", err)
		}
	}

	if err := writePreface(nc, Version, Version); err != nil {
		return err
	}

	low, high, err := readPreface(nc)
	if err != nil {
		return err
	}

	if low != Version || high != Version {
		return fmt.Errorf("link: the worker speaks no version in common (we speak %d)", Version)
	}

	if err := nc.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("link: handshake: %w", err)
	}

	return nil
}

func (c *clientConn) start() {
	c.wg.Go(func() { c.fail(readFrames(sockio.NewReader(c.nc), c.frame, nil)) })
	c.wg.Go(c.keep)
}

// do sends one call on this connection and waits.
func (c *clientConn) do(ctx context.Context, call *Call, ans *Answer) error {
	if c.draining.Load() {
		return &Error{cause: ErrDraining}
	}

	s := c.take(ans)
	if s == nil {
		return &Error{cause: ErrBusy}
	}

	s.arm(c, call.Timeout)

	at, err := c.send(s, call)
	if err != nil {
		c.giveBack(s)

		return &Error{cause: err}
	}

	return c.wait(ctx, s, at)
}

func (c *clientConn) send(s *slot, call *Call) (uint64, error) {
	head := callHead{
		id: s.id(), timeoutMs: uint32(min(call.Timeout.Milliseconds(), 1<<31)),
		method: call.Method, path: call.Path, header: call.Header, body: call.Body,
	}
	n := lengthSize + typeSize + callFixed + len(head.method) + len(head.path) + len(head.header.buf) + len(head.body)

	if err := c.w.lock(n); err != nil {
		return 0, err
	}

	c.w.buf = appendCall(c.w.buf, &head)

	return c.w.commit(n), nil
}

func (c *clientConn) take(ans *Answer) *slot {
	c.freeMu.Lock()

	var s *slot

	switch {
	case c.dead.Load():
	case len(c.free) > 0:
		s = c.free[len(c.free)-1]
		c.free = c.free[:len(c.free)-1]
	case len(c.slots) < c.cfg.MaxInFlight:
		s = newSlot(uint32(len(c.slots)))
		c.slots = append(c.slots, s)
	}

	if s != nil {
		s.mu.Lock()
		s.gen++
		s.waiting, s.ans, s.err, s.dropped, s.expires = true, ans, nil, false, 0
		ans.Body = ans.Body[:0]
		s.mu.Unlock()
	}

	c.freeMu.Unlock()

	return s
}

func (c *clientConn) giveBack(s *slot) {
	if s.timer != nil {
		s.timer.Stop()
	}

	s.mu.Lock()
	ended := !s.waiting // by failure, between take and send
	s.waiting, s.ans = false, nil
	s.gen++
	s.mu.Unlock()

	if ended {
		select {
		case <-s.done:
		default:
		}
	}

	c.freeMu.Lock()
	c.free = append(c.free, s)
	c.freeMu.Unlock()
}

func (c *clientConn) frame(t frameType, payload []byte) error {
	c.lastRead.Store(int64(time.Since(c.began)))

	switch t {
	case frameAnswer:
		return c.answer(payload)
	case frameMore:
		return c.more(payload)
	case frameDrain:
		if !c.draining.Swap(true) && c.cfg.OnDrain != nil {
			c.cfg.OnDrain()
		}

		return nil
	case framePing:
		id, err := parseID(payload)
		if err != nil {
			return err
		}

		return c.w.sendID(framePong, id)
	case framePong:
		return nil
	case frameCall, frameCancel:
		return fmt.Errorf("%w: type %d from a worker", ErrFrame, t)
	default:
		return nil // a later version's frame that does not matter to us
	}
}

func (c *clientConn) answer(payload []byte) error {
	var a answerHead
	if err := parseAnswer(payload, &a); err != nil {
		return err
	}

	s, err := c.slot(a.id)
	if err != nil {
		return err
	}

	s.mu.Lock()
	if s.waiting && s.id() == a.id {
		s.ans.set(&a)
		s.waiting = false
		s.done <- struct{}{}
	}
	s.mu.Unlock()

	return nil
}

// more adds a piece of a long answer. One that grows over the bound fails its call alone.
func (c *clientConn) more(payload []byte) error {
	id, piece, err := parseMore(payload)
	if err != nil {
		return err
	}

	s, err := c.slot(id)
	if err != nil {
		return err
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	switch {
	case !s.waiting || s.id() != id:
	case len(s.ans.Body)+len(piece) > c.cfg.MaxAnswer:
		s.err = ErrAnswer
		s.waiting = false
		s.done <- struct{}{}
	default:
		s.ans.Body = append(s.ans.Body, piece...)
	}

	return nil
}

// slot finds the place of a call by its id.
func (c *clientConn) slot(id uint64) (*slot, error) {
	c.freeMu.Lock()
	defer c.freeMu.Unlock()

	if index := uint32(id); int(index) < len(c.slots) {
		return c.slots[index], nil
	}

	return nil, fmt.Errorf("%w: answer to a call that never was", ErrFrame)
}

// keep pings a silent connection and declares it dead when nothing comes back.
func (c *clientConn) keep() {
	tick := time.NewTicker(c.cfg.DeadAfter / 4)
	defer tick.Stop()

	for {
		select {
		case <-c.stop:
			return
		case <-tick.C:
		}

		now := time.Since(c.began)
		c.sweep(now)

		silent := now - time.Duration(c.lastRead.Load())
		if silent >= c.cfg.DeadAfter {
			c.fail(ErrDead)

			return
		}

		if silent >= c.cfg.DeadAfter/4 {
			c.ping()
		}
	}
}

// ping never waits for room: a full buffer is a sign of its own.
func (c *clientConn) ping() {
	const n = lengthSize + typeSize + 8

	c.w.mu.Lock()
	if c.w.err != nil || c.w.flushing {
		c.w.mu.Unlock()

		return
	}

	c.w.buf = appendID(c.w.buf, framePing, uint64(time.Since(c.began)))
	c.w.commit(n)
}

// fail ends the connection and every call on it, each once.
func (c *clientConn) fail(err error) {
	c.once.Do(func() {
		c.dead.Store(true)
		c.w.fail(err)
		c.nc.Close() //nolint:errcheck // nothing to do about it
		close(c.stop)

		c.freeMu.Lock()
		slots := c.slots
		c.freeMu.Unlock()

		for _, s := range slots {
			s.mu.Lock()
			if s.waiting {
				s.waiting = false
				s.err = err
				s.done <- struct{}{}
			}
			s.mu.Unlock()
		}
	})
}
