package link

import (
	"errors"
	"fmt"
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
	// Quick, when set, is offered every call on the goroutine that reads them. It takes the call, and
	// answers it, by returning true; false leaves the call to the Handler. It must not wait.
	Quick func(*Request) bool
	// Pause, when set, is called when all calls that had arrived were offered.
	Pause func()
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
		c.out.w = c.w
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

// InFlight is the number of calls that have no answer yet, and of connections with answers that are not
// sent yet.
func (s *Server) InFlight() int {
	n := int(s.active.Load())

	s.mu.Lock()
	defer s.mu.Unlock()

	for c := range s.conns {
		if c.w.waiting() {
			n++
		}
	}

	return n
}

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
	defer s.guard(r, r.use.Load())

	s.handler(r)
}

// quick offers a call on the goroutine that reads.
func (s *Server) quick(r *Request) (took bool) {
	if s.cfg.Quick == nil {
		return false
	}

	took = true //nolint:wastedassign // what is returned if it panics

	defer s.guard(r, r.use.Load())

	took = s.cfg.Quick(r)

	return took
}

// guard answers a call whose handler panics. use tells whether the request is the same still.
func (s *Server) guard(r *Request, use uint64) {
	v := recover()
	if v == nil {
		return
	}

	s.cfg.OnPanic(v, debug.Stack())

	// After Respond the request may already carry another call, which a late panic must not answer.
	if r.use.Load() == use && !r.answered.Swap(true) {
		r.respond(500, nil, []byte(`{"error_code":"ModelArts.0010","error_msg":"Internal error."}`), false)
	}
}
