package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// ServerConfig of a Server. Zero values take the defaults in the comments.
type ServerConfig struct {
	// DrainDelay is how long the worker keeps accepting after it was told to stop; 0 means not at all.
	DrainDelay time.Duration
	// Grace bounds everything from the signal to the end; default 90 s.
	Grace time.Duration
	// IdleTimeout of keep-alive connections; default 200 s.
	IdleTimeout time.Duration
	// ReadTimeout for a whole request; default 120 s.
	ReadTimeout time.Duration
	// WriteTimeout for a whole answer; default 120 s.
	WriteTimeout time.Duration
	// MaxHeader bounds request line and headers; default 160 KiB.
	MaxHeader int
	// MaxConns bounds connections, and WebSockets by themselves; default 16384.
	MaxConns int
	// WebSocketSpread: in a drain WebSockets are told good-bye at times spread over this; default 2 s.
	WebSocketSpread time.Duration
	// Permit, when set, says by the value of the header PermitHeader whether a request may come in.
	Permit       func(key []byte) bool
	PermitHeader string
}

func (c *ServerConfig) defaults() {
	or := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}

	or(&c.Grace, 90*time.Second)
	or(&c.IdleTimeout, 200*time.Second)
	or(&c.ReadTimeout, 120*time.Second)
	or(&c.WriteTimeout, 120*time.Second)

	or(&c.WebSocketSpread, 2*time.Second)

	if c.MaxHeader == 0 {
		c.MaxHeader = 160 << 10
	}

	if c.MaxConns == 0 {
		c.MaxConns = 16384
	}
}

// Server is the HTTP door of a worker.
type Server struct {
	cfg   ServerConfig
	app   *App
	state *State
	log   *slog.Logger
	http  *fasthttp.Server
	watch *watcher
	doors sync.Pool
	count atomic.Int64
	ws    *sockets
}

// NewServer returns a Server for app; Run starts it.
func NewServer(cfg ServerConfig, app *App, state *State, log *slog.Logger) (*Server, error) {
	cfg.defaults()

	if cfg.DrainDelay < 0 || cfg.Grace < cfg.DrainDelay {
		return nil, fmt.Errorf("serve: the grace period %v must not be shorter than the drain delay %v", cfg.Grace, cfg.DrainDelay)
	}

	s := &Server{cfg: cfg, app: app, state: state, log: log, watch: newWatcher()}
	s.doors.New = func() any { return newDoor() }
	s.ws = newSockets(s)
	s.http = &fasthttp.Server{
		KeepHijackedConns:            true, // sessions close them
		Handler:                      s.handle,
		ErrorHandler:                 s.badRequest,
		ReadBufferSize:               cfg.MaxHeader,
		ReadTimeout:                  cfg.ReadTimeout,
		WriteTimeout:                 cfg.WriteTimeout,
		IdleTimeout:                  cfg.IdleTimeout,
		Concurrency:                  cfg.MaxConns,
		MaxRequestBodySize:           int(app.cfg.MaxBody),
		NoDefaultServerHeader:        true,
		NoDefaultContentType:         true,
		DisablePreParseMultipartForm: true,
		CloseOnShutdown:              true,
		Logger:                       quiet{log},
	}

	return s, nil
}

// quiet hands fasthttp's own messages, which are about single connections, to the log.
type quiet struct{ log *slog.Logger }

// Printf implements fasthttp.Logger.
func (q quiet) Printf(format string, args ...any) {
	q.log.Debug("http connection", slog.String("text", fmt.Sprintf(format, args...)))
}

// Listen opens "host:port" or "unix:PATH". A stale socket file is removed.
func Listen(ctx context.Context, addr string) (net.Listener, error) {
	var lc net.ListenConfig

	path, unix := strings.CutPrefix(addr, "unix:")
	if !unix {
		ln, err := lc.Listen(ctx, "tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		}

		return ln, nil
	}

	if info, err := os.Stat(path); err == nil && info.Mode().Type() == os.ModeSocket {
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("remove stale socket: %w", err)
		}
	}

	ln, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", addr, err)
	}

	return ln, nil
}

// Address is how a listener is told to others: host:port or unix:PATH.
func Address(ln net.Listener) string {
	if ln.Addr().Network() == "unix" {
		return "unix:" + ln.Addr().String()
	}

	return ln.Addr().String()
}

// ErrCut says that the grace period ended, or was cut short, with requests unanswered.
var ErrCut = errors.New("requests were cut")

// Run serves ln until ctx ends, then drains: not ready at once, still accepting for DrainDelay, then
// finishing what is in flight. now ends it at once; the error tells how many requests were cut.
func (s *Server) Run(ctx context.Context, ln net.Listener, now <-chan struct{}) error {
	watchCtx, stopWatch := context.WithCancel(context.WithoutCancel(ctx))
	watched := make(chan struct{})

	go func() {
		defer close(watched)
		s.watch.run(watchCtx)
	}()

	defer func() {
		stopWatch()
		<-watched
	}()

	served := make(chan error, 1)
	go func() { served <- s.http.Serve(ln) }()

	select {
	case err := <-served:
		return fmt.Errorf("serve HTTP: %w", err)
	case <-ctx.Done():
	}

	return s.drain(served, now) //nolint:contextcheck // the context has ended; draining outlives it
}

func (s *Server) drain(served <-chan error, now <-chan struct{}) error {
	wait := s.cfg.DrainDelay
	if s.state.get().phase == failed { // nobody was ever sent here
		wait = 0
	}

	s.state.SetDraining()

	grace, cancel := context.WithTimeout(context.Background(), s.cfg.Grace)
	defer cancel()

	stopped := make(chan struct{})
	defer close(stopped)

	go func() {
		select {
		case <-now:
			cancel()
		case <-stopped:
		}
	}()

	delay := time.NewTimer(wait)
	defer delay.Stop()

	select {
	case <-delay.C:
	case <-grace.Done():
	}

	// fasthttp knows nothing of WebSockets.
	parted := make(chan int, 1)
	go func() { parted <- s.ws.drain(grace, s.cfg.WebSocketSpread) }()

	err := s.http.ShutdownWithContext(grace)
	if cut := <-parted; cut > 0 {
		s.log.Warn("websockets were cut", slog.Int("count", cut))
	}

	if left := s.count.Load(); left > 0 {
		s.watch.cancelAll()

		return fmt.Errorf("%d %w", left, ErrCut)
	}

	if err != nil && grace.Err() == nil {
		return fmt.Errorf("shut down: %w", err)
	}

	if grace.Err() == nil {
		<-served
	}

	return nil
}

// WebSockets is the number of open WebSockets.
func (s *Server) WebSockets() int { return s.ws.count() }

// InFlight is the number of requests being answered, messages of WebSockets included.
func (s *Server) InFlight() int { return int(s.count.Load()) }

// header reads fasthttp's request headers.
type header struct{ h *fasthttp.RequestHeader }

// Get implements Header.
func (h *header) Get(name string) []byte { return h.h.Peek(name) }

// handle answers one request.
func (s *Server) handle(ctx *fasthttp.RequestCtx) {
	permitted := s.cfg.Permit == nil || s.cfg.Permit(ctx.Request.Header.Peek(s.cfg.PermitHeader))

	if permitted && asksWebSocket(ctx) {
		s.ws.accept(ctx)

		return
	}

	s.count.Add(1)
	defer s.count.Add(-1)

	d, _ := s.doors.Get().(*door)
	d.ctx, d.header.h = ctx, &ctx.Request.Header

	w := s.watch.enter(ctx.Conn())
	x := &d.x
	*x = Exchange{
		Method: ctx.Method(), Path: path(ctx), Body: ctx.Request.Body(), Header: &d.header,
		TakeBody: d.take, Context: w, Start: time.Now(), Out: ctx.Response.SwapBody(nil)[:0], Extra: x.Extra[:0],
	}

	if !permitted {
		s.app.fail(x, fault.New(fault.NoCredentials, "The direct channel wants the key of the service in %s.", s.cfg.PermitHeader))
	} else {
		s.app.Serve(x)
	}

	s.watch.leave(w)

	resp := &ctx.Response
	resp.SetStatusCode(x.Status)
	resp.SwapBody(x.Out)

	if x.Type != "" {
		resp.Header.SetContentType(x.Type)
	}

	for _, h := range x.Extra {
		resp.Header.Set(h.Name, h.Value)
	}

	if s.state.Draining() {
		ctx.SetConnectionClose()
	}

	extra := x.Extra
	*x = Exchange{Extra: extra}
	d.ctx, d.header.h = nil, nil
	s.doors.Put(d)
}

// door is the pooled part of a request.
type door struct {
	x      Exchange
	ctx    *fasthttp.RequestCtx
	header header
	take   func([]byte) []byte
}

func newDoor() *door {
	d := &door{}
	d.take = func(spare []byte) []byte { return d.ctx.Request.SwapBody(spare) }

	return d
}

// path is the decoded path, with nothing else changed: what a proxy before us has matched is what counts.
func path(ctx *fasthttp.RequestCtx) []byte {
	p := ctx.URI().PathOriginal()
	if bytes.IndexByte(p, '%') < 0 {
		return p
	}

	if plain, err := url.PathUnescape(string(p)); err == nil {
		return []byte(plain)
	}

	return p
}

// badRequest answers what fasthttp could not read.
func (s *Server) badRequest(ctx *fasthttp.RequestCtx, err error) {
	code := fault.BadRequest

	var (
		small *fasthttp.ErrSmallBuffer
		netw  net.Error
	)

	switch {
	case errors.Is(err, fasthttp.ErrBodyTooLarge):
		code = fault.BodyTooLarge
	case errors.As(err, &small):
		code = fault.HeadersTooLarge
	case errors.As(err, &netw) && netw.Timeout():
		code = fault.RequestTimeout
	}

	x := Exchange{Path: ctx.Path(), Start: time.Now()}
	s.app.fail(&x, fault.Wrap(code, err, ""))
	ctx.Response.Reset()
	ctx.SetStatusCode(x.Status)
	ctx.SetContentType(x.Type)
	ctx.SetBody(x.Out)
	ctx.SetConnectionClose()
}
