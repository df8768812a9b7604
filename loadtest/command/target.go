package command

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/cli"
	"github.com/sluice-gateway/sluice/loadtest/request"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// target is where a load goes and what it is.
type target struct {
	name     string
	url      *url.URL
	socket   bool // WebSocket
	endpoint wire.Endpoint
	items    []request.Item
	mix      *request.Mix
	// bases are the URLs below which the items are, for metadata and statistics.
	bases []*url.URL
}

// resolver turns flags into targets.
type resolver struct {
	flags    *flags
	stdin    io.Reader
	tls      *tls.Config
	platform *cli.Platform
	auth     *authorizer
	http     *http.Client
	read     []byte // standard input, which can be read only once
}

const maxBody = 256 << 20

func newResolver(f *flags, stdin io.Reader) (*resolver, error) {
	r := &resolver{flags: f, stdin: stdin}
	r.tls = &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: f.insecure, NextProtos: []string{"http/1.1"}} //nolint:gosec // the user asks for it by flag

	if f.conn.CAFile != "" {
		pem, err := os.ReadFile(f.conn.CAFile)
		if err != nil {
			return nil, usage("--ca-cert: %w", err)
		}

		r.tls.RootCAs = x509.NewCertPool()
		if !r.tls.RootCAs.AppendCertsFromPEM(pem) {
			return nil, usage("--ca-cert %s: no certificate in it", f.conn.CAFile)
		}
	}

	r.http = r.client()

	return r, nil
}

// resolve makes the target of the load.
func (r *resolver) resolve(ctx context.Context) (*target, error) {
	services, err := r.flags.weights()
	if err != nil {
		return nil, err
	}

	if r.auth, err = r.authorizer(ctx); err != nil {
		return nil, err
	}

	if len(services) > 0 {
		return r.services(ctx, services)
	}

	u, err := parseURL("--url", r.flags.url)
	if err != nil {
		return nil, err
	}

	return r.single(ctx, u)
}

// other makes the second target of a comparison: the same requests, at another URL.
func (r *resolver) other(ctx context.Context, first *target) (*target, error) {
	u, err := parseURL("--compare", r.flags.compare)
	if err != nil {
		return nil, err
	}

	if u.Path == "" || u.Path == "/" {
		u.Path, u.RawPath, u.RawQuery = first.url.Path, first.url.RawPath, first.url.RawQuery
	}

	return r.single(ctx, u)
}

func (r *resolver) single(ctx context.Context, u *url.URL) (*target, error) {
	t := &target{name: u.Redacted(), url: u, bases: []*url.URL{baseOf(u)}}

	item, err := r.item(ctx, u, u.Host, t.bases[0])
	if err != nil {
		return nil, err
	}

	t.items = []request.Item{item}

	return t, r.finish(t, []string{addressOf(u)})
}

// finish compiles the requests and prepares the connection.
func (r *resolver) finish(t *target, addresses []string) error {
	mix, err := request.NewMix(t.items)
	if err != nil {
		return &UsageError{err}
	}

	t.mix = mix
	t.endpoint = wire.Endpoint{Network: "tcp", Addresses: addresses}

	if r.flags.unix != "" {
		t.endpoint.Network, t.endpoint.Addresses = "unix", []string{r.flags.unix}
	}

	if t.url.Scheme == "https" || t.url.Scheme == "wss" {
		t.endpoint.TLS = r.tls.Clone()
		t.endpoint.TLS.ServerName = t.url.Hostname()
	}

	if t.socket = t.url.Scheme == "ws" || t.url.Scheme == "wss"; t.socket {
		t.endpoint.Upgrade = mix.Head(r.flags.seed)
	}

	return nil
}

func parseURL(flag, text string) (*url.URL, error) {
	if !strings.Contains(text, "://") {
		return nil, usage("%s %q: want http://, https://, ws:// or wss://", flag, text)
	}

	u, err := url.Parse(text)

	switch {
	case err != nil:
		return nil, usage("%s %q: %w", flag, text, errors.Unwrap(err))
	case u.Scheme != "http" && u.Scheme != "https" && u.Scheme != "ws" && u.Scheme != "wss":
		return nil, usage("%s %q: want http://, https://, ws:// or wss://", flag, text)
	case u.Hostname() == "":
		return nil, usage("%s %q: there is no host in it", flag, text)
	case u.User != nil:
		return nil, usage("%s: credentials do not belong into the URL; use --header", flag)
	}

	if p := u.Port(); p != "" {
		if n, err := strconv.Atoi(p); err != nil || n < 1 || n > 65535 {
			return nil, usage("%s %q: port %s is out of range", flag, text, p)
		}
	}

	if u.Path == "" {
		u.Path = "/"
	}

	return u, nil
}

func addressOf(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = "80"

		if u.Scheme == "https" || u.Scheme == "wss" {
			port = "443"
		}
	}

	return net.JoinHostPort(u.Hostname(), port)
}

// baseOf is the URL below which V2 paths are.
func baseOf(u *url.URL) *url.URL {
	b := *u
	b.RawQuery, b.Fragment, b.RawPath = "", "", ""

	if i := strings.Index(b.Path+"/", "/v2/"); i >= 0 {
		b.Path = b.Path[:i]
	}

	b.Path = strings.TrimSuffix(b.Path, "/")

	switch b.Scheme {
	case "ws":
		b.Scheme = "http"
	case "wss":
		b.Scheme = "https"
	}

	return &b
}

// item makes the request that goes to a URL.
func (r *resolver) item(ctx context.Context, u *url.URL, host string, base *url.URL) (request.Item, error) {
	f := r.flags
	it := request.Item{Name: u.Redacted(), Method: f.method, Host: host, Target: requestTarget(u)}

	kind, err := r.payload(ctx, &it, base)
	if err != nil {
		return it, err
	}

	if it.Method == "" {
		it.Method = http.MethodGet
		if len(it.Body) > 0 || len(f.services) > 0 || f.mix != "" {
			it.Method = http.MethodPost
		}
	}

	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, ":")
		if !ok {
			return it, usage("--header %q: want \"Name: value\"", h)
		}

		field := request.Field{Name: strings.TrimSpace(name), Value: strings.TrimSpace(value)}
		if strings.EqualFold(field.Name, "content-type") {
			kind = ""
		}

		it.Fields = append(it.Fields, field)
	}

	if kind != "" {
		it.Fields = append(it.Fields, request.Field{Name: "Content-Type", Value: kind})
	}

	r.auth.apply(&it)

	return it, nil
}

// requestTarget is the path and the query as they were given: templates stay readable for the compiler.
func requestTarget(u *url.URL) string {
	path := u.EscapedPath()
	if strings.Contains(u.Path, "{{") {
		path = u.Path
	}

	if u.RawQuery != "" {
		return path + "?" + u.RawQuery
	}

	return path
}

// payload fills the body and returns its type.
func (r *resolver) payload(ctx context.Context, it *request.Item, base *url.URL) (string, error) {
	f := r.flags

	switch {
	case f.v2 != "":
		return r.infer(ctx, it, base)
	case len(f.files) > 0:
		body, kind, err := request.Form(f.field, f.files)
		if err != nil {
			return "", usage("--file: %w", err)
		}

		it.Body, it.Binary = body, true

		return kind, nil
	case f.body == "":
		return f.contentType, nil
	}

	body, err := r.bodyText()
	if err != nil {
		return "", usage("--body: %w", err)
	}

	it.Body = body
	it.Binary = f.noTemplate || !utf8.Valid(body)

	return firstOf(f.contentType, guess(body)), nil
}

func (r *resolver) bodyText() ([]byte, error) {
	name, isFile := strings.CutPrefix(r.flags.body, "@")
	if !isFile {
		return []byte(name), nil
	}

	if name != "-" {
		return os.ReadFile(name) //nolint:wrapcheck // the error names the file
	}

	if r.read == nil {
		data, err := io.ReadAll(io.LimitReader(r.stdin, maxBody))
		if err != nil {
			return nil, fmt.Errorf("standard input: %w", err)
		}

		r.read = data
	}

	return r.read, nil
}

func guess(body []byte) string {
	b := bytes.TrimLeft(body, " \t\r\n")
	if len(b) > 0 && (b[0] == '{' || b[0] == '[') {
		return "application/json"
	}

	if utf8.Valid(body) {
		return "text/plain; charset=utf-8"
	}

	return "application/octet-stream"
}

func firstOf(list ...string) string {
	for _, s := range list {
		if s != "" {
			return s
		}
	}

	return ""
}

// weighted is a service in a mix.
type weighted struct {
	ref    string
	weight int
}

// weights reads --service and --mix.
func (f *flags) weights() ([]weighted, error) {
	list := slices.Clone(f.services)
	if f.mix != "" {
		list = append(list, strings.Split(f.mix, ",")...)
	}

	out := make([]weighted, 0, len(list))

	for _, s := range list {
		w := weighted{ref: strings.TrimSpace(s), weight: 1}

		if ref, number, ok := strings.Cut(w.ref, "="); ok {
			n, err := strconv.Atoi(number)
			if err != nil || n < 1 {
				return nil, usage("service %q: want NAME=WEIGHT with a positive whole number", s)
			}

			w.ref, w.weight = ref, n
		}

		if w.ref == "" {
			return nil, usage("service %q: there is no name", s)
		}

		out = append(out, w)
	}

	return out, nil
}

func isLoopback(host string) bool {
	ip := net.ParseIP(host)

	return host == "localhost" || (ip != nil && ip.IsLoopback())
}
