package gateway

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/spec"
)

// Gateway is the corridor. It is safe for concurrent use and has no goroutines.
type Gateway struct {
	cfg      Config
	plans    Plans
	limits   limit.Limiter
	forward  Forwarder
	hooks    Hooks
	log      *slog.Logger
	budget   budget
	unproven unproven
	walks    sync.Pool
}

var _ Handler = (*Gateway)(nil)

// New puts the corridor together.
func New(cfg Config, p Parts) (*Gateway, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("gateway: %w", err)
	}

	g := &Gateway{
		cfg: cfg.Defaults(), plans: p.Plans, limits: p.Limits, forward: p.Forward,
		hooks: p.Hooks, log: p.Log,
	}
	g.budget.ratio, g.budget.least = g.cfg.RetryRatio, int64(g.cfg.RetryMin)
	g.unproven.most, g.unproven.sources = g.cfg.UnprovenBytes, make(map[netip.Addr]int64)
	g.walks.New = func() any { return newWalk(g) }

	return g, nil
}

// Active is how many requests are in the corridor.
func (g *Gateway) Active() int64 { return g.budget.active.Load() }

// Do answers one call.
func (g *Gateway) Do(c *Call) {
	if c.Start.IsZero() {
		c.Start = time.Now()
	}

	w, ok := g.walks.Get().(*walk)
	if !ok {
		panic("BUG: the pool of walks holds something else")
	}

	g.budget.active.Add(1)
	w.begin(c)

	defer w.leave()
	defer w.rescue()

	if err := w.run(); err != nil {
		w.refuse(err)
	}
}

// Explain tells where a request for a service would go.
func (g *Gateway) Explain(serviceID string, q *router.Request) (router.Explanation, error) {
	if p := g.plans.Load(); p != nil {
		if s := p.Services[serviceID]; s != nil {
			return s.Route.Explain(q), nil
		}
	}

	return router.Explanation{}, fault.New(fault.ServiceNotFound, "")
}

// Constant faults, so that refusing allocates nothing.
var (
	errNoPlan     = fault.New(fault.Unavailable, "The gateway has no routes yet.").After(time.Second)
	errNoAPI      = fault.New(fault.APINotFound, "")
	errNoService  = fault.New(fault.ServiceNotFound, "")
	errNotRunning = fault.New(fault.ServiceNotRunning, "")
	errNoEndpoint = fault.New(fault.EndpointUndefined, "")
	errNoMethod   = fault.New(fault.MethodNotAllowed, "")
	errTooLarge   = fault.New(fault.BodyTooLarge, "")
	errNoInstance = fault.New(fault.NoInstance, "").After(time.Second)
	errTimeout    = fault.New(fault.BackendTimeout, "")
	errGone       = fault.New(fault.ClientGone, "")
)

// run walks through the rooms up to the one that forwards.
func (w *walk) run() error {
	c := w.call

	w.plan = w.g.plans.Load()
	if w.plan == nil {
		return errNoPlan
	}

	if err := router.CheckPath(c.Path); err != nil {
		return err
	}

	s, m := w.plan.Services.Match(c.Path)
	if !m.Prediction {
		return errNoAPI
	}

	if err := w.enter(s, &m); err != nil {
		return err
	}

	c.Record.Verified = time.Since(c.Start)
	w.service, w.rest = s, m.Rest

	if u := c.Upgrade; u != nil {
		if !s.WebSocket {
			return errNoWebSocket
		}

		if u.MaxMessage = s.MessageLimit; u.Admit != nil {
			if err := u.Admit(s.ID); err != nil {
				return err
			}
		}
	}

	if err := w.admit(); err != nil {
		return err
	}

	c.Record.Admitted = time.Since(c.Start)

	if w.asksForRoute() {
		return w.explain()
	}

	return w.send()
}

// enter finds out who calls and whether they may. The order of the answers is that of the
// platform: 401, 403, 404, 400. Without credentials nobody learns which services exist.
func (w *walk) enter(s *plan.Service, m *router.Matched) error {
	c, addr := w.call, w.call.Remote.Addr()

	allowed := auth.AllowDefault
	project, id := "", ""

	if m.Found {
		allowed, w.bodyLimit = s.Allowed, s.BodyLimit
		project, id = s.Project, s.ID
		c.Record.ServiceID, c.Record.ProjectID = id, project
	}

	p, err := w.plan.Guard.Verify(w.authRequest(), allowed)
	w.proven()

	if err != nil {
		return w.notAuthenticated(addr, err)
	}

	c.Record.Principal = p

	if !m.Found && p != nil {
		project, id = p.ProjectID, string(m.ID)
	}
	// A key without a project of its own has no rights to be asked for in the empty project.
	if p != nil && p.Method != auth.MethodNone && (m.Found || project != "") {
		if err := w.plan.Guard.Authorize(p, spec.ActionPredict, project, id); err != nil {
			return err
		}
	}

	if !m.Found {
		return errNoService
	}

	if !s.Running {
		return errNotRunning
	}

	return nil
}

// notAuthenticated counts against the source, and tells a source that fails too often to stop.
// Only failures are refused so: a caller with good credentials beside a flood is served.
func (w *walk) notAuthenticated(addr netip.Addr, err error) error {
	if fault.From(err).Code.Status() != 401 {
		return err
	}

	if late := w.g.limits.Refused(addr, w.call.Start); late != nil {
		return late //nolint:wrapcheck // a fault
	}

	return err
}

// admit takes a ticket and refuses a body that is declared too long.
func (w *walk) admit() error {
	c := w.call

	who := limit.Who{From: c.Remote.Addr()}
	if p := c.Record.Principal; p != nil && p.Key != "" {
		who = limit.Who{Principal: p.Key, App: p.AppID}
	}

	err := w.g.limits.Admit(c.Context, w.service.Limits, who, &w.ticket)

	if w.ticket.Limit > 0 {
		w.rateHeaders()
	}

	if err != nil {
		return err
	}

	if c.Body.Length() > w.service.BodyLimit {
		return errTooLarge
	}

	return nil
}

// rescue turns a panic into a logged 500 for this one request.
func (w *walk) rescue() {
	v := recover()
	if v == nil {
		return
	}

	stack := debug.Stack()
	w.broken = true

	w.g.log.Error("a request broke an invariant", slog.String("request_id", w.call.ID),
		slog.Any("panic", v), slog.String("stack", string(stack)))

	if w.g.hooks.Panicked != nil {
		w.g.hooks.Panicked(w.call, v, stack)
	}

	if !w.attempt.begun {
		WriteFault(w.call, fault.New(fault.Internal, ""))
	}

	w.call.Record.Outcome = Panicked
}
