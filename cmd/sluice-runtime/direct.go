package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/internal/direct"
	"github.com/sluice-gateway/sluice/runtime/serve"
	"github.com/sluice-gateway/sluice/runtime/serve/rpc"
)

// directOptions are the flags about the doors past the gateway.
type directOptions struct {
	http, grpc       string
	allow, keySHA256 string
	files            direct.Files
}

func (o *directOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.http, "direct", "", "`address` for HTTP from callers that skip the gateway; empty means none")
	fs.StringVar(&o.grpc, "direct-grpc", "", "`address` for gRPC from callers that skip the gateway; empty means none")
	fs.StringVar(&o.allow, "direct-allow", "", "`addresses` and prefixes, with commas, that may use the direct doors; empty means all")
	fs.StringVar(&o.keySHA256, "direct-key-sha256", "", "SHA-256 of the key that callers show in "+direct.KeyHeader+"; empty means none")
	fs.StringVar(&o.files.Cert, "direct-cert", "", "PEM `file` with the certificate of the direct doors; empty means no TLS")
	fs.StringVar(&o.files.Key, "direct-cert-key", "", "PEM `file` with its key")
	fs.StringVar(&o.files.ClientCA, "direct-client-ca", "", "PEM `file` with the CA that callers' certificates must come from")
}

// directDoors are open listeners that let in only whom the guard knows.
type directDoors struct {
	guard      *direct.Guard
	tls        *tls.Config
	http, grpc net.Listener
}

// open opens the doors, or none; nil if none is wanted.
func (o *directOptions) open(ctx context.Context) (*directDoors, error) {
	if o.http == "" && o.grpc == "" {
		return nil, nil //nolint:nilnil // no door is a valid choice
	}

	guard, err := direct.New(direct.SplitList(o.allow), o.keySHA256)
	if err != nil {
		return nil, fmt.Errorf("direct doors: %w", err)
	}

	conf, err := o.files.Config()
	if err != nil {
		return nil, fmt.Errorf("direct doors: %w", err)
	}

	d := &directDoors{guard: guard, tls: conf}

	if o.http != "" {
		if d.http, err = serve.Listen(ctx, o.http); err != nil {
			return nil, fmt.Errorf("direct doors: %w", err)
		}
	}

	if o.grpc != "" {
		if d.grpc, err = serve.Listen(ctx, o.grpc); err != nil {
			return nil, errors.Join(fmt.Errorf("direct doors: %w", err), d.close())
		}
	}

	return d, nil
}

func (d *directDoors) close() error {
	var errs []error

	for _, ln := range []net.Listener{d.http, d.grpc} {
		if ln != nil {
			errs = append(errs, ln.Close())
		}
	}

	return errors.Join(errs...)
}

// address of a listener, "" if there is none.
func address(ln net.Listener) string {
	if ln == nil {
		return ""
	}

	return serve.Address(ln)
}

// serveDirect adds the servers of the direct doors to g.
func (w *worker) serveDirect(ctx context.Context, g *errgroup.Group, d *directDoors, app *serve.App, now <-chan struct{}) error {
	var permit func([]byte) bool
	if d.guard.Keyed() {
		permit = d.guard.Key
	}

	if d.http != nil {
		server, err := serve.NewServer(serve.ServerConfig{
			DrainDelay: w.opt.drainDelay, Grace: w.opt.grace, Permit: permit, PermitHeader: direct.KeyHeader,
		}, app, &w.state, w.log)
		if err != nil {
			return fmt.Errorf("build the direct HTTP server: %w", err)
		}

		ln := d.guard.Listener(d.http)
		if d.tls != nil {
			conf := d.tls.Clone()
			conf.NextProtos = []string{"http/1.1"}
			ln = tls.NewListener(ln, conf)
		}

		g.Go(func() error { return server.Run(ctx, ln, now) })
	}

	if d.grpc != nil {
		door := rpc.New(rpc.Config{
			MaxMessage: int(w.opt.maxBody), DrainDelay: w.opt.drainDelay, Grace: w.opt.grace,
			Permit: permit, PermitKey: strings.ToLower(direct.KeyHeader), TLS: d.tls,
		}, app, w.log)
		g.Go(func() error { return door.Run(ctx, d.guard.Listener(d.grpc), now) })
	}

	return nil
}
