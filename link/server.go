package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Handler answers a request by calling Respond exactly once, on any goroutine. A handler that
// returns without Respond must see to it that somebody calls it later.
type Handler func(*Request)

// ServerConfig of a Server. Zero values take the defaults in the comments.
type ServerConfig struct {
	// MaxInFlight bounds the calls of one connection that are being handled; default 2048.
	// Calls over it are answered with 503.
	MaxInFlight int
	// DeadAfter closes a connection on which nothing came for so long; default 10 s. Clients ping twice a second.
	DeadAfter time.Duration
	// HandshakeTimeout bounds the preface; default 2 s.
	HandshakeTimeout time.Duration
	// IdleHandler is how long a handler goroutine waits for its next request; default 10 s.
	IdleHandler time.Duration
	// OnPanic is told of a panic in a handler, which answers 500 for that one call.
	OnPanic func(value any, stack []byte)
}

func (c *ServerConfig) defaults() {
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 2048
	}

	if c.DeadAfter <= 0 {
		c.DeadAfter = 10 * time.Second
	}

	if c.HandshakeTimeout <= 0 {
		c.HandshakeTimeout = 2 * time.Second
	}

	if c.IdleHandler <= 0 {
		c.IdleHandler = 10 * time.Second
	}

	if c.OnPanic == nil {
		c.OnPanic = func(any, []byte) {}
	}
}

// Server answers calls on the connections of one listener. It is safe for concurrent use.
type Server struct {
	cfg     ServerConfig
	handler Handler
	work    chan *Request
	stop    chan struct{}
	once    sync.Once
	wg      sync.WaitGroup
	active  atomic.Int64

	// mu guards the fields below.
	mu       sync.Mutex
	conns    map[*serverConn]struct{}
	draining bool
	closed   bool
}

// NewServer returns a server that starts with Serve.
func NewServer(cfg ServerConfig, h Handler) *Server {
	cfg.defaults()

	return &Server{
		cfg: cfg, handler: h, work: make(chan *Request), stop: make(chan struct{}),
		conns: map[*serverConn]struct{}{},
	}
}

// Serve accepts connections until Close, after which it returns nil. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	defer ln.Close() //nolint:errcheck // closed by Close already

	done := make(chan struct{})
	defer close(done)

	go func() {
		select {
		case <-s.stop:
			ln.Close() //nolint:errcheck // that is how Accept learns
		case <-done:
		}
	}()

	for {
		nc, err := ln.Accept()
		if err != nil {
			select {
			case <-s.stop:
				return nil
			default:
			}

			var ne net.Error
			if errors.As(err, &ne) && ne.Timeout() {
				continue
			}

			return fmt.Errorf("link: accept: %w", err)
		}

		c := &serverConn{server: s, nc: nc, w: newWriter(nc, 2*time.Second), calls: map[uint64]*Request{}}
		if s.add(c) {
			s.wg.Go(c.run)
		} else {
			nc.Close() //nolint:errcheck // refused
		}
	}
}

func (s *Server) add(c *serverConn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.closed {
		return false
	}

	s.conns[c] = struct{}{}

	return true
}

// InFlight is the number of calls that have no answer yet.
func (s *Server) InFlight() int { return int(s.active.Load()) }

// Drain tells every client, present and future, to send no new calls. Calls that come all the same are answered.
func (s *Server) Drain() {
	s.mu.Lock()
	s.draining = true

	conns := make([]*serverConn, 0, len(s.conns))
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()

	for _, c := range conns {
		c.announceDrain()
	}
}

// Close ends all connections at once; calls in flight are cancelled. It waits for the server's goroutines.
func (s *Server) Close() {
	s.once.Do(func() { close(s.stop) })

	s.mu.Lock()
	s.closed = true

	for c := range s.conns {
		c.nc.Close() //nolint:errcheck // that is how its reader learns
	}
	s.mu.Unlock()

	s.wg.Wait()
}

// dispatch hands a request to an idle handler goroutine, or starts one.
func (s *Server) dispatch(r *Request) {
	select {
	case s.work <- r:
	default:
		s.wg.Go(func() { s.handle(r) })
	}
}

func (s *Server) handle(r *Request) {
	idle := time.NewTimer(s.cfg.IdleHandler)
	defer idle.Stop()

	for {
		s.call(r)
		idle.Reset(s.cfg.IdleHandler)

		select {
		case r = <-s.work:
		case <-idle.C:
			return
		case <-s.stop:
			return
		}
	}
}

func (s *Server) call(r *Request) {
	// After Respond the request may already carry another call, which a late panic must not answer.
	use := r.use.Load()

	defer func() {
		if v := recover(); v != nil {
			s.cfg.OnPanic(v, debug.Stack())

			if r.use.Load() == use && !r.answered.Swap(true) {
				r.respond(500, nil, []byte(`{"error_code":"ModelArts.0010","error_msg":"Internal error."}`))
			}
		}
	}()

	s.handler(r)
}

// serverConn is one connection. mu guards calls and gone.
type serverConn struct {
	server *Server
	nc     net.Conn
	w      *writer

	mu    sync.Mutex
	calls map[uint64]*Request
	gone  bool
	drain atomic.Bool
}

func (c *serverConn) run() {
	defer c.end()

	if err := c.handshake(); err != nil {
		return
	}

	c.server.mu.Lock()
	draining := c.server.draining
	c.server.mu.Unlock()

	if draining {
		c.announceDrain()
	}

	err := readFrames(deadlineReader{c.nc, c.server.cfg.DeadAfter}, c.frame)
	c.w.fail(err)
}

// deadlineReader gives up when nothing comes for so long.
type deadlineReader struct {
	nc    net.Conn
	limit time.Duration
}

func (r deadlineReader) Read(p []byte) (int, error) {
	if err := r.nc.SetReadDeadline(time.Now().Add(r.limit)); err != nil {
		return 0, err //nolint:wrapcheck // the reader's caller only needs to know that it is over
	}

	return r.nc.Read(p) //nolint:wrapcheck // io.EOF keeps its meaning
}

func (c *serverConn) handshake() error {
	if err := c.nc.SetDeadline(time.Now().Add(c.server.cfg.HandshakeTimeout)); err != nil {
		return fmt.Errorf("link: handshake: %w", err)
	}

	low, high, err := readPreface(c.nc)
	if err != nil {
		return err
	}

	if low > Version || high < Version {
		writePreface(c.nc, 0, 0) //nolint:errcheck // the connection ends anyway

		return fmt.Errorf("link: no common version: the client speaks %d to %d", low, high)
	}

	if err := writePreface(c.nc, Version, Version); err != nil {
		return err
	}

	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("link: handshake: %w", err)
	}

	return nil
}

// end cancels whatever is still running for a client that is gone.
func (c *serverConn) end() {
	c.w.fail(errClosed)
	c.nc.Close() //nolint:errcheck // nothing to do about it

	c.mu.Lock()
	c.gone = true

	for _, r := range c.calls {
		r.ctx.cancel(context.Canceled)
	}
	c.mu.Unlock()

	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
}

func (c *serverConn) announceDrain() {
	if c.drain.Swap(true) {
		return
	}

	const n = lengthSize + typeSize
	if c.w.lock(n) != nil {
		return
	}

	c.w.buf = appendLength(c.w.buf, 0, frameDrain)
	c.w.commit(n)
}

func (c *serverConn) frame(t frameType, payload []byte) error {
	switch t {
	case frameCall:
		return c.call(payload)
	case frameCancel:
		id, err := parseID(payload)
		if err != nil {
			return err
		}

		c.mu.Lock()
		if r := c.calls[id]; r != nil {
			r.ctx.cancel(context.Canceled)
		}
		c.mu.Unlock()

		return nil
	case framePing:
		id, err := parseID(payload)
		if err != nil {
			return err
		}

		return c.w.sendID(framePong, id)
	case framePong, frameDrain:
		return nil
	case frameAnswer:
		return fmt.Errorf("%w: an answer from a client", ErrFrame)
	default:
		return nil // a later version's frame that does not matter to us
	}
}

func (c *serverConn) call(payload []byte) error {
	var h callHead
	if err := parseCall(payload, &h); err != nil {
		return err
	}

	r, ok := requests.Get().(*Request)
	if !ok {
		r = new(Request)
	}

	r.fill(c, &h)

	c.mu.Lock()

	_, twice := c.calls[h.id]
	full := len(c.calls) >= c.server.cfg.MaxInFlight

	if !twice && !full {
		c.calls[h.id] = r
	}
	c.mu.Unlock()

	if twice {
		return fmt.Errorf("%w: call id used twice", ErrFrame)
	}

	c.server.active.Add(1)

	if full {
		r.Respond(503, nil, []byte(`{"error_code":"Sluice.4001","error_msg":"The worker has too many calls in flight."}`))

		return nil
	}

	c.server.dispatch(r)

	return nil
}

var requests = sync.Pool{New: func() any { return new(Request) }} //nolint:gochecknoglobals // a pool has to be shared to be of use

// keepRequest is the largest memory that a pooled request keeps.
const keepRequest = 32 << 10

// Request is one call at the worker. Its slices are valid until Respond.
type Request struct {
	Method, Path []byte
	Header       Header
	Body         []byte

	conn     *serverConn
	id       uint64
	mem      []byte
	ctx      *callContext
	answered atomic.Bool
	use      atomic.Uint64 // grows with every release
}

func (r *Request) fill(c *serverConn, h *callHead) {
	r.mem = append(r.mem[:0], h.method...)
	r.mem = append(r.mem, h.path...)
	r.mem = append(r.mem, h.header.buf...)
	r.mem = append(r.mem, h.body...)

	m := r.mem
	r.Method, m = m[:len(h.method):len(h.method)], m[len(h.method):]
	r.Path, m = m[:len(h.path):len(h.path)], m[len(h.path):]
	r.Header = Header{buf: m[:len(h.header.buf):len(h.header.buf)], n: h.header.n}
	r.Body = m[len(h.header.buf):]
	r.conn, r.id = c, h.id
	r.answered.Store(false)

	r.ctx = &callContext{done: make(chan struct{})}
	if h.timeoutMs > 0 {
		r.ctx.deadline = time.Now().Add(time.Duration(h.timeoutMs) * time.Millisecond)
	}
}

// Context ends when the client cancels or is gone. Its Deadline is the call's; reaching
// it does not end the context by itself, because the client sends cancel then.
func (r *Request) Context() context.Context { return r.ctx }

// Respond sends the answer and gives the request back; nothing of it may be used afterwards.
// header may be nil. An answer that is too large for a link becomes a 500.
func (r *Request) Respond(status int, header *Header, body []byte) {
	if r.answered.Swap(true) {
		panic("BUG: link: Respond called twice")
	}

	r.respond(status, header, body)
}

func (r *Request) respond(status int, header *Header, body []byte) {
	a := answerHead{id: r.id, status: status, body: body}
	if header != nil {
		a.header = *header
	}

	if len(body) > MaxBody || status < 100 || status > 599 {
		a = answerHead{
			id: r.id, status: 500,
			body: []byte(`{"error_code":"ModelArts.0010","error_msg":"The answer is too large for the link."}`),
		}
	}

	c := r.conn

	c.mu.Lock()
	if c.calls[r.id] == r {
		delete(c.calls, r.id)
	}
	c.mu.Unlock()
	c.server.active.Add(-1)

	n := lengthSize + typeSize + answerFixed + len(a.header.buf) + len(a.body)
	if c.w.lock(n) == nil {
		c.w.buf = appendAnswer(c.w.buf, &a)
		c.w.commit(n)
	}

	r.release()
}

func (r *Request) release() {
	r.use.Add(1)

	if cap(r.mem) > keepRequest {
		r.mem = nil
	}

	r.Method, r.Path, r.Body, r.Header = nil, nil, nil, Header{}
	r.conn, r.ctx = nil, nil
	requests.Put(r)
}

// callContext is a context that is cancelled by frames; it is cheaper than context.WithCancel.
type callContext struct {
	deadline time.Time
	done     chan struct{}
	once     sync.Once
	err      atomic.Pointer[error]
}

func (c *callContext) cancel(err error) {
	c.once.Do(func() {
		c.err.Store(&err)
		close(c.done)
	})
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.done }

// Err implements context.Context.
func (c *callContext) Err() error {
	if p := c.err.Load(); p != nil {
		return *p
	}

	return nil
}

// Value implements context.Context.
func (*callContext) Value(any) any { return nil }

var _ io.Reader = deadlineReader{}
