package edge

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/valyala/fasthttp"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge/wire"
	"github.com/sluice-gateway/sluice/gateway/tunnel"
)

// Handler is the corridor behind the doors.
type Handler interface {
	Do(c *gateway.Call)
}

// Deps are the collaborators of an Edge.
type Deps struct {
	Handler Handler
	// TLS serves the HTTPS door; it must give certificates. Needed when Config.HTTPS is set.
	TLS *tls.Config
	Log *slog.Logger
	// Access takes the access log: JSON lines in the form of slog, in writes of whole lines. Nil
	// is no access log.
	Access io.Writer
	// Ready answers the health path; nil means always ready. A drain answers 503 in any case.
	Ready func() bool
	Hooks Hooks
}

// Edge is the doors. Listen makes it, Run serves it once.
type Edge struct {
	cfg     Config
	lim     wire.Limits
	handler Handler
	log     *slog.Logger
	ready   func() bool
	hooks   Hooks
	trusted []netip.Prefix

	// hstsValue is the whole header value, "" if it is off.
	hstsValue string

	doors  []*door
	server *fasthttp.Server
	access *accessLog

	conns     connSet
	tunnels   *tunnel.Set
	seats     seats
	inflight  atomic.Int64
	draining  atomic.Bool
	exchanges sync.Pool
	buffers   sync.Pool
	bodies    bodyPool

	ran   atomic.Bool
	abort chan struct{}
	once  sync.Once // closes abort
}

// bodySizePoolLimit keeps fasthttp from holding on to the buffers of large answers.
const bodySizePoolLimit = 64 << 10

// Listen validates the configuration and opens the doors; nothing is served before Run.
func Listen(ctx context.Context, cfg Config, deps Deps) (*Edge, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err //nolint:wrapcheck // carries its paths
	}

	if cfg.HTTPS != "" && deps.TLS == nil {
		return nil, errors.New("edge: HTTPS without a TLS configuration")
	}

	trusted, err := parsePrefixes(cfg.TrustedProxies)
	if err != nil {
		return nil, err
	}

	fasthttp.SetBodySizePoolLimit(bodySizePoolLimit, bodySizePoolLimit)

	e := &Edge{
		cfg: cfg, handler: deps.Handler, log: deps.Log, ready: deps.Ready, hooks: deps.Hooks, trusted: trusted,
		abort: make(chan struct{}),
	}
	e.hooks.fill()
	e.lim = wire.Limits{
		Line: int(cfg.Limits.RequestLine), Field: int(cfg.Limits.HeaderField),
		Head: int(cfg.Limits.Headers), Fields: cfg.Limits.HeaderCount,
	}

	if cfg.HSTS > 0 {
		e.hstsValue = "max-age=" + strconv.Itoa(int(cfg.HSTS.D().Seconds()))
	}

	e.server = e.newServer()
	e.access = newAccessLog(cfg.Log, &deps)
	e.conns.all = make(map[*conn]struct{})
	e.conns.sources = make(map[netip.Addr]int)

	e.seats.sources, e.seats.services = make(map[netip.Addr]int), make(map[string]int)

	if e.tunnels, err = tunnel.New(cfg.WebSocket.tunnel(), tunnel.Hooks{
		Panicked: func(any, []byte) { e.hooks.Panicked() },
	}, deps.Log); err != nil {
		return nil, err //nolint:wrapcheck // says where it comes from
	}

	if e.ready == nil {
		e.ready = func() bool { return true }
	}

	return e, e.open(ctx, deps.TLS)
}

func (e *Edge) open(ctx context.Context, conf *tls.Config) error {
	for _, d := range []struct {
		kind Door
		addr string
		conf *tls.Config
	}{{DoorHTTP, e.cfg.HTTP, nil}, {DoorHTTPS, e.cfg.HTTPS, conf}} {
		if d.addr == "" {
			continue
		}

		opened, err := e.listen(ctx, d.kind, d.addr, d.conf)
		if err != nil {
			return errors.Join(err, e.closeListeners())
		}

		e.doors = append(e.doors, opened)
	}

	return nil
}

// HTTPAddr is the address of the HTTP door with its real port, "" if there is none.
func (e *Edge) HTTPAddr() string { return e.addr(DoorHTTP) }

// HTTPSAddr is the address of the HTTPS door with its real port, "" if there is none.
func (e *Edge) HTTPSAddr() string { return e.addr(DoorHTTPS) }

func (e *Edge) addr(kind Door) string {
	for _, d := range e.doors {
		if d.kind == kind {
			return d.ln.Addr().String()
		}
	}

	return ""
}

// Connections is the number of open connections.
func (e *Edge) Connections() int { return e.conns.count() }

// WebSockets is the number of open WebSockets.
func (e *Edge) WebSockets() int { return e.tunnels.Count() }

// InFlight is the number of requests that were let in and not answered yet.
func (e *Edge) InFlight() int { return int(e.inflight.Load()) }

// Run serves until ctx ends, then drains as configured and returns. It may be called once.
func (e *Edge) Run(ctx context.Context) error {
	if e.ran.Swap(true) {
		return errors.New("edge: Run was called before")
	}

	// Connections, the log and the watcher outlive ctx until the drain is over.
	inner, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	var group, relay errgroup.Group

	relaying, stopRelay := context.WithCancel(inner)
	defer stopRelay()

	relay.Go(func() error { return e.tunnels.Run(relaying) })
	group.Go(func() error { return e.access.run(inner) })
	group.Go(func() error { return e.watch(inner) })

	for _, d := range e.doors {
		group.Go(func() error {
			d.accept(inner)

			return nil
		})
	}

	<-ctx.Done()

	s := e.drain(inner)
	// The last WebSockets still write to the log.
	stopRelay()

	err := relay.Wait()

	stop()

	err = errors.Join(err, group.Wait())

	e.log.Info("edge drained", slog.Int64("waited_ms", s.Waited.Milliseconds()), slog.Int("in_flight_at_start", s.InFlight),
		slog.Int("cut", s.Cut), slog.Int("connections_cut", s.Connections),
		slog.Int("websockets_at_start", s.WebSockets), slog.Int("websockets_cut", s.WebSocketsCut))

	return err //nolint:wrapcheck // of our own parts
}

// Abort ends a drain at once; a second signal calls it. It may be called at any time, also
// more than once.
func (e *Edge) Abort() { e.once.Do(func() { close(e.abort) }) }

// Close closes the doors of an Edge that was never run.
func (e *Edge) Close() error {
	e.Abort()

	return e.closeListeners()
}

func (e *Edge) closeListeners() error {
	var errs []error

	for _, d := range e.doors {
		if err := d.ln.Close(); err != nil && !isNetError(err) {
			errs = append(errs, err)
		}
	}

	return errors.Join(errs...)
}

// acquire takes an exchange for a connection whose first byte has arrived.
func (e *Edge) acquire(c *conn) *exchange {
	x, ok := e.exchanges.Get().(*exchange)
	if !ok {
		x = &exchange{buf: make([]byte, bufferSize), ctx: &callContext{}}
	}

	x.conn = c

	return x
}

func (e *Edge) release(x *exchange) {
	if len(x.buf) != bufferSize {
		x.buf = make([]byte, bufferSize)
	}

	x.conn, x.r, x.w = nil, 0, 0
	e.exchanges.Put(x)
}

// buffer takes a scratch buffer of bufferSize.
func (e *Edge) buffer() *[]byte {
	if b, ok := e.buffers.Get().(*[]byte); ok {
		return b
	}

	b := make([]byte, bufferSize)

	return &b
}

func (e *Edge) unbuffer(b *[]byte) { e.buffers.Put(b) }

// panicked logs a panic that became a 500 for one request.
func (e *Edge) panicked(v any, id string) {
	e.hooks.Panicked()
	e.log.Error("panic while serving a request", slog.String("request_id", id), slog.String("panic", fmt.Sprint(v)),
		slog.String("stack", string(debug.Stack())))
}

// Summary says how a drain went.
type Summary struct {
	Waited      time.Duration
	InFlight    int // when the drain began
	Cut         int // requests that did not end in time
	Connections int // connections closed by force
	// WebSockets when the drain began, and those that did not end in time.
	WebSockets, WebSocketsCut int
}
