package command

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/cli"
)

// connect makes the connection to the platform once.
func (r *resolver) connect() (*cli.Platform, error) {
	if r.platform != nil {
		return r.platform, nil
	}

	o := r.flags.conn
	o.Insecure = r.flags.insecure

	p, err := cli.Connect(o)
	if err != nil {
		return nil, err //nolint:wrapcheck // it tells what to give
	}

	r.platform = p

	return p, nil
}

// services makes one target of all services.
func (r *resolver) services(ctx context.Context, list []weighted) (*target, error) {
	p, err := r.connect()
	if err != nil {
		return nil, err
	}

	var (
		t         = &target{}
		names     []string
		addresses []string
	)

	for _, w := range list {
		id, err := p.ServiceID(ctx, w.ref)
		if err != nil {
			return nil, err //nolint:wrapcheck // it names the service
		}

		urls, err := r.serviceURLs(ctx, id)
		if err != nil {
			return nil, err
		}

		if r.flags.direct && len(list) > 1 {
			return nil, usage("--direct takes one service")
		}

		for _, u := range urls {
			addresses = append(addresses, addressOf(u))
		}

		u := urls[0]
		if t.url == nil {
			t.url = u
		}

		base := baseOf(u)
		full := *u
		full.Path = firstOf(strings.TrimSuffix(u.Path, "/")+r.path(), "/")

		item, err := r.item(ctx, &full, u.Host, base)
		if err != nil {
			return nil, err
		}

		item.Name, item.Weight = w.ref, w.weight
		names = append(names, w.ref)
		t.items = append(t.items, item)
		t.bases = append(t.bases, base)
	}

	t.name = strings.Join(names, ", ")

	slices.Sort(addresses)

	return t, r.finish(t, slices.Compact(addresses))
}

func (r *resolver) path() string {
	p := r.flags.path
	if p != "" && !strings.HasPrefix(p, "/") {
		p = "/" + p
	}

	return p
}

// serviceURLs tells where a service is: at the edge, or, for the direct channel, its instances.
func (r *resolver) serviceURLs(ctx context.Context, id string) ([]*url.URL, error) {
	if !r.flags.direct {
		u, err := r.edge()
		if err != nil {
			return nil, err
		}

		u.Path = "/v1/infers/" + id

		return []*url.URL{u}, nil
	}

	list, err := r.platform.Endpoints(ctx, id)
	if err != nil {
		return nil, err //nolint:wrapcheck // it tells enough
	}

	if len(list) == 0 {
		return nil, fmt.Errorf("service %s has no instance that can be called directly", id)
	}

	urls := make([]*url.URL, 0, len(list))

	for _, text := range list {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("the platform names the instance %q: %w", text, err)
		}

		if err := r.allowed(u.Hostname()); err != nil {
			return nil, err
		}

		u.Path = "/"
		urls = append(urls, u)
	}

	return urls, nil
}

// edge is the address of the edge: as named, or else that of the data directory.
func (r *resolver) edge() (*url.URL, error) {
	named := firstOf(r.flags.url, r.flags.conn.Edge)

	text := firstOf(named, r.platform.Edge())
	if text == "" {
		return nil, usage("no edge address: give --edge URL, or --data DIR of a running sluice")
	}

	u, err := parseURL("--edge", text)
	if err != nil {
		return nil, err
	}

	if u.Path != "/" {
		return nil, usage("--edge %q: with --service it is the address of the edge, without a path", text)
	}

	if named == "" {
		return u, r.allowed(u.Hostname())
	}

	return u, nil
}

// allowed refuses hosts that nobody has named.
func (r *resolver) allowed(host string) error {
	if isLoopback(host) || slices.Contains(r.flags.allowHosts, host) {
		return nil
	}

	return usage("the platform names the host %s, which you did not: add --allow-host %s to send load to it", host, host)
}
