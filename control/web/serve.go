package web

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/netip"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// Reply is an answer with a status and headers of its own. A nil Body sends none.
type Reply struct {
	Status int
	Header http.Header
	Body   any
}

// NewServer returns a server with the limits that keep slow and oversized clients out. The
// caller sets the address and runs it.
func NewServer(h http.Handler, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           markTLS(h),
		ConnContext:       withConn,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       60 * time.Second,
		WriteTimeout:      120 * time.Second,
		IdleTimeout:       120 * time.Second,
		MaxHeaderBytes:    128 << 10,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
}

// ServeHTTP implements http.Handler.
func (rt *Router) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	r := &Request{HTTP: hr, ID: newID(), router: rt}
	w.Header().Set("X-Request-Id", r.ID)

	route, vars, methods := rt.find(hr.Method, hr.URL.EscapedPath())
	if route == nil {
		rt.fail(w, r, styleOf(hr.URL.Path), noRoute(w, methods))

		return
	}

	ctx, cancel := context.WithTimeout(hr.Context(), rt.cfg.Timeout)
	defer cancel()

	r.HTTP, r.vars = hr.WithContext(ctx), vars
	status, err := rt.serve(w, r, route) //nolint:contextcheck // r carries it

	if rt.cfg.Hooks.Done != nil {
		rt.cfg.Hooks.Done(&route.Route, r, status, err)
	}

	rt.logDone(hr.Context(), r, route, outcome{status, err})
}

// serve runs one operation and sends its answer. It returns the status and the error sent.
func (rt *Router) serve(w http.ResponseWriter, r *Request, route *compiled) (status int, err error) {
	defer func() {
		p := recover()
		if p == nil {
			return
		}

		if p == http.ErrAbortHandler { //nolint:errorlint // the very value is a signal
			panic(p)
		}

		rt.log.Error("panic in an API operation", slog.String("operation", route.Name), slog.String("request_id", r.ID), slog.Any("panic", p), slog.String("stack", string(debug.Stack())))

		err = fmt.Errorf("panic: %v", p)
		status = rt.fail(w, r, route.Style, err)
	}()

	answer, err := rt.run(w, r, route)
	if err != nil {
		return rt.fail(w, r, route.Style, err), err
	}

	return rt.send(w, r, answer), nil
}

func (rt *Router) run(w http.ResponseWriter, r *Request, route *compiled) (any, error) {
	r.limitBody(w)

	if !route.Public {
		p, err := rt.gate.Authenticate(r.authRequest())
		if err != nil {
			return nil, err
		}

		r.Principal = p

		if route.Action != "" {
			if err := r.Authorize(route.Action, r.Var("project_id"), r.Var(route.Resource)); err != nil {
				return nil, err
			}
		}
	}

	return route.Handle(r)
}

// Authorize checks a further action of the caller.
func (r *Request) Authorize(action, projectID, id string) error {
	return r.router.gate.Authorize(r.Principal, action, projectID, id)
}

func (rt *Router) send(w http.ResponseWriter, r *Request, answer any) int {
	if s, ok := answer.(Stream); ok {
		return rt.stream(w, r, &s)
	}

	reply, ok := answer.(Reply)
	if !ok {
		reply = Reply{Status: http.StatusOK, Body: answer}
	}

	maps.Copy(w.Header(), reply.Header)

	if reply.Body == nil {
		w.WriteHeader(reply.Status)

		return reply.Status
	}

	body, err := json.Marshal(reply.Body)
	if err != nil {
		return rt.fail(w, r, ModelArts, fmt.Errorf("encode answer: %w", err))
	}

	rt.write(w, r, reply.Status, body)

	return reply.Status
}

func (rt *Router) fail(w http.ResponseWriter, r *Request, style Style, err error) int {
	f := fault.From(err)

	// Work that ended because the client left says nothing about the platform. (Whatever the work
	// itself made of it: etcd has errors of its own for it.)
	if f.Code.Status() >= http.StatusInternalServerError && errors.Is(r.HTTP.Context().Err(), context.Canceled) {
		f = fault.Wrap(fault.ClientGone, err, "")
	}

	status := f.Code.Status()

	if f.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((f.RetryAfter+time.Second-1)/time.Second)))
	}

	if status >= http.StatusInternalServerError && f.Code != fault.NotImplemented {
		rt.log.Error("API operation failed", slog.String("request_id", r.ID), slog.String("method", r.HTTP.Method), slog.Any("error", err))
	}

	// The rest of a body that nobody read would have to be taken in before the next request.
	if r.bodyUnread() {
		w.Header().Set("Connection", "close")
	}

	rt.write(w, r, status, style.body(f, r.ID))

	return status
}

func (rt *Router) write(w http.ResponseWriter, r *Request, status int, body []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json; charset=utf-8")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	w.WriteHeader(status)

	if r.HTTP.Method == http.MethodHead {
		return
	}

	if _, err := w.Write(body); err != nil {
		rt.log.Debug("client gone before the answer", slog.String("request_id", r.ID), slog.Any("error", err))
	}
}

// outcome is how an operation ended.
type outcome struct {
	status int
	err    error
}

func (rt *Router) logDone(ctx context.Context, r *Request, route *compiled, o outcome) {
	level := slog.LevelInfo
	if o.err == nil && (r.HTTP.Method == http.MethodGet || r.HTTP.Method == http.MethodHead) {
		level = slog.LevelDebug
	}

	if !rt.log.Enabled(ctx, level) {
		return
	}

	attrs := []slog.Attr{
		slog.String("operation", route.Name), slog.Int("status", o.status), slog.String("request_id", r.ID),
		slog.String("remote", r.Remote().String()),
	}

	if r.Principal != nil {
		attrs = append(attrs, slog.String("user_id", r.Principal.UserID))
	}

	if id := r.Var("project_id"); id != "" {
		attrs = append(attrs, slog.String("project_id", id))
	}

	if o.err != nil {
		attrs = append(attrs, slog.String("error_code", fault.From(o.err).Code.Wire()))
	}

	rt.log.LogAttrs(ctx, level, "api", attrs...)
}

func noRoute(w http.ResponseWriter, methods []string) error {
	if len(methods) == 0 {
		return fault.New(fault.APINotFound, "")
	}

	w.Header().Set("Allow", strings.Join(methods, ", "))

	return fault.New(fault.MethodNotAllowed, "")
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails

	return hex.EncodeToString(b[:])
}

// remote is the address of the peer; zero if it is not an IP address.
func remote(hr *http.Request) netip.Addr {
	ap, err := netip.ParseAddrPort(hr.RemoteAddr)
	if err != nil {
		return netip.Addr{}
	}

	return ap.Addr().Unmap()
}

func tooLarge(err error) bool {
	var limit *http.MaxBytesError

	return errors.As(err, &limit)
}

var _ auth.Headers = headers{}
