package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// ErrNoInstance says that no instance of the service is known to be able to serve.
var ErrNoInstance = errors.New("no instance of the service is ready")

// Endpoint is an instance as the platform tells it.
type Endpoint struct {
	InstanceID string `json:"instance_id"`
	ModelID    string `json:"model_id"`
	Schema     string `json:"schema"`
	IP         string `json:"ip"`
	Port       int    `json:"port"`
	Weight     int    `json:"weight"` // of the model version
	Status     string `json:"status"`
	GRPCPort   int    `json:"grpc_port"`
}

// endpoint is an instance and what calls have learnt of it.
type endpoint struct {
	Endpoint

	base     string
	inFlight atomic.Int64
	latency  atomic.Int64 // smoothed, in ns
	until    atomic.Int64 // ns since the epoch: not used before, unless nothing else is left
}

const (
	// pause is how long an instance is left alone that failed.
	pause = 2 * time.Second
	// gone is how long one is left alone that drains; by then it is not listed any more.
	gone = time.Minute
)

// load is what a call has to expect.
func (e *endpoint) load() float64 {
	return float64(e.inFlight.Load()+1) * math.Max(float64(e.latency.Load()), float64(100*time.Microsecond))
}

func (e *endpoint) learn(took time.Duration) {
	const share = 8 // of a new value: one eighth

	old := e.latency.Load()
	if old == 0 {
		e.latency.Store(int64(took))

		return
	}

	e.latency.Store(old + (int64(took)-old)/share)
}

func (e *endpoint) rest(d time.Duration) { e.until.Store(time.Now().Add(d).UnixNano()) }

// directory is what was looked up last.
type directory struct {
	mu      sync.Mutex // guards the rest
	list    []*endpoint
	at      time.Time     // of the look-up
	stale   bool          // something failed since
	asked   time.Time     // when the last look-up began
	running chan struct{} // closed at the end of the one under way
	err     error         // of the last one
}

// Endpoints are the instances that are known, looked up if need be.
func (c *Client) Endpoints(ctx context.Context) ([]Endpoint, error) {
	list, err := c.endpoints(ctx)
	if err != nil {
		return nil, err
	}

	out := make([]Endpoint, len(list))
	for i, e := range list {
		out[i] = e.Endpoint
	}

	return out, nil
}

// endpoints gives what is known; the first call waits for it, later ones are served while it is
// looked up again.
func (c *Client) endpoints(ctx context.Context) ([]*endpoint, error) {
	d := &c.known

	d.mu.Lock()
	now := time.Now()
	old := d.stale || now.Sub(d.at) >= c.cfg.Refresh

	if d.running == nil && (len(d.list) == 0 || old) && now.Sub(d.asked) >= c.patience(len(d.list)) && c.closing.Err() == nil {
		d.running, d.asked = make(chan struct{}), now
		c.beside.Go(c.lookUp)
	}

	list, running := d.list, d.running
	d.mu.Unlock()

	if len(list) > 0 || running == nil {
		if len(list) == 0 {
			return nil, c.lookUpFailed()
		}

		return list, nil
	}

	select {
	case <-running:
	case <-ctx.Done():
		return nil, fmt.Errorf("look instances up: %w", ctx.Err())
	}

	d.mu.Lock()
	list = d.list
	d.mu.Unlock()

	if len(list) == 0 {
		return nil, c.lookUpFailed()
	}

	return list, nil
}

// patience is the least time between two look-ups: a user may ask 20 times a minute.
func (c *Client) patience(known int) time.Duration {
	if known == 0 {
		return time.Second // nothing works; the first minutes of a service are short
	}

	return minRefresh
}

func (c *Client) lookUpFailed() error {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()

	if c.known.err != nil {
		return c.known.err
	}

	return ErrNoInstance
}

// lookUp asks once and takes the answer over. What was known stays if it fails.
func (c *Client) lookUp() {
	ctx, cancel := context.WithTimeout(c.closing, 10*time.Second)
	defer cancel()

	list, err := c.ask(ctx)

	d := &c.known
	d.mu.Lock()
	defer d.mu.Unlock()

	d.err = err
	if err == nil {
		d.list, d.at, d.stale = merge(d.list, list), time.Now(), false
	}

	close(d.running)
	d.running = nil
}

func (c *Client) ask(ctx context.Context) ([]Endpoint, error) {
	address := c.cfg.Control + "/v1/" + url.PathEscape(c.cfg.Project) + "/services/" + url.PathEscape(c.cfg.Service) +
		"/predict/endpoints?type=host_endpoints"

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, fmt.Errorf("look instances up: %w", err)
	}

	c.authenticate(req, nil)

	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("look instances up: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only

	body, err := io.ReadAll(io.LimitReader(resp.Body, c.cfg.MaxAnswer))
	if err != nil {
		return nil, fmt.Errorf("look instances up: %w", err)
	}

	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("look instances up: %w", (&Response{Status: resp.StatusCode, Header: resp.Header, Body: body}).failure())
	}

	var out struct {
		Endpoints []Endpoint `json:"endpoints"`
	}
	if err := json.Unmarshal(body, &out); err != nil {
		return nil, fmt.Errorf("look instances up: %w", err)
	}

	return slices.DeleteFunc(out.Endpoints, func(e Endpoint) bool { return e.Status != "" && e.Status != "ready" }), nil
}

// merge keeps what was learnt of instances that are still there.
func merge(old []*endpoint, list []Endpoint) []*endpoint {
	out := make([]*endpoint, 0, len(list))

	for _, e := range list {
		i := slices.IndexFunc(old, func(o *endpoint) bool { return o.Endpoint == e })
		if i >= 0 {
			out = append(out, old[i])

			continue
		}

		out = append(out, &endpoint{Endpoint: e, base: e.Schema + "://" + net.JoinHostPort(e.IP, strconv.Itoa(e.Port))})
	}

	return out
}

// pick chooses an instance that was not tried; nil through the edge.
func (c *Client) pick(ctx context.Context, tried []*endpoint) (*endpoint, error) {
	if c.cfg.Through == Edge {
		return nil, ctx.Err() //nolint:wrapcheck,nilnil // the edge is one address
	}

	list, err := c.endpoints(ctx)
	if err != nil {
		return nil, err
	}

	fresh := slices.DeleteFunc(slices.Clone(list), func(e *endpoint) bool { return slices.Contains(tried, e) })
	if len(fresh) == 0 {
		return nil, ErrNoInstance
	}

	now := time.Now().UnixNano()

	able := slices.DeleteFunc(slices.Clone(fresh), func(e *endpoint) bool { return e.until.Load() > now })
	if len(able) == 0 {
		able = fresh // all of them failed lately: better to try than to give up
	}

	return better(ofVersion(able)), nil
}

// ofVersion chooses a version by weight and gives its instances.
func ofVersion(list []*endpoint) []*endpoint {
	weights := map[string]int{}
	total := 0

	var models []string

	for _, e := range list {
		if _, seen := weights[e.ModelID]; !seen {
			weights[e.ModelID] = max(e.Weight, 0)
			total += max(e.Weight, 0)

			models = append(models, e.ModelID)
		}
	}

	if total == 0 || len(models) == 1 {
		return list
	}

	at := rand.IntN(total) //nolint:gosec // spreads load
	for _, m := range models {
		if at -= weights[m]; at < 0 {
			return slices.DeleteFunc(slices.Clone(list), func(e *endpoint) bool { return e.ModelID != m })
		}
	}

	return list
}

// better takes two at random and gives the one with less to do.
func better(list []*endpoint) *endpoint {
	a := list[rand.IntN(len(list))] //nolint:gosec // spreads load
	if len(list) == 1 {
		return a
	}

	b := list[rand.IntN(len(list))] //nolint:gosec // as above
	for b == a {
		b = list[rand.IntN(len(list))] //nolint:gosec // as above
	}

	if b.load() < a.load() {
		return b
	}

	return a
}

// failed leaves an instance alone for a while and asks for a look-up.
func (c *Client) failed(e *endpoint) {
	if e != nil {
		e.rest(pause)
		c.doubt()
	}
}

// leave leaves an instance that drains.
func (c *Client) leave(e *endpoint) {
	e.rest(gone)
	c.doubt()
}

func (c *Client) doubt() {
	c.known.mu.Lock()
	defer c.known.mu.Unlock()

	c.known.stale = true
}
