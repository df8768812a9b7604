package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/runtime/serve/rpc"
)

// doors are the open listeners of a worker; those that were not asked for are nil.
type doors struct {
	http, link, grpc net.Listener
	certs            *tlsconf.Source // of http and link; nil if they are in the clear
	direct           *directDoors
	ops              *telemetry.Ops
}

// open opens every listener, or none.
func (w *worker) open(ctx context.Context, reg *telemetry.Registry) (*doors, error) {
	d := &doors{}

	var err error
	if d.certs, err = w.opt.link.certificates(w.log); err != nil {
		return nil, err
	}

	if d.http, err = serve.Listen(ctx, w.opt.listen); err != nil {
		return nil, fmt.Errorf("start HTTP: %w", err)
	}

	if d.link, err = w.listenLink(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}

	if w.opt.grpc != "" {
		if d.grpc, err = serve.Listen(ctx, w.opt.grpc); err != nil {
			return nil, errors.Join(fmt.Errorf("start gRPC: %w", err), d.close())
		}
	}

	if d.direct, err = w.opt.direct.open(ctx); err != nil {
		return nil, errors.Join(err, d.close())
	}

	if w.opt.ops != "" {
		d.ops, err = telemetry.ListenOps(ctx, telemetry.OpsConfig{Listen: w.opt.ops}, reg, w.health, telemetry.WithLog(w.log))
		if err != nil {
			return nil, errors.Join(fmt.Errorf("start operations: %w", err), d.close())
		}
	}

	return d, nil
}

// close closes listeners that nobody serves.
func (d *doors) close() error {
	var errs []error

	for _, ln := range []net.Listener{d.http, d.link, d.grpc} {
		if ln != nil {
			errs = append(errs, ln.Close())
		}
	}

	if d.direct != nil {
		errs = append(errs, d.direct.close())
	}

	if d.ops != nil {
		errs = append(errs, d.ops.Close())
	}

	return errors.Join(errs...)
}

// announcement is the ready line.
type announcement struct {
	HTTP string `json:"http"`
	// Scheme of HTTP: http or https.
	Scheme string `json:"scheme"`
	Link   string `json:"link,omitempty"`
	GRPC   string `json:"grpc,omitempty"`
	Ops    string `json:"ops,omitempty"`
	// Direct and DirectGRPC are the doors past the gateway.
	Direct     string `json:"direct,omitempty"`
	DirectGRPC string `json:"direct_grpc,omitempty"`
	PID        int    `json:"pid"`
}

func (d *doors) addresses(scheme string) announcement {
	a := announcement{HTTP: serve.Address(d.http), Scheme: scheme, Link: linkAddress(d.link, d.certs != nil), PID: os.Getpid()}

	if d.grpc != nil {
		a.GRPC = serve.Address(d.grpc)
	}

	if d.ops != nil {
		a.Ops = d.ops.Addr()
	}

	if d.direct != nil {
		a.Direct, a.DirectGRPC = address(d.direct.http), address(d.direct.grpc)
	}

	return a
}

// announce writes the ready line.
func (w *worker) announce(a announcement) error {
	w.log.Info("listening", slog.String("http", a.HTTP), slog.String("link", a.Link),
		slog.String("grpc", a.GRPC), slog.String("ops", a.Ops))

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

// front listens, says so, loads the model and serves until ctx ends.
func (w *worker) front(ctx context.Context, now <-chan struct{}, models *repo.Repo, f *fronts) error {
	server, err := serve.NewServer(serve.ServerConfig{DrainDelay: w.opt.drainDelay, Grace: w.opt.grace}, f.app, &w.state, w.log)
	if err != nil {
		return fmt.Errorf("build the HTTP server: %w", err)
	}

	d, err := w.open(ctx, f.reg)
	if err != nil {
		return err
	}

	if err := w.announce(d.addresses(w.opt.link.scheme())); err != nil {
		return errors.Join(err, d.close())
	}

	g, gctx := errgroup.WithContext(ctx)
	opsCtx, stopOps := context.WithCancel(context.WithoutCancel(ctx))
	idle := make(chan struct{})

	g.Go(func() error {
		defer stopOps() // metrics stay readable while the doors drain
		defer close(idle)

		return server.Run(gctx, w.faced(d), now)
	})

	if d.certs != nil {
		g.Go(func() error { return d.certs.Run(opsCtx) })
	}

	if d.link != nil {
		door := serve.NewLinkServer(f.app, w.opt.grace, w.log)
		g.Go(func() error { return door.Run(gctx, secured(d.link, d.certs), idle) })
	}

	if d.grpc != nil {
		door := rpc.New(rpc.Config{MaxMessage: int(w.opt.maxBody), DrainDelay: w.opt.drainDelay, Grace: w.opt.grace}, f.app, w.log)
		g.Go(func() error { return door.Run(gctx, d.grpc, now) })
	}

	if d.direct != nil {
		if err := w.serveDirect(gctx, g, d.direct, f.app, now); err != nil {
			return errors.Join(err, d.close())
		}
	}

	if d.ops != nil {
		g.Go(func() error { return d.ops.Run(opsCtx) })
	}

	g.Go(func() error { return w.load(gctx, models, f.app) })

	return g.Wait() //nolint:wrapcheck // all say what they did
}

// faced is the listener for HTTP as clients see it.
func (w *worker) faced(d *doors) net.Listener {
	if !w.opt.link.http {
		return d.http
	}

	return secured(d.http, d.certs)
}

// health is what the operations listener tells.
func (w *worker) health() telemetry.Health {
	state, reason := w.state.Report()

	return telemetry.Health{Ready: state == "ready", State: state, Reason: reason}
}
