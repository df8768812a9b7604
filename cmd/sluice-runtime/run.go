package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/procs"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/telemetry/runtimetel"
	"github.com/sluice-gateway/sluice/internal/version"
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
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	// Whatever else is stuck, a worker without its parent ends; nothing here is worth tidying up.
	orphaned := make(chan struct{})
	if w.opt.parentFD >= 0 {
		go watchParent(w.opt.parentFD, orphaned)
	}

	done := make(chan error, 1)
	go func() { done <- w.serve(ctx) }()

	return w.watch(done, orphaned, stop)
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

	var slow slowRuns

	if !procs.Chosen() {
		stop := govern(ctx, &slow, w.log)
		defer stop()
	}

	eng := w.engine()
	reg := telemetry.New(version.String())
	metrics := runtimetel.New(reg)

	models, err := repo.New(repo.Config{
		CacheDir: w.opt.cacheDir, CacheBytes: w.opt.cacheBytes, Policy: w.opt.policies.all, Policies: w.opt.policies.models,
	}, eng, slow.watch(metrics.Repo()), w.plain)
	if err != nil {
		return fmt.Errorf("build the repository: %w", err)
	}

	app, err := serve.New(serve.Config{
		Model: w.opt.model, Version: w.opt.version, MaxBody: w.opt.maxBody, Release: version.String(),
	}, w.offered(models), &w.state, metrics.Serve(), w.log)
	if err != nil {
		return fmt.Errorf("build the server: %w", err)
	}

	err = w.together(ctx, now, models, &fronts{app: app, reg: reg})

	return errors.Join(err, eng.Close())
}

// govern starts what gives Go's scheduler its slots. A model that computes holds one for up to 10 ms:
// slots to spare keep deadlines and connections on time, and the executors bound how many cores compute.
func govern(ctx context.Context, slow *slowRuns, log *slog.Logger) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	done := make(chan struct{})

	go func() {
		defer close(done)

		if err := procs.New(procs.Config{Most: 2 * repo.Cores(), Least: slow.slots}).Run(ctx); err != nil {
			log.Error("the scheduler is not governed", slog.Any("error", err))
		}
	}()

	return func() {
		cancel()
		<-done
	}
}

// fronts are what faces clients and operators.
type fronts struct {
	app *serve.App
	reg *telemetry.Registry
}

// together runs the repository below the server: it ends after the last answer.
func (w *worker) together(ctx context.Context, now <-chan struct{}, models *repo.Repo, f *fronts) error {
	below, stop := context.WithCancel(context.WithoutCancel(ctx))
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

// offered are the models as requests see them.
func (w *worker) offered(models *repo.Repo) serve.Models {
	if w.opt.repository == "" {
		return serve.Repository{Repo: models}
	}

	return &scanned{Repository: serve.Repository{Repo: models}, dir: w.opt.repository}
}

// load loads what the worker is there for.
func (w *worker) load(ctx context.Context, models *repo.Repo, app *serve.App) error {
	if all, ok := w.offered(models).(*scanned); ok {
		return w.loadAll(ctx, all)
	}

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

	return w.fail(ctx, err)
}

// fail leaves the reason readable for a while.
func (w *worker) fail(ctx context.Context, err error) error {
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

// signals turns the first SIGTERM or SIGINT, and any SIGUSR2, into the end of a context and the second into now.
func signals(parent context.Context) (ctx context.Context, now <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancel(parent)
	second := make(chan struct{})
	in := make(chan os.Signal, 2)

	signal.Notify(in, syscall.SIGTERM, syscall.SIGINT)

	drain := make(chan os.Signal, 1)
	signal.Notify(drain, syscall.SIGUSR2)

	go func() {
		select {
		case <-drain:
			cancel()
		case <-ctx.Done():
		}
	}()

	go func() {
		<-in
		cancel()
		<-in
		close(second)
	}()

	return ctx, second, func() {
		signal.Stop(in)
		signal.Stop(drain)
		cancel()
	}
}
