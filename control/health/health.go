package health

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

const (
	firstPeriod   = 20 * time.Millisecond
	defaultPeriod = time.Second
	// defaultTimeout is generous: a busy machine is not a hung engine.
	defaultTimeout = 5 * time.Second
	// workerTimeout is shorter: our own worker answers from memory.
	workerTimeout    = 2 * time.Second
	defaultThreshold = 3
	maxBody          = 64 << 10
	maxReason        = 500
)

// Target is what is probed.
type Target struct {
	Network string // tcp or unix
	Address string
	Scheme  string // http or https
	// Config of the package; its health blocks decide how to probe.
	Config *spec.PackageConfig
	// Worker is true for sluice-runtime: its health route is known and tells a state.
	Worker bool
	// Ready is true for an instance that is known to have been ready: one probe that fails says nothing.
	Ready bool
	// Dir and Env are for probes that run a command.
	Dir string
	Env []string
	// User runs them, with the directory as its own; nil is ours.
	User *syscall.Credential
}

// Report is what a probe found.
type Report struct {
	// State: loading, warming, ready, draining or failed.
	State  spec.InstanceState
	Reason string
	// Hung is true when an instance that was ready failed too many probes.
	Hung bool
}

// Prober probes instances.
type Prober struct{ transport *http.Transport }

// New returns a prober. certificate, which may be nil, is what it shows to workers that ask for one.
func New(certificate func(*tls.CertificateRequestInfo) (*tls.Certificate, error)) *Prober {
	return &Prober{transport: &http.Transport{
		DialContext: dial,
		TLSClientConfig: &tls.Config{
			InsecureSkipVerify:   true, //nolint:gosec // a probe of our own child; it sends no secret
			GetClientCertificate: certificate,
		},
		MaxIdleConnsPerHost: 1,
		IdleConnTimeout:     90 * time.Second,
		DisableCompression:  true,
	}}
}

// Close gives idle connections back.
func (p *Prober) Close() { p.transport.CloseIdleConnections() }

type addressKey struct{}

type address struct{ network, address string }

// dial reaches the target wherever it listens; the URL only names it.
func dial(ctx context.Context, _, _ string) (net.Conn, error) {
	a, ok := ctx.Value(addressKey{}).(address)
	if !ok {
		return nil, errors.New("BUG: probe without an address")
	}

	conn, err := new(net.Dialer).DialContext(ctx, a.network, a.address)
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}

	return conn, nil
}

// Watch probes t until ctx ends and calls report with the first result and every change.
func (p *Prober) Watch(ctx context.Context, t Target, report func(Report)) {
	w := newWatch(t)
	timer := time.NewTimer(w.initialDelay)

	defer timer.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}

		found := p.once(ctx, t, w.probe())
		if ctx.Err() != nil {
			return
		}

		if w.take(found) {
			report(w.last)
		}

		timer.Reset(w.next())
	}
}

// watch is the state of one Watch.
type watch struct {
	startup, serving probe
	initialDelay     time.Duration
	wait             time.Duration
	failures         int
	reported         bool
	wasReady         bool
	last             Report
}

// probe is a health block with its defaults.
type probe struct {
	method    string // HTTP, EXEC or TCP
	scheme    string
	path      string
	command   string
	period    time.Duration
	timeout   time.Duration
	threshold int
}

func newWatch(t Target) *watch {
	c := t.Config
	w := &watch{wait: firstPeriod}
	if t.Ready {
		w.wasReady, w.last = true, Report{State: spec.InstanceReady}
	}

	ready := c.ReadinessHealth
	if ready == nil {
		ready = c.Health
	}

	w.serving = newProbe(ready, t)
	w.startup = w.serving

	first := ready
	if c.StartupHealth != nil {
		w.startup, first = newProbe(c.StartupHealth, t), c.StartupHealth
	}

	if first != nil && !t.Ready {
		w.initialDelay = time.Duration(first.InitialDelaySeconds) * time.Second
	}

	return w
}

func newProbe(h *spec.Health, t Target) probe {
	p := probe{
		method: "HTTP", scheme: t.Scheme, path: "/health",
		period: defaultPeriod, timeout: defaultTimeout, threshold: defaultThreshold,
	}
	if p.scheme == "" {
		p.scheme = "http"
	}

	if t.Worker {
		p.timeout = workerTimeout
	}

	if h == nil {
		if !t.Worker {
			p.method = "TCP" // nothing is known but that it listens
		}

		return p
	}

	if h.CheckMethod != "" {
		p.method = strings.ToUpper(h.CheckMethod)
	}

	if s := strings.ToLower(h.Protocol); s == "http" || s == "https" {
		p.scheme = s
	}

	// Our worker's route is fixed: it tells more than the package could declare.
	if h.URL != "" && !t.Worker {
		p.path = "/" + strings.TrimPrefix(h.URL, "/")
	}

	p.command = h.Command
	if h.PeriodSeconds > 0 {
		p.period = time.Duration(h.PeriodSeconds) * time.Second
	}

	if h.TimeoutSeconds > 0 {
		p.timeout = time.Duration(h.TimeoutSeconds) * time.Second
	}

	if h.FailureThreshold > 0 {
		p.threshold = int(h.FailureThreshold)
	}

	return p
}

func (w *watch) probe() probe {
	if w.wasReady {
		return w.serving
	}

	return w.startup
}

// next is the time until the next probe.
func (w *watch) next() time.Duration {
	period := w.probe().period
	if w.last.State == spec.InstanceReady && w.failures == 0 {
		return period
	}

	wait := min(w.wait, period)
	w.wait = min(w.wait*3/2, period)

	return wait
}

// result of one probe. A nil err means able to serve; state is set if the instance told one.
type result struct {
	state spec.InstanceState
	err   error
}

// take digests a result and reports whether it changes anything.
func (w *watch) take(r result) bool {
	now := Report{State: spec.InstanceReady}

	switch {
	case r.err == nil:
		w.failures, w.wasReady, w.wait = 0, true, firstPeriod
	case r.state == spec.InstanceDraining || r.state == spec.InstanceFailed:
		now = Report{State: r.state, Reason: r.err.Error()}
	case !w.wasReady:
		now = Report{State: spec.InstanceLoading, Reason: r.err.Error()}
		if r.state == spec.InstanceWarming || r.state == spec.InstanceFetching || r.state == spec.InstanceVerifying {
			now.State = r.state
		}
	default:
		w.failures++
		now = w.last

		if w.failures >= w.serving.threshold {
			now = Report{State: spec.InstanceLoading, Reason: r.err.Error(), Hung: true}
		}
	}

	if len(now.Reason) > maxReason {
		now.Reason = strings.ToValidUTF8(now.Reason[:maxReason], "")
	}

	if w.reported && now == w.last {
		return false
	}

	w.last, w.reported = now, true

	return true
}

// once probes the target one time.
func (p *Prober) once(ctx context.Context, t Target, pr probe) result {
	ctx, cancel := context.WithTimeout(ctx, pr.timeout)
	defer cancel()

	switch pr.method {
	case "EXEC":
		return execute(ctx, t, pr)
	case "TCP":
		conn, err := new(net.Dialer).DialContext(ctx, t.Network, t.Address)
		if err != nil {
			return result{err: describe(ctx, err, pr)}
		}

		return result{err: conn.Close()}
	default:
		return p.request(ctx, t, pr)
	}
}

// request asks the health route.
func (p *Prober) request(ctx context.Context, t Target, pr probe) result {
	ctx = context.WithValue(ctx, addressKey{}, address{t.Network, t.Address})

	host := t.Address
	if t.Network == "unix" {
		host = hex.EncodeToString([]byte(t.Address)) // connections are kept by this name
	}

	req, err := http.NewRequestWithContext(ctx, http.MethodGet, pr.scheme+"://"+host+pr.path, http.NoBody)
	if err != nil {
		return result{err: fmt.Errorf("health url: %w", err)}
	}

	if t.Network == "unix" {
		req.Host = "localhost"
	}

	resp, err := p.transport.RoundTrip(req)
	if err != nil {
		return result{err: describe(ctx, err, pr)}
	}

	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	_ = resp.Body.Close()

	if err != nil {
		return result{err: describe(ctx, err, pr)}
	}

	r, state := judge(resp.StatusCode, body, pr.path)
	if t.Worker || state == spec.InstanceDraining {
		r.state = state
	}

	return r
}

// answer is the body of a health route.
type answer struct {
	Health any    `json:"health"`
	State  string `json:"state"`
	Reason string `json:"reason"`
}

// judge reads an answer, and the state that it tells, which only our own worker is believed.
func judge(status int, body []byte, path string) (result, spec.InstanceState) {
	var a answer
	if bytes.HasPrefix(bytes.TrimSpace(body), []byte("{")) {
		// A body that is no JSON is fine: the status tells enough.
		_ = json.Unmarshal(body, &a)
	}

	healthy := status >= 200 && status < 300
	if a.Health != nil && strings.EqualFold(fmt.Sprint(a.Health), "false") {
		healthy = false
	}

	state := spec.InstanceState(a.State)

	switch {
	case healthy:
		return result{}, state
	case a.Reason != "":
		return result{err: errors.New(a.Reason)}, state
	case a.State != "":
		return result{err: errors.New(a.State)}, state
	default:
		return result{err: fmt.Errorf("%s answers %d", path, status)}, state
	}
}

// describe words a failed probe for an event.
func describe(ctx context.Context, err error, pr probe) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("no answer to a probe within %s", pr.timeout)
	}

	var op *net.OpError
	if errors.As(err, &op) {
		return fmt.Errorf("%s: %w", op.Op, op.Err)
	}

	return err
}
