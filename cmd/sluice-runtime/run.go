package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/telemetry/runtimetel"
	"github.com/sluice-gateway/sluice/internal/version"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// Exit statuses.
const (
	exitOK       = 0
	exitFailed   = 1
	exitUsage    = 2
	exitModel    = 3 // the model cannot be loaded
	exitOrphaned = 4 // the parent is gone
)

// environment is what run needs of the process.
type environment struct {
	Stdout, Stderr io.Writer
}

func run(ctx context.Context, args []string, env environment) int {
	o, err := parse(args, env.Stderr)

	switch {
	case errors.Is(err, flag.ErrHelp):
		return exitOK
	case errors.Is(err, errUsage):
		return exitUsage
	case err != nil:
		_, _ = fmt.Fprintf(env.Stderr, "sluice-runtime: %v\n", err)

		return exitUsage
	}

	var level slog.Level
	if err := level.UnmarshalText([]byte(o.logLevel)); err != nil {
		_, _ = fmt.Fprintf(env.Stderr, "sluice-runtime: --log-level: %v\n", err)

		return exitUsage
	}

	plain := slog.New(slog.NewJSONHandler(env.Stdout, &slog.HandlerOptions{Level: level}))
	log := plain.With(slog.String("model", o.model), slog.String("version", o.version))

	w := &worker{opt: o, log: log, plain: plain}
	if err := w.run(ctx); err != nil {
		log.Error("worker ended", slog.Any("error", err))

		return status(err)
	}

	log.Info("worker ended")

	return exitOK
}

var (
	errOrphaned = errors.New("the parent process is gone")
	errModel    = errors.New("the model cannot be loaded")
)

func status(err error) int {
	switch {
	case errors.Is(err, errOrphaned):
		return exitOrphaned
	case errors.Is(err, errModel):
		return exitModel
	default:
		return exitFailed
	}
}

// worker wires one process together.
type worker struct {
	opt   options
	log   *slog.Logger // names model and version
	plain *slog.Logger // for parts that name them themselves
	state serve.State
}

func (w *worker) run(ctx context.Context) error {
	// Whatever else is stuck, a worker without its parent ends at once; nothing here is worth tidying up.
	orphaned := make(chan struct{})
	if w.opt.parentFD >= 0 {
		go watchParent(w.opt.parentFD, orphaned)
	}

	done := make(chan error, 1)
	go func() { done <- w.serve(ctx) }()

	select {
	case err := <-done:
		return err
	case <-orphaned:
		return errOrphaned
	}
}

// watchParent closes gone when the descriptor reads end of file.
func watchParent(fd int, gone chan<- struct{}) {
	f := os.NewFile(uintptr(fd), "parent")
	_, _ = io.Copy(io.Discard, f)

	close(gone)
}

func (w *worker) serve(ctx context.Context) error {
	ctx, now, stopSignals := signals(ctx)
	defer stopSignals()

	eng := w.engine()
	reg := telemetry.New(version.String())
	metrics := runtimetel.New(reg)

	models, err := repo.New(repo.Config{}, eng, metrics.Repo(), w.plain)
	if err != nil {
		return fmt.Errorf("build the repository: %w", err)
	}

	app, err := serve.New(serve.Config{
		Model: w.opt.model, Version: w.opt.version, MaxBody: w.opt.maxBody, Release: version.String(),
	}, serve.Repository{Repo: models}, &w.state, metrics.Serve(), w.log)
	if err != nil {
		return fmt.Errorf("build the server: %w", err)
	}

	err = w.together(ctx, now, models, &fronts{app: app, reg: reg})

	return errors.Join(err, eng.Close())
}

// closingEngine is an engine with an end.
type closingEngine interface {
	engine.Engine
	Close() error
}

// engine opens ONNX Runtime. Without it the worker still starts, to tell why no model loads.
func (w *worker) engine() closingEngine {
	lib, err := w.opt.library, error(nil)
	if lib == "" {
		lib, err = ortlib.Find()
	}

	if err != nil {
		return brokenEngine{err}
	}

	eng, err := ort.New(ort.Config{Library: lib}, w.log)
	if err != nil {
		return brokenEngine{err}
	}

	return eng
}

// brokenEngine loads nothing and says why.
type brokenEngine struct{ cause error }

func (brokenEngine) Name() string { return "none" }

func (e brokenEngine) Load(context.Context, engine.LoadSpec) (engine.Session, error) {
	return nil, fault.Wrap(fault.ModelInvalid, e.cause, "No engine: %s.", e.cause.Error())
}

func (brokenEngine) Close() error { return nil }

// fronts are what faces clients and operators.
type fronts struct {
	app *serve.App
	reg *telemetry.Registry
}

// together runs the repository below the server: it ends after the last answer.
func (w *worker) together(ctx context.Context, now <-chan struct{}, models *repo.Repo, f *fronts) error {
	below, stop := context.WithCancel(context.Background())
	defer stop()

	ended := make(chan error, 1)
	go func() { ended <- models.Run(below) }()

	err := w.front(ctx, now, models, f)

	if !errors.Is(err, serve.ErrCut) {
		drained, cancel := context.WithTimeout(below, w.opt.grace)
		err = errors.Join(err, models.Drain(drained))

		cancel()
	}

	stop()

	return errors.Join(err, <-ended)
}

// front listens, says so, loads the model and serves until ctx ends.
func (w *worker) front(ctx context.Context, now <-chan struct{}, models *repo.Repo, f *fronts) error {
	server, err := serve.NewServer(serve.ServerConfig{DrainDelay: w.opt.drainDelay, Grace: w.opt.grace}, f.app, &w.state, w.log)
	if err != nil {
		return fmt.Errorf("build the HTTP server: %w", err)
	}

	ln, err := serve.Listen(ctx, w.opt.listen)
	if err != nil {
		return fmt.Errorf("start HTTP: %w", err)
	}

	calls, err := w.listenLink(ctx)
	if err != nil {
		return errors.Join(err, ln.Close())
	}

	ready := announcement{HTTP: serve.Address(ln), Link: linkAddress(calls), PID: os.Getpid()}

	var ops *telemetry.Ops

	if w.opt.ops != "" {
		ops, err = telemetry.ListenOps(ctx, telemetry.OpsConfig{Listen: w.opt.ops}, f.reg, w.health, telemetry.WithLog(w.log))
		if err != nil {
			return errors.Join(fmt.Errorf("start operations: %w", err), ln.Close())
		}

		ready.Ops = ops.Addr()
	}

	if err := w.announce(&ready); err != nil {
		return errors.Join(err, ln.Close())
	}

	g, gctx := errgroup.WithContext(ctx)
	opsCtx, stopOps := context.WithCancel(context.WithoutCancel(ctx))

	idle := make(chan struct{})

	g.Go(func() error {
		defer stopOps() // metrics stay readable while the doors drain
		defer close(idle)

		return server.Run(gctx, ln, now)
	})

	if calls != nil {
		door := serve.NewLinkServer(f.app, w.opt.grace, w.log)
		g.Go(func() error { return door.Run(gctx, calls, idle) })
	}

	g.Go(func() error { return w.load(gctx, models, f.app) })

	if ops != nil {
		g.Go(func() error { return ops.Run(opsCtx) })
	}

	return g.Wait() //nolint:wrapcheck // all say what they did
}

// health is what the operations listener tells.
func (w *worker) health() telemetry.Health {
	state, reason := w.state.Report()

	return telemetry.Health{Ready: state == "ready", State: state, Reason: reason}
}

// announcement is the ready line.
type announcement struct {
	HTTP string `json:"http"`
	Link string `json:"link,omitempty"`
	GRPC string `json:"grpc,omitempty"`
	Ops  string `json:"ops,omitempty"`
	PID  int    `json:"pid"`
}

// announce writes the ready line.
func (w *worker) announce(a *announcement) error {
	w.log.Info("listening", slog.String("http", a.HTTP), slog.String("grpc", a.GRPC), slog.String("ops", a.Ops))

	if w.opt.readyFD < 0 {
		return nil
	}

	f := os.NewFile(uintptr(w.opt.readyFD), "ready")

	line, err := json.Marshal(a)
	if err == nil {
		_, err = f.Write(append(line, '\n'))
	}

	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the ready line: %w", err)
	}

	return nil
}

// load loads the model. A model that cannot be loaded leaves the reason readable for a while.
func (w *worker) load(ctx context.Context, models *repo.Repo, app *serve.App) error {
	start := time.Now()

	err := models.Add(ctx, repo.Source{
		Name: w.opt.model, Version: w.opt.version, Dir: w.opt.pkg, TreeSHA256: w.opt.treeSHA256,
	})
	if err == nil {
		err = app.Check(w.opt.model, w.opt.version)
	}

	switch {
	case err == nil:
		w.state.SetReady()
		w.log.Info("ready", slog.Duration("took", time.Since(start)))

		return nil
	case ctx.Err() != nil:
		return nil //nolint:nilerr // told to stop while loading
	}

	reason := fault.From(err).Message()
	w.state.SetFailed(reason)
	w.log.Error("the model cannot be loaded", slog.Any("error", err))

	linger := time.NewTimer(w.opt.linger)
	defer linger.Stop()

	select {
	case <-linger.C:
	case <-ctx.Done():
	}

	return fmt.Errorf("%w: %s", errModel, reason)
}

// signals turns the first SIGTERM or SIGINT into the end of a context and the second into now.
func signals(parent context.Context) (ctx context.Context, now <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	second := make(chan struct{})
	in := make(chan os.Signal, 2)

	signal.Notify(in, syscall.SIGTERM, syscall.SIGINT)

	go func() {
		<-in
		cancel()
		<-in
		close(second)
	}()

	return ctx, second, func() {
		signal.Stop(in)
		cancel()
	}
}
