package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/health"
	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/publish"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/control/rollout/runner"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/internal/lifecycle"
	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/internal/peer"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/internal/procs"
	"github.com/sluice-gateway/sluice/internal/secretbox"
	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/telemetry/controltel"
	"github.com/sluice-gateway/sluice/internal/telemetry/gatewaytel"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
	"github.com/sluice-gateway/sluice/internal/version"
	"github.com/sluice-gateway/sluice/spec"
)

// stopMargin is what stopping may take beside draining the doors and the workers.
const stopMargin = 15 * time.Second

// build puts the system together, from what is below to what faces clients. After an error
// everything that it had opened is closed again.
func build(ctx context.Context, role role, set *settings, log *slog.Logger, access io.Writer) (*system, error) {
	grace := set.Edge.Drain.Delay.D() + set.Edge.Drain.Deadline.D() + set.Runtime.Grace.D() + stopMargin
	sys := &system{
		role: role, settings: set, log: log, group: lifecycle.New(log, grace), began: time.Now(), usage: telemetry.NewUsage(),
		joined: make(chan struct{}),
	}
	sys.setPhase(phaseStarting)

	b := &builder{system: sys, ctx: ctx, access: access, registry: telemetry.New(version.String())}

	for _, step := range b.steps() {
		if err := step(); err != nil {
			sys.close()

			return nil, err
		}
	}

	return sys, nil
}

// lookEvery is how often an etcd beside us is asked whether it answers.
const lookEvery = time.Second

// builder holds what the steps of build hand on.
type builder struct {
	*system

	ctx       context.Context //nolint:containedctx // it lives as long as build
	access    io.Writer       // of the access log; nil is none
	registry  *telemetry.Registry
	ring      *secretbox.Keyring
	tls       *tlsconf.Source
	handler   *gateway.Gateway
	doorHooks edge.Hooks // of handler
	upstream  *upstream.Client
	packages  *pkgstore.Store
	peers     *peer.Authority  // of what is between the processes
	sockets   string           // directory of the workers' sockets and the admin door
	etcd      *clientv3.Client // nil if it is embedded
	node      string
}

// steps are what a role is built from.
func (b *builder) steps() []func() error {
	switch b.role {
	case roleGateway:
		return []func() error{b.state, b.publishing, b.gateway, b.parts, b.listeners}
	case roleControl:
		return []func() error{b.state, b.identity, b.publishing, b.workers, b.parts, b.listeners}
	case roleAll:
		return []func() error{b.state, b.identity, b.publishing, b.workers, b.gateway, b.parts, b.listeners}
	default:
		panic("BUG: unknown role")
	}
}

// workers builds what starts, probes and publishes instances.
func (b *builder) workers() error {
	binary, err := b.settings.runtimeBinary()
	if err != nil {
		return err
	}

	library, err := ortlib.Find()
	if err != nil {
		return fmt.Errorf("find ONNX Runtime: %w", err)
	}

	if b.sockets, err = b.socketDir(); err != nil {
		return err
	}

	rt := &b.settings.Runtime

	args := []string{
		"--drain-delay", rt.DrainDelay.D().String(), "--grace", rt.Grace.D().String(), "--link", rt.link(b.sockets),
		"--cache-dir", filepath.Join(b.settings.DataDir, "cache", "graphs"),
	}
	orphan := time.Duration(0)
	if b.shared() {
		orphan = rt.Orphan.D()
		args = append(args, "--orphan", orphan.String())
	}

	b.launcher, err = launch.NewLocal(launch.Config{
		Runtime: binary, RuntimeArgs: args, ListenHost: rt.Listen, Advertise: rt.Advertise, Certify: rt.certify(b.peers),
		Direct: rt.Direct.launch(),
		LogDir: filepath.Join(b.settings.DataDir, "logs"),
		Env:    []string{ortlib.Env + "=" + library},
		// The state may come from a data directory with another name.
		Packages: b.packages.Path,
		Orphan:   orphan, OrphanGrace: rt.Grace.D(),
	}, b.log)
	if err != nil {
		return fmt.Errorf("prepare workers: %w", err)
	}

	b.closers = append(b.closers, func() { b.launcher.Close() }) //nolint:errcheck // what is left was killed

	prober := health.New(b.peers.ClientCertificate)
	b.closers = append(b.closers, prober.Close)

	b.runner, err = runner.New(runner.Config{
		Policy: rollout.Policy{Grace: rt.Grace.D()},
		Node:   b.node,
		Hooks:  b.rolloutHooks(),
		Adopt:  b.shared(),
	}, b.store, b.launcher, prober, b.log)
	if err != nil {
		return fmt.Errorf("prepare rollout: %w", err)
	}

	return nil
}

// publishing builds what turns the state into snapshots for the gateway.
func (b *builder) publishing() error {
	node, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this machine: %w", err)
	}

	b.node = node

	cfg := publish.Config{Node: node, Published: controltel.Publish(b.registry)}
	if b.role == roleGateway {
		cfg.Node = "" // instances on this machine belong to a control process, which may be older than this one
	}

	if b.etcd != nil {
		cfg.Look = lookEvery
	}

	b.publisher = publish.New(cfg, b.store, b.log)

	if b.etcd != nil {
		gatewaytel.Behind(b.registry, b.publisher.Behind)
	}

	return nil
}

// rolloutHooks count what the rollout tells, and pass on what others must know of it.
func (b *builder) rolloutHooks() runner.Hooks {
	h := controltel.Rollout(b.registry, func() (map[spec.ServiceStatus]int, map[spec.InstanceState]int) {
		return b.runner.Counts()
	})

	counted := h.Gone
	h.Gone = func(serviceID, instanceID string) {
		b.publisher.Gone(serviceID, instanceID)
		counted(serviceID, instanceID)
	}
	h.Forgotten = func(serviceID string) {
		b.usage.Forget(serviceID)
		b.launcher.Forget(serviceID)
	}

	return h
}

// gateway builds the request path, without its doors.
func (b *builder) gateway() error {
	to := b.settings.Routing.upstream()
	to.Worker = b.peers.To

	client, err := upstream.New(to)
	if err != nil {
		return fmt.Errorf("prepare upstream: %w", err)
	}

	limits, err := limit.New(b.settings.Admission.limits(gatewaytel.Limits(b.registry)))
	if err != nil {
		return fmt.Errorf("prepare limits: %w", err)
	}

	verifier, err := auth.NewVerifier(b.settings.Auth.edge(), gatewaytel.Auth(b.registry))
	if err != nil {
		return fmt.Errorf("prepare authentication: %w", err)
	}

	doors, services := gatewaytel.Edge(b.registry)
	b.doorHooks = doors

	compiler, err := plan.NewCompiler(b.settings.Routing.plan(b.settings.Edge.Limits.Body, gatewaytel.Pool(b.registry)), plan.Parts{
		Open: client.Open, Guard: plan.Guards(verifier, b.ring, b.log), Limits: limits, Hooks: services, Log: b.log,
	})
	if err != nil {
		return fmt.Errorf("prepare the plan: %w", err)
	}

	b.follower = plan.NewFollower(plan.FollowConfig{
		File: filepath.Join(b.settings.DataDir, "gateway", "last-good.json"), Hooks: gatewaytel.Plan(b.registry),
	}, compiler, b.publisher, b.log)

	b.handler, err = gateway.New(b.settings.Auth.corridor(b.settings.Routing.corridor()), gateway.Parts{
		Plans: b.follower, Limits: limits, Forward: client, Hooks: b.counted(gatewaytel.Corridor(b.registry)), Log: b.log,
	})
	if err != nil {
		return fmt.Errorf("prepare the gateway: %w", err)
	}

	b.upstream = client

	return nil
}

// parts adds what runs, in this order, so that they stop in the other one: what feeds requests
// outlives what takes them.
func (b *builder) parts() error {
	if !procs.Chosen() {
		b.group.Add("processors", procs.New(procs.Config{}).Run)
	}

	if b.embedded != nil {
		b.group.Add("state", b.watchState)
	}

	if b.control != nil {
		b.group.Add("identity", b.control.identity.Run)
		b.group.Add("registry", b.control.registry.Run)
	}

	b.group.Add("publisher", b.runPublisher)

	if b.follower != nil {
		b.group.Add("upstream", b.upstream.Run)
		b.group.Add("plan", b.follower.Run)
	}

	if b.runner != nil {
		b.group.Add("rollout", b.runRollout)
	}

	return nil
}

// watchState tells when the state cannot go on, such as on a full disk. Predictions need no state,
// so they go on; nothing can be changed until a restart.
func (b *builder) watchState(ctx context.Context) error {
	select {
	case <-ctx.Done():
	case <-b.embedded.Failed():
		err := b.embedded.Err()
		b.log.Error("the state failed: nothing can be changed until a restart; a process that is ready goes on with predictions",
			slog.Any("error", err))
		b.degraded.Store(new("the state failed: " + err.Error()))
		<-ctx.Done()
	}

	return nil
}

// publishRetry is the wait after publishing was not possible, such as without etcd.
const publishRetry = time.Second

// runPublisher publishes until ctx ends. A gateway serves its last plan while the state is away.
func (b *builder) runPublisher(ctx context.Context) error {
	for {
		err := b.publisher.Run(ctx)
		if ctx.Err() != nil || err == nil || b.role == roleAll {
			return err //nolint:wrapcheck // it says what it did
		}

		b.log.Warn("the state is away", slog.Any("error", err))

		retry := time.NewTimer(publishRetry)

		select {
		case <-ctx.Done():
			retry.Stop()

			return nil
		case <-retry.C:
		}
	}
}

// runRollout runs the rollout; when it is stopped, its workers drain and end.
func (b *builder) runRollout(ctx context.Context) error {
	err := b.lead(ctx)

	b.handOver(ctx)

	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), b.settings.Runtime.Grace.D()+stopMargin)
	defer cancel()

	if serr := b.runner.Shutdown(drain); serr != nil && err == nil {
		err = serr
	}

	return err
}

// listeners opens every port, so that wrong addresses show before anything runs.
func (b *builder) listeners() error {
	var err error
	if b.tls, err = tlsconf.New(b.settings.tls(), b.log); err != nil {
		return fmt.Errorf("prepare TLS: %w", err)
	}

	b.group.Add("certificates", b.tls.Run)

	if err := b.listenOps(); err != nil {
		return err
	}

	if b.control != nil {
		if err := b.control.listen(b); err != nil {
			return err
		}

		b.group.Add("control API", b.control.serve)

		if err := b.listenAdmin(b.sockets); err != nil {
			return err
		}
	}

	if b.handler == nil {
		return nil
	}

	b.edge, err = edge.Listen(b.ctx, b.settings.Edge, edge.Deps{
		Handler: b.handler, TLS: b.tls.Config(), Log: b.log, Access: b.access,
		Ready: func() bool { return b.health().Ready }, Hooks: b.doorHooks,
	})
	if err != nil {
		return fmt.Errorf("open the edge: %w", err)
	}

	b.closers = append(b.closers, func() { b.edge.Close() }) //nolint:errcheck // closed after Run already
	b.group.Add("edge", b.edge.Run)

	return nil
}

func (b *builder) listenOps() error {
	opts := []telemetry.OpsOption{telemetry.WithLog(b.log)}
	if b.settings.Ops.TLS {
		opts = append(opts, telemetry.WithTLS(b.tls.Config()))
	}

	ops, err := telemetry.ListenOps(b.ctx, b.settings.Ops.ops(), b.registry, b.health, opts...)
	if err != nil {
		return fmt.Errorf("open the operations listener: %w", err)
	}

	b.ops = ops
	b.closers = append(b.closers, func() { ops.Close() }) //nolint:errcheck // closed after Run already
	b.group.Add("ops", ops.Run)

	return nil
}

func jsonIndent(v any) ([]byte, error) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode: %w", err)
	}

	return append(data, '\n'), nil
}
