package serve

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/codec/imaging"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// Config of an App.
type Config struct {
	// Model and Version are what POST / runs; an empty version is the newest.
	Model, Version string
	// MaxBody bounds request bodies, compressed and decompressed; 0 means 64 MiB.
	MaxBody int64
	// PictureMemory bounds what decoded pictures take at any time; 0 means 512 MiB.
	PictureMemory int64
	// Release is the version told in V2 server metadata.
	Release string
}

// DefaultMaxBody is the limit on bodies when none is configured.
const DefaultMaxBody = 64 << 20

const defaultPictureMemory = 512 << 20

// Hooks report requests; any may be nil. They are called on the request path.
type Hooks struct {
	// Served is called once per request with its status; protocol is "v2", "platform" or "other".
	Served func(protocol string, status int, took time.Duration)
	// Panicked is called when a handler panicked and the request was answered with 500.
	Panicked func()
}

// App answers requests. It is safe for concurrent use.
type App struct {
	cfg    Config
	models Models
	state  *State
	hooks  Hooks
	log    *slog.Logger
	cache  cache
	calls  sync.Pool
	zips   zips
}

// New returns an App over models.
func New(cfg Config, models Models, state *State, hooks Hooks, log *slog.Logger) (*App, error) {
	if cfg.MaxBody == 0 {
		cfg.MaxBody = DefaultMaxBody
	}

	if cfg.PictureMemory == 0 {
		cfg.PictureMemory = defaultPictureMemory
	}

	if cfg.MaxBody < 0 || cfg.PictureMemory < 0 {
		return nil, errors.New("serve: limits must not be negative")
	}

	a := &App{cfg: cfg, models: models, state: state, hooks: hooks, log: log}
	a.cache.gate = imaging.NewGate(cfg.PictureMemory)
	a.calls.New = func() any { return newCall(a) }

	return a, nil
}

// Check acquires a model once and reports why its pre- or post-processing cannot work, if so.
func (a *App) Check(name, version string) error {
	m, err := a.models.Acquire(name, version)
	if err != nil {
		return err //nolint:wrapcheck // a fault of the repository
	}
	defer m.Release()

	return a.cache.get(m.Meta()).err
}

// Serve answers one request. It does not panic.
func (a *App) Serve(x *Exchange) {
	out := x.Out
	protocol := "other"

	defer func() {
		if p := recover(); p != nil {
			a.panicked(x, out, p)
		}

		if a.hooks.Served != nil {
			a.hooks.Served(protocol, x.Status, time.Since(x.Start))
		}
	}()

	switch {
	case string(x.Path) == "/health":
		a.health(x)
	case isV2(x.Path):
		protocol = "v2"

		if err := a.v2(x); err != nil {
			x.Out = out
			a.fail(x, err)
		}
	default:
		protocol = "platform"

		if err := a.predict(x); err != nil {
			x.Out = out
			a.fail(x, err)
		}
	}
}

// panicked makes the answer of a request whose handler panicked.
func (a *App) panicked(x *Exchange, out []byte, p any) {
	a.log.Error("request handler panicked", slog.Any("panic", p),
		slog.String("path", string(x.Path)), slog.String("stack", string(debug.Stack())))

	if a.hooks.Panicked != nil {
		a.hooks.Panicked()
	}

	x.Extra, x.Out = x.Extra[:0], out
	a.fail(x, fault.Wrap(fault.Internal, fmt.Errorf("panic: %v", p), ""))
}

func isV2(path []byte) bool {
	return bytes.HasPrefix(path, []byte("/v2")) && (len(path) == 3 || path[3] == '/')
}

// statusError is an answer whose status differs from that of its fault's code, as V2 has some.
type statusError struct {
	fault  *fault.Error
	status int
}

func (e *statusError) Error() string { return e.fault.Error() }
func (e *statusError) Unwrap() error { return e.fault }

// Status is the HTTP status of an error that an App gave.
func Status(err error) int {
	var s *statusError
	if errors.As(err, &s) {
		return s.status
	}

	return fault.From(err).Code.Status()
}

// fail renders an error.
func (a *App) fail(x *Exchange, err error) {
	err = classify(x, err)
	f := fault.From(err)

	if f.Code == fault.Internal {
		a.log.Error("request failed", slog.String("path", string(x.Path)), slog.Any("error", err))
	}

	x.json(Status(err))

	if f.RetryAfter > 0 {
		x.add("Retry-After", strconv.Itoa(int(math.Ceil(f.RetryAfter.Seconds()))))
	}

	if isV2(x.Path) {
		x.Out = append(x.Out, `{"error":`...)
		x.Out = codec.AppendString(x.Out, f.Message())
		x.Out = append(x.Out, '}')

		return
	}

	x.Out = append(x.Out, `{"error_code":`...)
	x.Out = codec.AppendString(x.Out, f.Code.Wire())
	x.Out = append(x.Out, `,"error_msg":`...)
	x.Out = codec.AppendString(x.Out, f.Message())

	if id := requestID(x); id != "" {
		x.Out = append(x.Out, `,"request_id":`...)
		x.Out = codec.AppendString(x.Out, id)
	}

	x.Out = append(x.Out, '}')
}

// maxRequestID bounds an id that is repeated in an answer.
const maxRequestID = 128

// requestID is the id that the gateway, or the caller, gave the request.
func requestID(x *Exchange) string {
	if x.Header == nil {
		return ""
	}

	id := x.Header.Get("X-Request-Id")
	if len(id) > maxRequestID {
		return ""
	}

	return string(id)
}

// classify gives errors of the request's own context their faults.
func classify(x *Exchange, err error) error {
	var f *fault.Error

	switch {
	case errors.As(err, &f):
		return err
	case x.Context != nil && x.Context.Err() != nil:
		return fault.Wrap(fault.ClientGone, err, "")
	default:
		return err
	}
}

// allow checks the method and answers 405 with Allow otherwise.
func allow(x *Exchange, methods ...string) error {
	if slices.Contains(methods, string(x.Method)) {
		return nil
	}

	x.add("Allow", strings.Join(methods, ", "))

	return fault.New(fault.MethodNotAllowed, "")
}

func (a *App) health(x *Exchange) {
	if err := allow(x, "GET", "HEAD"); err != nil {
		a.fail(x, err)

		return
	}

	c := a.state.get()
	if c.phase == ready {
		x.json(200)
		x.Out = append(x.Out, `{"health":"true"}`...)

		return
	}

	x.json(503)
	x.Out = append(x.Out, `{"health":"false","state":"`...)
	x.Out = append(x.Out, a.stage(c)...)
	x.Out = append(x.Out, '"')

	if c.reason != "" {
		x.Out = append(x.Out, `,"reason":`...)
		x.Out = codec.AppendString(x.Out, c.reason)
	}

	x.Out = append(x.Out, '}')
}

// stage names what the worker is doing; while its model is on the way, how far that is.
func (a *App) stage(c condition) string {
	if c.phase == loading {
		for _, s := range a.models.Index() {
			if s.Name != a.cfg.Model || s.Version != a.cfg.Version {
				continue
			}

			switch s.State { //nolint:exhaustive // the others are not on the way
			case repo.Fetching, repo.Verifying, repo.Warming:
				return string(s.State)
			}
		}
	}

	return c.phase.String()
}
