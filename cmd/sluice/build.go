package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/health"
	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/publish"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/gateway/upstream"
	"github.com/sluice-gateway/sluice/internal/lifecycle"
	"github.com/sluice-gateway/sluice/internal/ortlib"
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
func build(ctx context.Context, set *settings, log *slog.Logger, access io.Writer) (*system, error) {
	grace := set.Edge.Drain.Delay.D() + set.Edge.Drain.Deadline.D() + set.Runtime.Grace.D() + stopMargin
	sys := &system{settings: set, log: log, group: lifecycle.New(log, grace), began: time.Now(), usage: telemetry.NewUsage()}
	sys.setPhase(phaseStarting)

	b := &builder{system: sys, ctx: ctx, access: access, registry: telemetry.New(version.String())}

	for _, step := range []func() error{
		b.state, b.identity, b.workers, b.gateway, b.listeners,
	} {
		if err := step(); err != nil {
			sys.close()

			return nil, err
		}
	}

	return sys, nil
}

// builder holds what the steps of build hand on.
type builder struct {
	*system

	ctx      context.Context //nolint:containedctx // it lives as long as build
	access   io.Writer       // of the access log; nil is none
	registry *telemetry.Registry
	ring     *secretbox.Keyring
	tls      *tlsconf.Source
	handler  *gateway.Gateway
}

// state opens the data directory: keys and etcd.
func (b *builder) state() error {
	dir := b.settings.DataDir
	if err := lockedDir(dir); err != nil {
		return err
	}

	// An earlier process may have left its addresses; whoever waits for ours must not see them.
	if err := os.Remove(filepath.Join(dir, endpointsFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("data directory: %w", err)
	}

	embedded, err := store.StartEmbedded(b.ctx, store.EmbeddedConfig{Dir: filepath.Join(dir, "etcd")}, b.log)
	if err != nil {
		return fmt.Errorf("open the state in %s: %w", dir, err)
	}

	b.embedded = embedded
	b.closers = append(b.closers, embedded.Close)
	b.store = store.New(embedded.Client(), store.DefaultPrefix)

	ring, err := secretbox.LoadOrCreate(filepath.Join(dir, "keyring"))
	if err != nil {
		return fmt.Errorf("open the key ring: %w", err)
	}

	b.ring = ring

	return nil
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

	sockets, err := b.socketDir()
	if err != nil {
		return err
	}

	rt := &b.settings.Runtime

	b.launcher, err = launch.NewLocal(launch.Config{
		Runtime: binary,
		RuntimeArgs: []string{
			"--drain-delay", rt.DrainDelay.D().String(), "--grace", rt.Grace.D().String(), "--link", "unix:" + sockets + "/",
		},
		LogDir: filepath.Join(b.settings.DataDir, "logs"),
		Env:    []string{ortlib.Env + "=" + library},
	}, b.log)
	if err != nil {
		return fmt.Errorf("prepare workers: %w", err)
	}

	b.closers = append(b.closers, func() { b.launcher.Close() }) //nolint:errcheck // what is left was killed

	node, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name this machine: %w", err)
	}

	b.publisher = publish.New(publish.Config{Node: node, Published: controltel.Publish(b.registry)}, b.store, b.log)

	prober := health.New()
	b.closers = append(b.closers, prober.Close)

	b.runner, err = rollout.New(rollout.Config{
		Policy: rollout.Policy{Grace: rt.Grace.D()},
		Node:   node,
		Hooks:  b.rolloutHooks(),
	}, b.store, b.launcher, prober, b.log)
	if err != nil {
		return fmt.Errorf("prepare rollout: %w", err)
	}

	return nil
}

// rolloutHooks count what the rollout tells, and pass on what others must know of it.
func (b *builder) rolloutHooks() rollout.Hooks {
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

// longestSocketDir leaves room for a file name in the 108 bytes that the kernel gives a socket's path.
const longestSocketDir = 90

// socketDir makes an empty directory for the workers' sockets, for this user alone.
func (b *builder) socketDir() (string, error) {
	dir, err := filepath.Abs(filepath.Join(b.settings.DataDir, "run"))
	if err != nil {
		return "", fmt.Errorf("directory for sockets: %w", err)
	}

	if len(dir) > longestSocketDir {
		if dir, err = os.MkdirTemp("", "sluice-"); err != nil {
			return "", fmt.Errorf("directory for sockets: %w", err)
		}
	}

	b.closers = append(b.closers, func() { os.RemoveAll(dir) }) //nolint:errcheck // emptied by the next start at the latest

	// The embedded etcd has locked the data directory: nobody else uses what is in it.
	if err := os.RemoveAll(dir); err != nil {
		return "", fmt.Errorf("directory for sockets: %w", err)
	}

	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("directory for sockets: %w", err)
	}

	return dir, nil
}

// gateway builds the request path, without its doors.
func (b *builder) gateway() error {
	client, err := upstream.New(upstream.Config{})
	if err != nil {
		return fmt.Errorf("prepare upstream: %w", err)
	}

	limits, err := limit.New(b.settings.Admission.limits(gatewaytel.Limits(b.registry)))
	if err != nil {
		return fmt.Errorf("prepare limits: %w", err)
	}

	verifier, err := auth.NewVerifier(auth.Config{}, gatewaytel.Auth(b.registry))
	if err != nil {
		return fmt.Errorf("prepare authentication: %w", err)
	}

	compiler, err := plan.NewCompiler(b.settings.Routing.plan(b.settings.Edge.Limits.Body, gatewaytel.Pool(b.registry)), plan.Parts{
		Open: client.Open, Guard: plan.Guards(verifier, b.ring, b.log), Limits: limits, Log: b.log,
	})
	if err != nil {
		return fmt.Errorf("prepare the plan: %w", err)
	}

	b.follower = plan.NewFollower(plan.FollowConfig{
		File: filepath.Join(b.settings.DataDir, "gateway", "last-good.json"), Hooks: gatewaytel.Plan(b.registry),
	}, compiler, b.publisher, b.log)

	b.handler, err = gateway.New(b.settings.Routing.corridor(), gateway.Parts{
		Plans: b.follower, Limits: limits, Forward: client, Hooks: b.counted(gatewaytel.Corridor(b.registry)), Log: b.log,
	})
	if err != nil {
		return fmt.Errorf("prepare the gateway: %w", err)
	}

	// In this order, so that they stop in the other one: what feeds requests outlives what takes them.
	b.group.Add("identity", b.control.identity.Run)
	b.group.Add("registry", b.control.registry.Run)
	b.group.Add("publisher", b.publisher.Run)
	b.group.Add("upstream", client.Run)
	b.group.Add("plan", b.follower.Run)
	b.group.Add("rollout", b.runRollout)

	return nil
}

// runRollout runs the rollout; when it is stopped, its workers drain and end.
func (b *builder) runRollout(ctx context.Context) error {
	err := b.runner.Run(ctx)

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

	if err := b.control.listen(b); err != nil {
		return err
	}

	b.group.Add("control API", b.control.serve)

	b.edge, err = edge.Listen(b.ctx, b.settings.Edge, edge.Deps{
		Handler: b.handler, TLS: b.tls.Config(), Log: b.log, Access: b.access,
		Ready: func() bool { return b.health().Ready }, Hooks: gatewaytel.Edge(b.registry),
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
