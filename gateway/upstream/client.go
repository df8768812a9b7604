package upstream

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

// Client forwards calls to instances.
type Client struct {
	cfg    Config
	copies sync.Pool // of *[copySize]byte, for streamed request bodies

	mu    sync.Mutex // guards hosts
	hosts map[*host]struct{}
}

var _ gateway.Forwarder = (*Client)(nil)

// New returns a client without connections.
func New(cfg Config) (*Client, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("upstream: %w", err)
	}

	cl := &Client{cfg: cfg.Defaults(), hosts: make(map[*host]struct{})}
	cl.copies.New = func() any { return new([copySize]byte) }

	return cl, nil
}

// Open prepares the connections to an instance; it does not dial. It has the shape of plan.Opener.
func (cl *Client) Open(v *spec.Version, in spec.Instance) (pool.Backend, error) {
	if in.Scheme == "" {
		in.Scheme = v.Protocol
	}

	h, err := newHost(cl, v, in)
	if err != nil {
		return nil, err
	}

	cl.mu.Lock()
	cl.hosts[h] = struct{}{}
	cl.mu.Unlock()

	return h, nil
}

func (cl *Client) forget(h *host) {
	cl.mu.Lock()
	defer cl.mu.Unlock()

	delete(cl.hosts, h)
}

// Run closes idle connections in time, until ctx ends; then it closes all that are idle.
func (cl *Client) Run(ctx context.Context) error {
	tick := time.NewTicker(cl.cfg.IdleTimeout / 2)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			cl.expire(time.Now().Add(time.Hour))

			return nil
		case now := <-tick.C:
			cl.expire(now.Add(-cl.cfg.IdleTimeout))
		}
	}
}

func (cl *Client) expire(before time.Time) {
	cl.mu.Lock()

	hosts := make([]*host, 0, len(cl.hosts))
	for h := range cl.hosts {
		hosts = append(hosts, h)
	}

	cl.mu.Unlock()

	for _, h := range hosts {
		h.expire(before)
	}
}

// Idle is the number of idle connections to all instances.
func (cl *Client) Idle() int {
	cl.mu.Lock()
	defer cl.mu.Unlock()

	n := 0

	for h := range cl.hosts {
		h.mu.Lock()
		n += len(h.idle)
		h.mu.Unlock()
	}

	return n
}
