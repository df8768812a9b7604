package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/sluice-gateway/sluice/control/identity"
	"github.com/sluice-gateway/sluice/control/registry"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
)

// controlPlane is the management side: identity, model registry and their API.
type controlPlane struct {
	identity *identity.Service
	registry *registry.Registry
	listener net.Listener
	server   *http.Server
	scheme   string
}

// identity opens users, credentials and the model registry.
func (b *builder) identity() error {
	id, err := identity.Open(b.ctx, identity.Config{
		BootstrapFile: filepath.Join(b.settings.DataDir, "bootstrap.json"),
	}, b.store, b.ring, b.log)
	if err != nil {
		return fmt.Errorf("open identity: %w", err)
	}

	packages, err := pkgstore.New(pkgstore.Config{Dir: filepath.Join(b.settings.DataDir, "packages")})
	if err != nil {
		return fmt.Errorf("open the package store: %w", err)
	}

	b.control = &controlPlane{
		identity: id,
		registry: registry.New(registry.Config{Hidden: []string{b.settings.DataDir}}, b.store, packages, b.log),
	}

	return nil
}

// listen opens the control listener.
func (c *controlPlane) listen(b *builder) error {
	router, err := web.New(web.Config{}, c.identity, b.log, c.routes(b)...)
	if err != nil {
		return fmt.Errorf("prepare the control API: %w", err)
	}

	ln, err := new(net.ListenConfig).Listen(b.ctx, "tcp", b.settings.Control.Address)
	if err != nil {
		return fmt.Errorf("open the control API: %w", err)
	}

	c.scheme = "http"
	if b.settings.Control.TLS {
		c.scheme = "https"
		c.listener = tls.NewListener(ln, b.tls.Config())
	} else {
		c.listener = ln
	}

	c.server = web.NewServer(router, b.log)
	b.closers = append(b.closers, func() { c.listener.Close() }) //nolint:errcheck // closed by the server already

	return nil
}

func (c *controlPlane) routes(b *builder) []web.Route {
	return c.identity.Routes()
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
