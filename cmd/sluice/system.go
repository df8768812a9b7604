package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/publish"
	"github.com/sluice-gateway/sluice/control/rollout/runner"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/atomicfile"
	"github.com/sluice-gateway/sluice/internal/lifecycle"
	"github.com/sluice-gateway/sluice/internal/telemetry"
)

// role says which parts a process has.
type role string

// Roles.
const (
	roleAll     role = "serve"   // everything on one machine
	roleControl role = "control" // management and workers; state in an external etcd
	roleGateway role = "gateway" // the edge; state in an external etcd
)

// system is everything that `sluice serve` runs. build fills it in order; run owns its goroutines.
type system struct {
	role     role
	settings *settings
	log      *slog.Logger
	group    *lifecycle.Group
	closers  []func()
	began    time.Time

	embedded  *store.Embedded
	store     *store.Store
	control   *controlPlane
	publisher *publish.Publisher
	launcher  *launch.Local
	runner    *runner.Runner
	follower  *plan.Follower
	edge      *edge.Edge
	ops       *telemetry.Ops
	usage     *telemetry.Usage
	joined    chan struct{} // closed when this process takes part in the election
	admin     string        // address of the admin door

	phase    atomic.Pointer[string]
	degraded atomic.Pointer[string] // why not everything works, though predictions do
}

// Phases of the process, as /health tells them.
const (
	phaseStarting = "starting"
	phaseReady    = "ready"
	phaseDraining = "draining"
)

func (s *system) setPhase(p string) { s.phase.Store(&p) }

func (s *system) health() telemetry.Health {
	p := *s.phase.Load()

	h := telemetry.Health{Ready: p == phaseReady, State: p}

	if why := s.degraded.Load(); why != nil {
		h.Reason = *why
	}

	return h
}

// run serves until ctx ends, and stops everything in order.
func (s *system) run(ctx context.Context, stdout io.Writer) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	context.AfterFunc(ctx, func() { s.setPhase(phaseDraining) })

	announced := make(chan error, 1)

	go func() {
		err := s.announce(ctx, stdout)
		announced <- err

		if err != nil && ctx.Err() == nil {
			cancel()
		}
	}()

	err := s.group.Run(ctx)

	cancel()

	if aerr := <-announced; aerr != nil && !errors.Is(aerr, context.Canceled) {
		err = errors.Join(err, aerr)
	}

	return s.reason(err)
}

// reason is why the process ends. A state that cannot go on fails whatever needs it, in many words.
func (s *system) reason(err error) error {
	if err == nil || s.embedded == nil || s.embedded.Err() == nil {
		return err
	}

	s.log.Error("parts that need the state failed", slog.Any("error", err))

	return fmt.Errorf("the state in %s cannot go on: %w", s.settings.DataDir, s.embedded.Err())
}

// announce waits until a prediction would succeed, then tells addresses and readiness.
func (s *system) announce(ctx context.Context, stdout io.Writer) error {
	if s.control != nil {
		if err := s.deploy(ctx); err != nil {
			return err
		}
	}

	if err := s.settled(ctx); err != nil {
		return err
	}

	s.takePart(ctx)

	endpoints := s.endpoints()

	if err := writeJSON(filepath.Join(s.settings.DataDir, endpointsFile), endpoints); err != nil {
		return err
	}

	if !s.phase.CompareAndSwap(s.phase.Load(), new(phaseReady)) || ctx.Err() != nil {
		return ctx.Err() //nolint:wrapcheck // stopped while starting
	}

	s.log.Info("ready", slog.Any("endpoints", endpoints))
	_, _ = fmt.Fprintln(stdout, "sluice ready")

	return nil
}

// endpoints are the base URLs of the doors that there are.
func (s *system) endpoints() map[string]string {
	e := map[string]string{"ops": s.ops.URL()}

	if s.edge != nil {
		e["edge_http"] = baseURL("http", s.edge.HTTPAddr())
		e["edge_https"] = baseURL("https", s.edge.HTTPSAddr())
	}

	if s.control != nil {
		e["control"] = s.control.url()
		e["admin"] = s.admin
	}

	return e
}

// edgeURL is the address that services are called at: HTTPS if there is such a door.
func (s *system) edgeURL() string {
	if s.settings.EdgeURL != "" || s.edge == nil {
		return strings.TrimRight(s.settings.EdgeURL, "/")
	}

	if addr := s.edge.HTTPSAddr(); addr != "" {
		return baseURL("https", addr)
	}

	return baseURL("http", s.edge.HTTPAddr())
}

func baseURL(scheme, addr string) string {
	if addr == "" {
		return ""
	}

	return scheme + "://" + addr
}

// endpointsFile in the data directory holds the base URLs with the real ports.
const endpointsFile = "endpoints.json"

// bootstrapFile in the data directory holds the credentials of the first administrator.
const bootstrapFile = "bootstrap.json"

// settlePatience bounds how long a start waits for services that neither run nor fail.
const settlePatience = 3 * time.Minute

// settled waits until every service that should run either does, in the plan that the gateway
// follows, or has failed.
func (s *system) settled(ctx context.Context) error {
	patience := time.NewTimer(settlePatience)
	defer patience.Stop()

	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()

	for {
		waiting, err := s.unsettled(ctx)
		if err != nil {
			return err
		}

		if waiting == "" && (s.follower == nil || s.follower.Load() != nil) {
			return nil
		}

		select {
		case <-tick.C:
		case <-patience.C:
			s.log.Warn("ready although a service does not run yet", slog.String("service", waiting))

			return nil
		case <-ctx.Done():
			return ctx.Err() //nolint:wrapcheck // stopped while starting
		}
	}
}

// unsettled names a service that should run and is not able to yet, "" if there is none.
func (s *system) unsettled(ctx context.Context) (string, error) {
	if s.role != roleAll {
		return "", nil // others start, or serve, the instances
	}

	services, _, err := s.store.Services.List(ctx)
	if err != nil {
		return "", fmt.Errorf("wait for services: %w", err)
	}

	for _, item := range services {
		svc := &item.Value
		if svc.Stopped || svc.Deleting {
			continue
		}

		state, err := s.store.ServiceStates.Get(ctx, item.ID)
		if errors.Is(err, store.ErrNotFound) {
			return svc.Name, nil
		}

		if err != nil {
			return "", fmt.Errorf("wait for services: %w", err)
		}

		if !s.able(item.ID, &state.Value) {
			return svc.Name, nil
		}
	}

	return "", nil
}

func writeJSON(path string, v any) error {
	data, err := jsonIndent(v)
	if err != nil {
		return err
	}

	if err := atomicfile.Write(path, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}

	return nil
}

// hurry cuts what is still under way; a second signal asks for it.
func (s *system) hurry() {
	if s.edge != nil {
		s.edge.Abort()
	}

	if s.launcher != nil {
		s.launcher.Close() //nolint:errcheck // what is left was killed
	}
}

// close gives back what build took, in reverse order. It is called when nothing runs any more.
func (s *system) close() {
	for _, f := range slices.Backward(s.closers) {
		f()
	}
}

// lockedDir makes the data directory, for this user alone.
func lockedDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}

	return nil
}
