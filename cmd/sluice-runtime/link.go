package main

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// linkOptions are the flags about the door for gateways.
type linkOptions struct {
	address             string
	cert, key, clientCA string
	// http is true if the door for HTTP is for holders of the same certificates.
	http bool
}

func (o *linkOptions) flags(fs *flag.FlagSet) {
	fs.StringVar(&o.address, "link", "", "`address` for small calls from gateways: unix:PATH, unix:DIR/ for a socket named by the pid, "+
		"or host:port, which needs certificates unless it is of the loopback interface; empty means none")
	fs.StringVar(&o.cert, "link-cert", "", "PEM `file` with the certificate of the link; changed files are loaded")
	fs.StringVar(&o.key, "link-key", "", "PEM `file` with its key")
	fs.StringVar(&o.clientCA, "link-client-ca", "", "PEM `file` with the authorities that gateways must have a certificate of")
	fs.BoolVar(&o.http, "link-http", false, "HTTP is for gateways only, too, with the certificates of the link")
}

// secure reports whether there are certificates.
func (o *linkOptions) secure() bool { return o.cert != "" }

// scheme is that of the door for HTTP.
func (o *linkOptions) scheme() string {
	if o.http {
		return "https"
	}

	return "http"
}

func (o *linkOptions) check() (errs []error) {
	if (o.cert == "") != (o.key == "") || (o.cert == "") != (o.clientCA == "") {
		return []error{errors.New("--link-cert, --link-key and --link-client-ca belong together")}
	}

	unix := strings.HasPrefix(o.address, "unix:")

	if o.http && !o.secure() {
		errs = append(errs, errors.New("--link-http needs --link-cert, --link-key and --link-client-ca"))
	}

	switch {
	case o.secure() && !o.http && (unix || o.address == ""):
		errs = append(errs, errors.New("--link-cert needs a --link of the form host:port"))
	case o.address == "" || unix:
	default:
		host, _, err := net.SplitHostPort(o.address)
		if err != nil {
			errs = append(errs, fmt.Errorf("--link %q is neither host:port nor unix:PATH", o.address))
		} else if !o.secure() && !telemetry.Loopback(host) {
			errs = append(errs, fmt.Errorf("--link %s can be reached from outside and needs --link-cert, --link-key and --link-client-ca", o.address))
		}
	}

	return errs
}

// certificates loads those of the link; nil if there are none.
func (o *linkOptions) certificates(log *slog.Logger) (*tlsconf.Source, error) {
	if !o.secure() {
		return nil, nil //nolint:nilnil // a link on this machine needs none
	}

	certs, err := tlsconf.New(tlsconf.Config{
		Certificates: []tlsconf.Files{{Cert: o.cert, Key: o.key}}, ClientCA: o.clientCA, MinVersion: "1.3",
	}, log)
	if err != nil {
		return nil, fmt.Errorf("certificates of the link: %w", err)
	}

	return certs, nil
}

// listenLink opens the door for small calls, if there is to be one.
func (w *worker) listenLink(ctx context.Context) (net.Listener, error) {
	addr := w.opt.link.address
	if addr == "" {
		return nil, nil //nolint:nilnil // no door is a valid choice
	}

	if strings.HasPrefix(addr, "unix:") && strings.HasSuffix(addr, "/") {
		addr += strconv.Itoa(os.Getpid()) + ".sock"
	}

	ln, err := serve.Listen(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("start link: %w", err)
	}

	return ln, nil
}

// secured wraps a TCP listener if there are certificates. Connections shake hands when they are first read.
func secured(ln net.Listener, certs *tlsconf.Source) net.Listener {
	if certs == nil || ln.Addr().Network() == "unix" {
		return ln
	}

	return tls.NewListener(ln, certs.Config())
}

// linkAddress is how a link is told to gateways: unix:PATH, tls:HOST:PORT or tcp:HOST:PORT; "" without one.
func linkAddress(ln net.Listener, secure bool) string {
	switch {
	case ln == nil:
		return ""
	case ln.Addr().Network() == "unix":
		return serve.Address(ln)
	case secure:
		return "tls:" + serve.Address(ln)
	default:
		return "tcp:" + serve.Address(ln)
	}
}
