package gatewaytest

import (
	"log/slog"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Guard knows principals by the value of X-Auth-Token.
type Guard struct {
	Tokens map[string]*auth.Principal
	// Denied principals may do nothing.
	Denied map[string]bool
	// Before is asked first; it may read the body and refuse.
	Before func(r *auth.Request) error
}

// Verify implements plan.Guard.
func (g *Guard) Verify(r *auth.Request, allowed auth.AuthSet) (*auth.Principal, error) {
	if g.Before != nil {
		if err := g.Before(r); err != nil {
			return nil, err
		}
	}

	token := r.Header.Get("x-auth-token")
	if token == nil {
		if allowed.Has(auth.AllowNone) {
			return &auth.Principal{Method: auth.MethodNone}, nil
		}

		return nil, fault.New(fault.NoCredentials, "")
	}

	if p := g.Tokens[string(token)]; p != nil {
		return p, nil
	}

	return nil, fault.New(fault.TokenInvalid, "")
}

// Authorize implements plan.Guard.
func (g *Guard) Authorize(p *auth.Principal, _, projectID, _ string) error {
	if g.Denied[p.Key] {
		return fault.New(fault.Forbidden, "")
	}

	if projectID != p.ProjectID {
		return fault.New(fault.ProjectMismatch, "")
	}

	return nil
}

// Principal is a user of a project.
func Principal(id, project string) *auth.Principal {
	return &auth.Principal{Method: auth.MethodToken, UserID: id, UserName: id, ProjectID: project, Key: "user:" + id}
}

// Plans compiles snapshots and puts them into force at once.
type Plans struct {
	Compiler *plan.Compiler

	mu      sync.Mutex
	current atomic.Pointer[plan.Plan]
	changed chan struct{}
}

// NewPlans makes plans with the guard g. limits may be nil: then nothing is limited.
func NewPlans(cfg plan.Config, open plan.Opener, g plan.Guard, limits *limit.Local) (*Plans, error) {
	if limits == nil {
		var err error
		if limits, err = limit.New(limit.Config{}); err != nil {
			return nil, err //nolint:wrapcheck // for tests
		}
	}

	c, err := plan.NewCompiler(cfg, plan.Parts{
		Open: open, Limits: limits, Log: slog.New(slog.DiscardHandler),
		Guard: func(*spec.Snapshot, plan.Guard) (plan.Guard, error) { return g, nil },
	})
	if err != nil {
		return nil, err //nolint:wrapcheck // for tests
	}

	return &Plans{Compiler: c, changed: make(chan struct{})}, nil
}

// Load implements gateway.Plans.
func (p *Plans) Load() *plan.Plan { return p.current.Load() }

// Changed implements gateway.Plans.
func (p *Plans) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()

	return p.changed
}

// Use puts a snapshot into force.
func (p *Plans) Use(s *spec.Snapshot) error {
	next, sweep, err := p.Compiler.Compile(s)
	if err != nil {
		return err //nolint:wrapcheck // for tests
	}

	p.mu.Lock()
	p.current.Store(next)
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	sweep()

	return nil
}
