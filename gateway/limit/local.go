package limit

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
	"weak"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Local is a Limiter within one process.
type Local struct {
	cfg        Config
	global     *bucket // nil if unlimited
	principals *table
	apps       *table
	sources    *table
	anonymous  *table

	mu       sync.Mutex // guards projects
	projects map[string]weak.Pointer[bucket]
}

// serviceState is Local's part of a Service.
type serviceState struct {
	bucket  atomic.Pointer[bucket]
	project *bucket // shared by the services of a project; nil if unlimited
	slots   atomic.Pointer[slots]
}

// New returns a limiter; cfg is completed with defaults.
func New(cfg Config) (*Local, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}

	cfg = cfg.Defaults()
	l := &Local{cfg: cfg, projects: make(map[string]weak.Pointer[bucket])}

	if cfg.Global.limited() {
		l.global = newBucket(cfg.Global)
	}

	l.principals = newTable(cfg.Principal, cfg.MaxKeys)
	l.apps = newTable(cfg.App, cfg.MaxKeys)
	l.sources = newTable(cfg.Source, cfg.MaxKeys)
	l.anonymous = newTable(cfg.Anonymous, cfg.MaxKeys)

	return l, nil
}

// Service returns the admission state for a service.
func (l *Local) Service(id, project string, limits spec.Limits) *Service {
	s := &Service{ID: id, Project: project}
	if l.cfg.Project.limited() && project != "" {
		s.local.project = l.project(project)
	}

	l.SetLimits(s, limits)

	return s
}

// project returns the bucket that the services of a project share. They hold it; when the
// last of them is gone, so is the bucket, and there is nothing to bound or to look up later.
func (l *Local) project(id string) *bucket {
	l.mu.Lock()
	defer l.mu.Unlock()

	if b := l.projects[id].Value(); b != nil {
		return b
	}

	b := newBucket(l.cfg.Project)
	l.projects[id] = weak.Make(b)
	runtime.AddCleanup(b, l.forgetProject, id)

	return b
}

func (l *Local) forgetProject(id string) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if l.projects[id].Value() == nil {
		delete(l.projects, id)
	}
}

// SetLimits changes the limits of a service. A bucket whose rate stays keeps its fill, and
// requests under way keep the slots they have.
func (l *Local) SetLimits(s *Service, limits spec.Limits) {
	r, n := l.cfg.limitsOf(limits)

	switch old := s.local.bucket.Load(); {
	case !r.limited():
		s.local.bucket.Store(nil)
	case old == nil || old.rate != r:
		s.local.bucket.Store(newBucket(r))
	}

	switch old := s.local.slots.Load(); {
	case n <= 0:
		s.local.slots.Store(nil)
	case old == nil || old.size != int64(n):
		queue := l.cfg.SlotQueue
		if queue == 0 {
			queue = n
		}

		s.local.slots.Store(newSlots(n, queue))
	}
}

// Suspect implements Limiter.
func (l *Local) Suspect(from netip.Addr, now time.Time) bool {
	if !l.sources.limited() {
		return false
	}

	b := l.sources.find(l.sources.source(from), now)

	return b != nil && b.limiter.TokensAt(now) < 1
}

// Refused implements Limiter.
func (l *Local) Refused(from netip.Addr, now time.Time) error {
	if !l.sources.limited() {
		return nil
	}

	b := l.sources.get(l.sources.source(from), now)
	if b.limiter.AllowN(now, 1) {
		return nil
	}

	l.cfg.Hooks.limited(BoundSource)

	return b.tooMany(now, "Too many requests from this network failed to authenticate.")
}

// Keys is how many buckets of principals, apps, projects and sources are kept.
func (l *Local) Keys() int {
	l.mu.Lock()
	defer l.mu.Unlock()

	return l.principals.size() + l.apps.size() + l.sources.size() + l.anonymous.size() + len(l.projects)
}

// Admit implements Limiter.
func (l *Local) Admit(ctx context.Context, s *Service, who Who, t *Ticket) error {
	*t = Ticket{}

	if b, err := l.rates(s, who, t); err != nil {
		l.cfg.Hooks.limited(b)

		return err
	}

	if slots := s.local.slots.Load(); slots != nil {
		if err := slots.acquire(ctx, l.cfg.SlotWait); err != nil {
			l.cfg.Hooks.limited(BoundSlots)

			return err
		}

		t.slots = slots
	}

	return nil
}

// rates asks the buckets, the narrowest first. On an error it tells which one is empty; the
// others then have back what they gave.
func (l *Local) rates(s *Service, who Who, t *Ticket) (Bound, error) {
	now := time.Now()
	c := claim{now: now, quiet: l.cfg.NoHeaders}

	if l.principals.limited() && who.Principal != "" &&
		!c.take(BoundPrincipal, l.principals.get(l.principals.text(who.Principal), now)) {
		return c.refuse(t)
	}

	if l.anonymous.limited() && who.Principal == "" &&
		!c.take(BoundAnonymous, l.anonymous.get(l.anonymous.source(who.From), now)) {
		return c.refuse(t)
	}

	if l.apps.limited() && who.App != "" && !c.take(BoundApp, l.apps.get(l.apps.text(who.App), now)) {
		return c.refuse(t)
	}

	if b := s.local.bucket.Load(); b != nil && !c.take(BoundService, b) {
		return c.refuse(t)
	}

	if b := s.local.project; b != nil && !c.take(BoundProject, b) {
		return c.refuse(t)
	}

	if l.global != nil && !c.take(BoundGlobal, l.global) {
		return c.refuse(t)
	}

	c.tell(t)

	return 0, nil
}

// Constant faults, so that refusing allocates nothing.
var (
	errSlots = fault.New(fault.ConcurrencyLimit, "").After(time.Second)
	errGone  = fault.New(fault.ClientGone, "")
)
