package plan

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

// Config completes what services leave open. Zero means the default.
type Config struct {
	// BodyBytes a request may have; default 12 MB.
	BodyBytes int64
	// Timeout of a request in all; default 40 s.
	Timeout time.Duration
	// Attempts of a request in all; default 3.
	Attempts int
	Pool     pool.Config
}

// Limits of what a service may ask for.
const (
	MaxTimeout   = 2 * time.Hour
	MaxAttempts  = pool.MaxTried
	MaxBodyBytes = 1 << 30
)

// Defaults returns c with every zero field filled.
func (c Config) Defaults() Config {
	if c.BodyBytes == 0 {
		c.BodyBytes = 12 << 20
	}

	if c.Timeout == 0 {
		c.Timeout = 40 * time.Second
	}

	if c.Attempts == 0 {
		c.Attempts = 3
	}

	c.Pool = c.Pool.Defaults()

	return c
}

// Validate reports every mistake in c.
func (c Config) Validate() error {
	c = c.Defaults()

	var errs []error
	if c.BodyBytes < 0 || c.BodyBytes > MaxBodyBytes {
		errs = append(errs, fmt.Errorf("body limit %d is out of range", c.BodyBytes))
	}

	if c.Timeout < 0 || c.Timeout > MaxTimeout {
		errs = append(errs, fmt.Errorf("timeout %v is out of range", c.Timeout))
	}

	if c.Attempts < 0 || c.Attempts > MaxAttempts {
		errs = append(errs, fmt.Errorf("attempts %d are not in 1 to %d", c.Attempts, MaxAttempts))
	}

	return errors.Join(append(errs, c.Pool.Validate())...)
}

// Opener prepares the connections to an instance of a version.
type Opener func(v *spec.Version, in spec.Instance) (pool.Backend, error)

// NewGuard compiles the credentials of a snapshot; prev is the guard of the plan before, or nil.
type NewGuard func(s *spec.Snapshot, prev Guard) (Guard, error)

// ServiceLimits keeps the admission state of services.
type ServiceLimits interface {
	Service(id, project string, l spec.Limits) *limit.Service
	SetLimits(s *limit.Service, l spec.Limits)
}

// Compiler makes plans. It is used by one goroutine at a time.
type Compiler struct {
	cfg    Config
	open   Opener
	guard  NewGuard
	limits ServiceLimits
	hooks  ServiceHooks
	log    *slog.Logger

	states   map[string]*state
	last     *Plan
	distrust bool
}

// Distrust makes the next Compile look at every route, whatever its revision: the plan in
// force came from elsewhere, and its revisions may mean something else.
func (c *Compiler) Distrust() { c.distrust = true }

// Parts are the collaborators of a Compiler.
type Parts struct {
	Open   Opener
	Guard  NewGuard
	Limits ServiceLimits
	Hooks  ServiceHooks
	Log    *slog.Logger
}

// ServiceHooks tell what comes into plans and what leaves them; nil fields are skipped. model is
// "name/version", or empty for the service as a whole.
type ServiceHooks struct {
	Added   func(serviceID, model string)
	Removed func(serviceID, model string)
}

// NewCompiler returns a compiler without a plan.
func NewCompiler(cfg Config, p Parts) (*Compiler, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("plan: %w", err)
	}

	return &Compiler{
		cfg: cfg.Defaults(), open: p.Open, guard: p.Guard, limits: p.Limits, hooks: p.Hooks, log: p.Log,
		states: make(map[string]*state),
	}, nil
}

// Compile makes the plan of a snapshot. On an error nothing has changed. Otherwise the caller
// puts the plan into force and then calls the returned function, which closes what the new
// plan does not use.
func (c *Compiler) Compile(s *spec.Snapshot) (*Plan, func(), error) {
	changed, err := c.check(s)
	if err != nil {
		return nil, nil, err
	}

	var prev Guard
	if c.last != nil {
		prev = c.last.Guard
	}

	guard, err := c.guard(s, prev)
	if err != nil {
		return nil, nil, fmt.Errorf("compile credentials: %w", err)
	}
	// From here on nothing fails as a whole.
	p := &Plan{Revision: s.Revision, Guard: guard, Services: make(router.Table[*Service], len(s.Services))}

	for i := range s.Services {
		in := &s.Services[i]
		if !changed[i] {
			p.Services[in.ServiceID] = c.last.Services[in.ServiceID]

			continue
		}

		p.Services[in.ServiceID] = c.service(in)
	}

	c.last, c.distrust = p, false

	return p, func() { c.sweep(p) }, nil
}

// check finds the mistakes of a snapshot, and which routes have changed.
func (c *Compiler) check(s *spec.Snapshot) ([]bool, error) {
	changed := make([]bool, len(s.Services))
	seen := make(map[string]bool, len(s.Services))

	trust := c.last != nil && !c.distrust && s.Revision >= c.last.Revision

	var errs []error

	for i := range s.Services {
		in := &s.Services[i]
		if in.ServiceID == "" || seen[in.ServiceID] {
			errs = append(errs, fmt.Errorf("services[%d]: id %q is empty or taken", i, in.ServiceID))

			continue
		}

		seen[in.ServiceID] = true

		if trust {
			if old := c.last.Services[in.ServiceID]; old != nil && old.Revision == in.Revision && in.Revision != 0 {
				continue
			}
		}

		changed[i] = true
		if err := checkRoute(in); err != nil {
			errs = append(errs, err)
		}
	}

	return changed, errors.Join(errs...)
}

func checkRoute(in *spec.Route) error {
	errs := []error{router.Check(in)}
	models := make(map[string]bool, len(in.Versions))

	for i := range in.Versions {
		id := in.Versions[i].ModelID
		if models[id] {
			errs = append(errs, fmt.Errorf("service %s: model %s stands twice", in.ServiceID, id))
		}

		models[id] = true
	}

	l := in.Policy.Limits
	if l.RequestsPerSecond < 0 || l.Burst < 0 || l.Concurrency < 0 || l.BodyBytes < 0 || l.TimeoutSeconds < 0 || l.StreamIdleSeconds < 0 ||
		in.Policy.Retry.Attempts < 0 || in.Policy.Retry.PerTryTimeoutSeconds < 0 {
		errs = append(errs, fmt.Errorf("service %s: a limit is negative", in.ServiceID))
	}

	return errors.Join(errs...)
}

// service compiles a route that passed check, with the state that its id has or gets.
func (c *Compiler) service(in *spec.Route) *Service {
	st := c.states[in.ServiceID]
	if st == nil {
		st = &state{turns: router.NewTurns(), pools: make(map[string]*pool.Pool), models: make(map[string]string)}
		st.limits = c.limits.Service(in.ServiceID, in.ProjectID, in.Policy.Limits)
		c.states[in.ServiceID] = st
		tell(c.hooks.Added, in.ServiceID, "")
	} else {
		c.limits.SetLimits(st.limits, in.Policy.Limits)
	}

	pools := make([]*pool.Pool, len(in.Versions))
	for i := range in.Versions {
		pools[i] = c.pool(st, in, &in.Versions[i])
	}

	route, err := router.Compile(in, pools, st.turns)
	if err != nil {
		panic("BUG: a route that passed its check does not compile: " + err.Error())
	}

	s := &Service{
		ID: in.ServiceID, Name: in.ServiceName, Project: in.ProjectID, Revision: in.Revision,
		Running: in.Running, WebSocket: in.WebSocket, Allowed: auth.ParseAuthSet(in.Policy.AuthTypes),
		Route: route, Limits: st.limits, state: st,
		BodyLimit: c.cfg.BodyBytes, Timeout: c.cfg.Timeout, Attempts: c.cfg.Attempts,
		PerTry: min(seconds(in.Policy.Retry.PerTryTimeoutSeconds), MaxTimeout),
	}
	if in.Policy.Limits.BodyBytes > 0 {
		s.BodyLimit = min(in.Policy.Limits.BodyBytes, MaxBodyBytes)
		s.MessageLimit = s.BodyLimit
	}

	if in.Policy.Limits.TimeoutSeconds > 0 {
		s.Timeout = min(seconds(in.Policy.Limits.TimeoutSeconds), MaxTimeout)
	}

	s.StreamIdle = min(seconds(in.Policy.Limits.StreamIdleSeconds), MaxTimeout)

	if in.Policy.Retry.Attempts > 0 {
		s.Attempts = min(in.Policy.Retry.Attempts, MaxAttempts)
	}

	return s
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, MaxTimeout.Seconds()) * float64(time.Second))
}

// pool brings the pool of a version up to date.
func (c *Compiler) pool(st *state, in *spec.Route, v *spec.Version) *pool.Pool {
	p := st.pools[v.ModelID]
	if p == nil {
		made, err := pool.New(in.ServiceID+"/"+v.ModelName+"/"+v.ModelVersion, c.cfg.Pool)
		if err != nil {
			panic("BUG: a checked pool configuration is refused: " + err.Error())
		}

		p = made
		st.pools[v.ModelID] = p
		st.models[v.ModelID] = v.ModelName + "/" + v.ModelVersion
		tell(c.hooks.Added, in.ServiceID, st.models[v.ModelID])
	}

	picker, err := pool.ParsePicker(in.Balancer)
	if err != nil {
		panic("BUG: a checked balancer is refused: " + err.Error())
	}

	ready := make([]spec.Instance, 0, len(v.Instances))
	for i := range v.Instances {
		if v.Instances[i].State == spec.InstanceReady {
			ready = append(ready, v.Instances[i])
		}
	}

	open := func(instance spec.Instance) (pool.Backend, error) { return c.open(v, instance) }
	if err := p.Update(picker, ready, open); err != nil {
		c.log.Error("some instances cannot be used", slog.String("service_id", in.ServiceID),
			slog.String("model", v.ModelName+"/"+v.ModelVersion), slog.Any("error", err))
	}

	return p
}

// sweep closes the pools that no route of the plan in force uses.
func (c *Compiler) sweep(p *Plan) {
	for id, st := range c.states {
		s := p.Services[id]

		for model, owned := range st.pools {
			if s != nil && uses(s, owned) {
				continue
			}

			if err := owned.Close(); err != nil {
				c.log.Warn("closing the connections of a version failed", slog.String("service_id", id), slog.Any("error", err))
			}

			delete(st.pools, model)

			name := st.models[model]
			delete(st.models, model)

			// A model that was made again under its name goes on.
			if !holds(st.models, name) {
				tell(c.hooks.Removed, id, name)
			}
		}

		if s == nil {
			delete(c.states, id)
			tell(c.hooks.Removed, id, "")
		}
	}
}

func tell(hook func(serviceID, model string), serviceID, model string) {
	if hook != nil {
		hook(serviceID, model)
	}
}

func holds(models map[string]string, name string) bool {
	for _, n := range models {
		if n == name {
			return true
		}
	}

	return false
}

func uses(s *Service, p *pool.Pool) bool {
	for i := range s.Route.Versions() {
		if s.Route.Versions()[i].Pool == p {
			return true
		}
	}

	return false
}

// Close closes every pool. Requests under way go on.
func (c *Compiler) Close() { c.sweep(&Plan{}) }
