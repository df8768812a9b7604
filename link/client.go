package link

import (
	"context"
	"crypto/tls"
	"errors"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a Client. Zero values take the defaults in the comments.
type Config struct {
	// Network and Address: "unix" and a path, or "tcp" and host:port.
	Network, Address string
	// TLS, when set, wraps TCP. Set Certificates for mutual TLS.
	TLS *tls.Config
	// Conns is the number of connections; default 1.
	Conns int
	// MaxInFlight bounds the calls on one connection; default 1024.
	MaxInFlight int
	// MaxAnswer bounds the body of an answer; default 64 MiB.
	MaxAnswer int
	// DialTimeout includes handshakes; default 1 s.
	DialTimeout time.Duration
	// DeadAfter is how long a silent connection may stay before it counts as dead; default 2 s.
	DeadAfter time.Duration
	// OnDrain is called once per connection when the worker announces that it drains.
	OnDrain func()
}

func (c *Config) defaults() {
	if c.Conns <= 0 {
		c.Conns = 1
	}

	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 1024
	}

	if c.MaxAnswer <= 0 {
		c.MaxAnswer = 64 << 20
	}

	if c.DialTimeout <= 0 {
		c.DialTimeout = time.Second
	}

	if c.DeadAfter <= 0 {
		c.DeadAfter = 2 * time.Second
	}
}

// Error tells why a call has no answer.
type Error struct {
	// Reached is true if the worker may have seen the call.
	Reached bool
	cause   error
}

// Error implements error.
func (e *Error) Error() string { return "link: no answer: " + e.cause.Error() }

// Unwrap returns the cause: a context error, ErrBusy, ErrDraining or a network error.
func (e *Error) Unwrap() error { return e.cause }

// Causes of an Error.
var (
	ErrBusy     = errors.New("link: too many calls in flight")
	ErrDraining = errors.New("link: the worker is draining")
	ErrDead     = errors.New("link: the connection is dead")
	ErrAnswer   = errors.New("link: the answer is too large")
)

// Call is what a client sends. Slices are read until Do returns.
type Call struct {
	Method, Path []byte
	Header       Header
	Body         []byte
	// Timeout is told to the worker and ends Do; 0 means only ctx does.
	Timeout time.Duration
}

// Fits reports whether the call can travel on a link.
func (c *Call) Fits() bool { return callFits(c.Method, c.Path, &c.Header, c.Body) == nil }

// Answer is what comes back. It owns its memory; reuse it to save allocations.
type Answer struct {
	Status int
	Header Header
	Body   []byte
}

func (a *Answer) set(h *answerHead) {
	a.Status = h.status
	a.Header.buf = append(a.Header.buf[:0], h.header.buf...)
	a.Header.n = h.header.n
	a.Body = append(a.Body, h.body...)
}

// Draining reports whether the worker said on every connection that it takes no new calls.
func (c *Client) Draining() bool {
	c.mu.Lock()
	defer c.mu.Unlock()

	seen := false

	for _, conn := range c.conns {
		if conn == nil || conn.dead.Load() {
			continue
		}

		if !conn.draining.Load() {
			return false
		}

		seen = true
	}

	return seen
}

// Client sends calls to one worker. It is safe for concurrent use.
type Client struct {
	cfg  Config
	next atomic.Uint32

	// mu guards the fields below.
	mu     sync.Mutex
	conns  []*clientConn // nil where not connected
	dials  []*dialing    // nil where nobody dials
	closed bool
}

// dialing is a dial under way; err is set before done is closed.
type dialing struct {
	done chan struct{}
	err  error
}

// NewClient returns a client that connects when it is first used.
func NewClient(cfg Config) *Client {
	cfg.defaults()

	return &Client{cfg: cfg, conns: make([]*clientConn, cfg.Conns), dials: make([]*dialing, cfg.Conns)}
}

// Do sends call and waits for the answer. Without a nil error, it is an *Error.
func (c *Client) Do(ctx context.Context, call *Call, ans *Answer) error {
	if err := callFits(call.Method, call.Path, &call.Header, call.Body); err != nil {
		return &Error{cause: err}
	}

	slot := int(c.next.Add(1)) % c.cfg.Conns

	conn, err := c.conn(ctx, slot)
	if err != nil {
		return &Error{cause: err}
	}

	return conn.do(ctx, call, ans)
}

// conn returns the live connection of a slot. If there is none, one caller dials and the others share the result.
func (c *Client) conn(ctx context.Context, slot int) (*clientConn, error) {
	for {
		c.mu.Lock()

		if c.closed {
			c.mu.Unlock()

			return nil, errClosed
		}

		if conn := c.conns[slot]; conn != nil && !conn.dead.Load() {
			c.mu.Unlock()

			return conn, nil
		}

		d := c.dials[slot]
		if d == nil {
			d = &dialing{done: make(chan struct{})}
			c.dials[slot] = d
			c.mu.Unlock()

			return c.dial(ctx, slot, d)
		}

		c.mu.Unlock()

		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// dial outlives its caller's cancellation, because others wait for it; DialTimeout bounds it.
func (c *Client) dial(ctx context.Context, slot int, d *dialing) (*clientConn, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), c.cfg.DialTimeout)
	defer cancel()

	conn, err := dialConn(ctx, &c.cfg)

	c.mu.Lock()
	defer c.mu.Unlock()

	if err == nil && c.closed {
		conn.nc.Close() //nolint:errcheck // nothing was sent on it

		err = errClosed
	}

	if err == nil {
		c.conns[slot] = conn
		conn.start()
	}

	d.err = err
	c.dials[slot] = nil
	close(d.done)

	return conn, err
}

// Close ends all connections; calls in flight fail. It waits for the goroutines of the client.
func (c *Client) Close() {
	c.mu.Lock()
	c.closed = true
	conns := append([]*clientConn(nil), c.conns...)
	c.mu.Unlock()

	for _, conn := range conns {
		if conn != nil {
			conn.fail(errClosed)
			conn.wg.Wait()
		}
	}
}
