package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/spec"
)

// host is the Backend of one instance: its address and its idle connections.
type host struct {
	client  *Client
	network string
	address string
	name    string // for the Host header
	tls     *tls.Config
	link    *link.Client // nil if the instance has none
	linked  atomic.Int64 // who needs the link: the host until it is closed, and each call on it
	fixed   fixed

	mu     sync.Mutex // guards the rest
	idle   []*conn    // the one used last stands last
	closed bool
}

var errAddress = errors.New("the instance has no usable address")

func newHost(cl *Client, v *spec.Version, in spec.Instance) (*host, error) {
	h := &host{client: cl, network: in.Network, address: in.Address, name: in.Address}
	h.linked.Store(1)

	var err error
	if h.link, err = cl.linkTo(&in); err != nil {
		return nil, err
	}

	switch in.Network {
	case "", "tcp", "tcp4", "tcp6":
		if h.network == "" {
			h.network = "tcp"
		}

		name, port, err := net.SplitHostPort(in.Address)
		if err != nil || port == "" || name == "" {
			return nil, fmt.Errorf("%w: %q", errAddress, in.Address)
		}
	case "unix":
		if in.Address == "" {
			return nil, errAddress
		}

		h.name = "localhost"
	default:
		return nil, fmt.Errorf("%w: network %q", errAddress, in.Network)
	}

	switch in.Scheme {
	case "", "http", "ws":
	case "https", "wss":
		if h.tls, err = cl.tlsFor(h, v, &in); err != nil {
			return nil, err
		}
	default:
		return nil, fmt.Errorf("%w: scheme %q", errAddress, in.Scheme)
	}

	if in.Endpoint != nil {
		if err := h.external(in.Endpoint); err != nil {
			return nil, err
		}
	}

	return h, nil
}

// fixed is what every request to an external engine carries.
type fixed struct {
	prefix []byte            // before the path, without a slash at its end
	lines  []byte            // header lines
	names  map[string]string // of those lines, in lower case
}

// external takes over how an external engine wants to be talked to.
func (h *host) external(e *spec.Endpoint) error {
	u, err := url.Parse(e.URL)
	if err != nil {
		return fmt.Errorf("%w: %w", errAddress, err)
	}

	if u.Host != "" && h.network != "unix" {
		h.name = u.Host
	}

	prefix := e.PathPrefix
	if prefix == "" {
		prefix = u.EscapedPath()
	}

	prefix = strings.TrimRight(prefix, "/")
	if prefix != "" && (prefix[0] != '/' || !safeValue([]byte(prefix)) || strings.ContainsAny(prefix, " ?#")) {
		return fmt.Errorf("%w: path prefix %q", errAddress, prefix)
	}

	h.fixed = fixed{prefix: []byte(prefix), names: make(map[string]string, len(e.Headers))}

	for _, name := range slices.Sorted(maps.Keys(e.Headers)) {
		value := e.Headers[name]
		if !safeName([]byte(name)) || !safeValue([]byte(value)) {
			return fmt.Errorf("%w: header %q", errAddress, name)
		}

		lower := strings.ToLower(name)
		if lower == "host" {
			h.name = value

			continue
		}

		h.fixed.names[lower] = name
		h.fixed.lines = fmt.Appendf(h.fixed.lines, "%s: %s\r\n", name, value)
	}

	return nil
}

// local reports whether the instance is on this machine.
func (h *host) local() bool {
	if h.network == "unix" {
		return true
	}

	return loopback(h.address)
}

// loopback reports whether host:port is on this machine for certain.
func loopback(address string) bool {
	ap, err := netip.ParseAddrPort(address)

	return err == nil && ap.Addr().Unmap().IsLoopback()
}

// get returns an idle connection that is still good, or makes one.
func (h *host) get(ctx context.Context, deadline time.Time) (*conn, error) {
	for {
		h.mu.Lock()

		n := len(h.idle)
		if n == 0 {
			h.mu.Unlock()

			return h.dial(ctx, deadline)
		}

		x := h.idle[n-1]
		h.idle[n-1] = nil
		h.idle = h.idle[:n-1]
		h.mu.Unlock()

		if x.usable() {
			x.reused = true

			return x, nil
		}

		x.close()
	}
}

func (h *host) dial(ctx context.Context, deadline time.Time) (*conn, error) {
	if end := time.Now().Add(h.client.cfg.DialTimeout); end.Before(deadline) {
		deadline = end
	}

	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()

	var d net.Dialer

	raw, err := d.DialContext(ctx, h.network, h.address)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", h.address, err)
	}

	if h.tls == nil {
		return newConn(h, raw, raw), nil
	}

	below := &paced{Conn: raw}
	secure := tls.Client(below, h.tls)

	if err := secure.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("TLS handshake with %s: %w", h.address, err), raw.Close())
	}

	x := newConn(h, secure, raw)
	x.paced = below

	return x, nil
}

// put takes a connection back whose answer was read to the end.
func (h *host) put(x *conn) {
	x.rest()
	x.used = time.Now()

	h.mu.Lock()

	if h.closed || len(h.idle) >= h.client.cfg.MaxIdle {
		h.mu.Unlock()
		x.close()

		return
	}

	h.idle = append(h.idle, x)
	h.mu.Unlock()
}

// expire closes what was last used before t.
func (h *host) expire(t time.Time) {
	h.mu.Lock()

	n := 0
	for n < len(h.idle) && h.idle[n].used.Before(t) {
		n++
	}

	old := append([]*conn(nil), h.idle[:n]...)
	h.idle = append(h.idle[:0], h.idle[n:]...)
	clear(h.idle[len(h.idle):cap(h.idle)])
	h.mu.Unlock()

	for _, x := range old {
		x.close()
	}
}

// Close implements pool.Backend.
func (h *host) Close() error {
	h.mu.Lock()
	old, again := h.idle, h.closed
	h.idle, h.closed = nil, true
	h.mu.Unlock()

	if again {
		return nil
	}

	for _, x := range old {
		x.close()
	}

	if h.link != nil {
		h.leaveLink()
	}

	h.client.forget(h)

	return nil
}

// holdLink keeps the link open for one call; false if there is none any more.
func (h *host) holdLink() bool {
	if h.link == nil {
		return false
	}

	for {
		n := h.linked.Load()
		if n == 0 {
			return false
		}

		if h.linked.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// leaveLink is the end of a call on the link, or of the host; the last one closes it, so
// that an instance that leaves the plan still ends what it was given.
func (h *host) leaveLink() {
	if h.linked.Add(-1) == 0 {
		h.link.Close()
	}
}

// flush closes what is idle: it is probably as dead as the connection that just broke.
func (h *host) flush() { h.expire(time.Now().Add(time.Hour)) }
