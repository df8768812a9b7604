package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/api"
	"github.com/sluice-gateway/sluice/control/identity"
	"github.com/sluice-gateway/sluice/control/registry"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgsource"
	"github.com/sluice-gateway/sluice/internal/telemetry/controltel"
	"github.com/sluice-gateway/sluice/spec"
)

// controlPlane is the management side: identity, model registry and their API.
type controlPlane struct {
	identity *identity.Service
	registry *registry.Registry
	listener net.Listener
	server   *http.Server
	scheme   string
	// local is the same API for the process itself, acting as the first user in the first project.
	local   http.Handler
	project string
}

// identity opens users, credentials and the model registry.
func (b *builder) identity() error {
	id, err := identity.Open(b.ctx, identity.Config{
		BootstrapFile: filepath.Join(b.settings.DataDir, bootstrapFile), Auth: b.settings.Auth.control(),
	}, b.store, b.ring, b.log)
	if err != nil {
		return fmt.Errorf("open identity: %w", err)
	}

	if b.packages, err = openPackages(b.settings); err != nil {
		return err
	}

	if b.role == roleAll && b.etcd == nil {
		if err := b.checkPackages(); err != nil {
			return err
		}
	}

	fetcher, err := pkgsource.New(b.settings.fetch())
	if err != nil {
		return fmt.Errorf("open the package store: %w", err)
	}

	b.control = &controlPlane{
		identity: id,
		registry: registry.New(registry.Config{
			Hidden: []string{b.settings.DataDir}, SourceRoots: b.settings.Models.SourceRoots,
			Fetch: fetcher, CacheBytes: int64(b.settings.Models.CacheBytes), Hooks: controltel.Fetch(b.registry),
		}, b.store, b.packages, b.log),
	}

	controltel.Fetching(b.registry, b.control.registry.Fetching)

	return nil
}

// listen opens the control listener.
func (c *controlPlane) listen(b *builder) error {
	deps := api.Deps{
		Store: b.store, Registry: c.registry, Ring: b.ring, Gate: c.identity,
		Usage: usageByID{b.system}, Routes: c.identity.Routes(), Logs: b.logs(),
	}
	cfg := api.Config{
		EdgeURL: func() string { return b.edgeURL() },
		Web:     web.Config{Hooks: web.Hooks{Done: audit(b.log)}},
	}

	public, err := api.New(cfg, deps, b.log)
	if err != nil {
		return fmt.Errorf("prepare the control API: %w", err)
	}

	gate, err := c.firstUser(b)
	if err != nil {
		return err
	}

	deps.Gate, deps.Routes = gate, nil

	local, err := api.New(cfg, deps, b.log)
	if err != nil {
		return fmt.Errorf("prepare the control API: %w", err)
	}

	c.local, c.project = local.Handler(), gate.principal.ProjectID

	ln, err := new(net.ListenConfig).Listen(b.ctx, "tcp", b.settings.Control.Address)
	if err != nil {
		return fmt.Errorf("open the control API: %w", err)
	}

	c.scheme = "http"
	if b.settings.Control.TLS {
		c.scheme = "https"
		c.listener = web.SecureListener(ln, b.tls.Config())
	} else {
		c.listener = web.Listener(ln)
	}

	c.server = web.NewServer(visible(public.Handler(), b.follower), b.log)
	b.closers = append(b.closers, func() { c.listener.Close() }) //nolint:errcheck // closed by the server already

	return nil
}

// audit logs every operation that may change something: who did what, and how it ended.
func audit(log *slog.Logger) func(*web.Route, *web.Request, int, error) {
	return func(route *web.Route, r *web.Request, status int, err error) {
		if route.Method == http.MethodGet {
			return
		}

		attrs := []slog.Attr{
			slog.String("operation", route.Name), slog.String("path", r.HTTP.URL.Path), slog.Int("status", status),
			slog.String("request_id", r.ID), slog.String("remote", r.Remote().String()),
		}

		if p := r.Principal; p != nil {
			attrs = append(attrs, slog.String("user", p.UserName), slog.String("user_id", p.UserID), slog.String("project", p.ProjectID))
		}

		if err != nil {
			attrs = append(attrs, slog.String("error", fault.From(err).Message()))
		}

		log.LogAttrs(r.Context(), slog.LevelInfo, "audit", attrs...)
	}
}

// firstUser is who the process acts as when it deploys what the configuration says.
func (c *controlPlane) firstUser(b *builder) (localGate, error) {
	users, _, err := b.store.Users.List(b.ctx)
	if err != nil {
		return localGate{}, fmt.Errorf("find the first user: %w", err)
	}

	projects, _, err := b.store.Projects.List(b.ctx)
	if err != nil {
		return localGate{}, fmt.Errorf("find the first project: %w", err)
	}

	if len(users) == 0 || len(projects) == 0 {
		return localGate{}, errors.New("the state holds no user or no project")
	}

	user := slices.MinFunc(users, func(a, b store.Item[spec.User]) int {
		return cmp.Compare(a.Value.CreatedAt, b.Value.CreatedAt)
	}).Value
	project := projects[0].Value

	for _, p := range projects {
		if p.Value.DomainID == user.DomainID {
			project = p.Value
		}
	}

	return localGate{&auth.Principal{
		Method: auth.MethodToken, DomainID: user.DomainID, ProjectID: project.ID,
		UserID: user.ID, UserName: user.Name, Key: "user:" + user.ID,
	}}, nil
}

func (c *controlPlane) url() string { return baseURL(c.scheme, c.listener.Addr().String()) }

// controlStop is how long calls of the control API may take once it stops.
const controlStop = 5 * time.Second

// serve answers the control API until ctx ends.
func (c *controlPlane) serve(ctx context.Context) error {
	done := make(chan error, 1)

	go func() { done <- c.server.Serve(c.listener) }()

	select {
	case err := <-done:
		return fmt.Errorf("control API: %w", err)
	case <-ctx.Done():
	}

	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), controlStop)
	defer cancel()

	err := c.server.Shutdown(stop)
	if err != nil {
		err = errors.Join(err, c.server.Close())
	}

	if serr := <-done; !errors.Is(serr, http.ErrServerClosed) {
		err = errors.Join(err, serr)
	}

	if err != nil {
		return fmt.Errorf("control API: %w", err)
	}

	return nil
}
