package serve

import (
	"bufio"
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
	"github.com/valyala/fasthttp"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/wsframe"
)

const (
	// readBuffer of a WebSocket stays with it while it is idle; a message may be longer.
	readBuffer = 512
	// writeBuffer is lent while a message is written.
	writeBuffer = 4 << 10
)

// sockets are the WebSockets of a Server.
type sockets struct {
	srv     *Server
	up      websocket.Upgrader
	running sync.WaitGroup

	mu  sync.Mutex // guards the rest
	all map[*session]struct{}
	end bool // no further ones
}

func newSockets(s *Server) *sockets {
	return &sockets{
		srv: s, all: make(map[*session]struct{}),
		up: websocket.Upgrader{
			ReadBufferSize: readBuffer, WriteBufferSize: writeBuffer, WriteBufferPool: &sync.Pool{},
			EnableCompression: true, Subprotocols: []string{Subprotocol},
			// Browsers are judged by the gateway, which alone knows its own name.
			CheckOrigin: func(*http.Request) bool { return true },
		},
	}
}

// Subprotocol may be named by a client that wants to be sure what it talks to.
const Subprotocol = "v2.inference"

// asksWebSocket reports whether a request is a WebSocket handshake, right or wrong.
func asksWebSocket(ctx *fasthttp.RequestCtx) bool {
	return wsframe.HasToken(ctx.Request.Header.Peek("Upgrade"), "websocket") && wsframe.HasToken(ctx.Request.Header.Peek("Connection"), "upgrade")
}

// accept answers a handshake. After a good one the connection belongs to a session, on a goroutine of its
// own, so that fasthttp's buffers are free again.
func (k *sockets) accept(ctx *fasthttp.RequestCtx) {
	target, err := k.check(ctx)
	if err != nil {
		x := Exchange{Path: path(ctx), Start: time.Now(), Header: &header{&ctx.Request.Header}}
		k.srv.app.fail(&x, err)

		if fault.From(err).Code == fault.HandshakeVersion {
			ctx.Response.Header.Set("Sec-WebSocket-Version", wsframe.Version)
			ctx.Response.Header.Set("Upgrade", "websocket")
		}

		ctx.SetStatusCode(x.Status)
		ctx.SetContentType(x.Type)
		ctx.SetBody(x.Out)
		ctx.SetConnectionClose()

		return
	}

	req, packed := handshake(ctx)

	ctx.HijackSetNoResponse(true)
	ctx.Hijack(func(c net.Conn) {
		if u, ok := c.(interface{ UnsafeConn() net.Conn }); ok {
			c = u.UnsafeConn()
		}

		k.begin(newGuard(c, packed), req, target)
	})
}

// handshake copies what the library wants to know, and tells whether it will agree to compression. The library
// does not look at the parameters of an offer, and it could not keep to a smaller window.
func handshake(ctx *fasthttp.RequestCtx) (req *http.Request, packed bool) {
	req = &http.Request{Method: http.MethodGet, Host: string(ctx.Host()), Header: http.Header{}, URL: &url.URL{}}

	for name, value := range ctx.Request.Header.All() {
		switch n := http.CanonicalHeaderKey(string(name)); {
		case n == "Sec-Websocket-Extensions":
			packed = packed || wsframe.OffersWholeWindow(value)
		case strings.HasPrefix(n, "Sec-Websocket-"), n == "Upgrade", n == "Connection":
			req.Header.Add(n, string(value))
		}
	}

	if packed {
		req.Header.Set("Sec-Websocket-Extensions", wsframe.DeflateName)
	}

	return req, packed
}

// check judges the handshake and finds what the path names.
func (k *sockets) check(ctx *fasthttp.RequestCtx) (route, error) {
	h := &ctx.Request.Header

	switch {
	case !ctx.IsGet():
		return route{}, fault.New(fault.MethodNotAllowed, "A WebSocket handshake must be a GET request.")
	case len(ctx.Request.Body()) > 0 || !h.IsHTTP11():
		return route{}, fault.New(fault.HandshakeInvalid, "A WebSocket handshake must be in HTTP/1.1 and without a body.")
	case string(h.Peek("Sec-WebSocket-Version")) != wsframe.Version:
		return route{}, fault.New(fault.HandshakeVersion, "")
	case !wsframe.ValidKey(h.Peek("Sec-WebSocket-Key")):
		return route{}, fault.New(fault.HandshakeInvalid, "The Sec-WebSocket-Key header must be 16 bytes in base64.")
	case k.srv.state.Draining():
		return route{}, fault.New(fault.ShuttingDown, "The worker is draining.").After(time.Second)
	}

	r, err := k.srv.app.socketRoute(path(ctx))
	if err != nil {
		return route{}, err
	}

	k.mu.Lock()
	defer k.mu.Unlock()

	if k.end || len(k.all) >= k.srv.cfg.MaxConns {
		return route{}, fault.New(fault.Overloaded, "Too many WebSockets.").After(time.Second)
	}

	return r, nil
}

// begin completes the handshake and starts the session.
func (k *sockets) begin(c net.Conn, req *http.Request, r route) {
	if c.SetDeadline(time.Time{}) != nil {
		_ = c.Close() // broken already

		return
	}

	ws, err := k.up.Upgrade(&rawResponse{conn: c, header: http.Header{}}, req, nil)
	if err != nil {
		k.srv.log.Debug("websocket handshake", slog.Any("error", err))

		_ = c.Close() // the upgrader has said why

		return
	}

	ctx, cancel := context.WithCancel(context.Background())
	s := newSession(k.srv, ws, r, cancel)

	k.mu.Lock()
	if k.end {
		k.mu.Unlock()
		cancel()

		_ = ws.Close() // the worker ends

		return
	}

	k.all[s] = struct{}{}
	k.running.Add(1)
	k.mu.Unlock()

	go func() {
		defer k.running.Done()

		s.read(ctx)

		k.mu.Lock()
		delete(k.all, s)
		k.mu.Unlock()
	}()
}

// count is the number of open WebSockets.
func (k *sockets) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()

	return len(k.all)
}

// drain says good-bye to every WebSocket, spread over a while, after the messages it has sent were
// answered. It returns when all are gone or ctx ends; what is left then is cut.
func (k *sockets) drain(ctx context.Context, spread time.Duration) (cut int) {
	k.mu.Lock()
	k.end = true

	left := make([]*session, 0, len(k.all))
	for s := range k.all {
		left = append(left, s)
	}
	k.mu.Unlock()

	var leaving sync.WaitGroup

	for _, s := range left {
		wait := time.Duration(rand.Int64N(int64(spread) + 1)) //nolint:gosec // spreads load

		leaving.Go(func() { s.leave(ctx, wait) })
	}

	gone := make(chan struct{})

	go func() {
		leaving.Wait()
		k.running.Wait()
		close(gone)
	}()

	select {
	case <-gone:
		return 0
	case <-ctx.Done():
	}

	k.mu.Lock()
	cut = len(k.all)

	for s := range k.all {
		s.cut()
	}
	k.mu.Unlock()

	<-gone

	return cut
}

// rawResponse lends a connection to the upgrader in the form that it wants.
type rawResponse struct {
	conn   net.Conn
	header http.Header
}

// Header implements http.ResponseWriter.
func (r *rawResponse) Header() http.Header { return r.header }

// Write implements http.ResponseWriter, for refusals. What led here was judged before, so that none is expected.
func (r *rawResponse) Write(b []byte) (int, error) { return len(b), nil }

// WriteHeader implements http.ResponseWriter.
func (r *rawResponse) WriteHeader(int) {}

// Hijack implements http.Hijacker.
func (r *rawResponse) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	return r.conn, bufio.NewReadWriter(bufio.NewReaderSize(r.conn, 16), bufio.NewWriterSize(r.conn, 16)), nil
}
