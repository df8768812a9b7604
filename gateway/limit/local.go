package limit

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"
	"golang.org/x/time/rate"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Local is a Limiter within one process.
type Local struct {
	cfg        Config
	global     *rate.Limiter // nil if unlimited
	principals *table
	apps       *table
	projects   *table
	sources    *table
}

// serviceState is Local's part of a Service.
type serviceState struct {
	bucket atomic.Pointer[bucket]
	slots  atomic.Pointer[slots]
}

// bucket is a rate with the limiter that keeps it.
type bucket struct {
	rate    Rate
	limiter *rate.Limiter
}

// New returns a limiter; cfg is completed with defaults.
func New(cfg Config) (*Local, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("limits: %w", err)
	}

	cfg = cfg.Defaults()
	l := &Local{cfg: cfg}

	if cfg.Global.limited() {
		l.global = newLimiter(cfg.Global)
	}

	l.principals = newTable(cfg.Principal, cfg.MaxKeys)
	l.apps = newTable(cfg.App, cfg.MaxKeys)
	l.projects = newTable(cfg.Project, cfg.MaxKeys)
	l.sources = newTable(cfg.Source, cfg.MaxKeys)

	return l, nil
}

func newLimiter(r Rate) *rate.Limiter { return rate.NewLimiter(rate.Limit(r.PerSecond), r.burst()) }

// Service returns the admission state for a service.
func (l *Local) Service(id, project string, limits spec.Limits) *Service {
	s := &Service{ID: id, Project: project}
	l.SetLimits(s, limits)

	return s
}

// SetLimits changes the limits of a service. A bucket whose rate stays keeps its fill, and
// requests under way keep the slots they have.
func (l *Local) SetLimits(s *Service, limits spec.Limits) {
	r, n := l.cfg.limitsOf(limits)

	switch old := s.local.bucket.Load(); {
	case !r.limited():
		s.local.bucket.Store(nil)
	case old == nil || old.rate != r:
		s.local.bucket.Store(&bucket{rate: r, limiter: newLimiter(r)})
	}

	switch old := s.local.slots.Load(); {
	case n <= 0:
		s.local.slots.Store(nil)
	case old == nil || old.size != int64(n):
		queue := int64(l.cfg.SlotQueue)
		if queue == 0 {
			queue = int64(n)
		}

		s.local.slots.Store(&slots{size: int64(n), queue: queue, sem: semaphore.NewWeighted(int64(n))})
	}
}

// Arrive implements Limiter.
func (l *Local) Arrive(from netip.Addr, now time.Time) error {
	if !l.sources.limited() {
		return nil
	}

	lim := l.sources.find(sourceKey(from), now)
	if lim == nil || lim.TokensAt(now) >= 1 {
		return nil
	}

	l.cfg.Hooks.limited(BoundSource)

	return tooMany(lim, now, "Too many requests from this network failed to authenticate.")
}

// Refused implements Limiter.
func (l *Local) Refused(from netip.Addr, now time.Time) {
	if l.sources.limited() {
		l.sources.get(sourceKey(from), now).AllowN(now, 1)
	}
}

// Keys is how many buckets of principals, apps, projects and sources are kept.
func (l *Local) Keys() int {
	return l.principals.size() + l.apps.size() + l.projects.size() + l.sources.size()
}

// sourceKey is the network that one customer of a provider usually has.
func sourceKey(a netip.Addr) key {
	a = a.Unmap()

	length := 56
	if a.Is4() {
		length = 24
	}

	p, err := a.WithZone("").Prefix(length)
	if err != nil {
		return key{}
	}

	return key{addr: p.Addr()}
}

// Admit implements Limiter.
func (l *Local) Admit(ctx context.Context, s *Service, who Who, t *Ticket) error {
	*t = Ticket{}

	if b, err := l.rates(s, who, t); err != nil {
		l.cfg.Hooks.limited(b)

		return err
	}

	if l.cfg.NoHeaders {
		t.Limit = 0
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

// rates asks the buckets, the narrowest first. On an error it tells which one is empty.
func (l *Local) rates(s *Service, who Who, t *Ticket) (Bound, error) {
	now := time.Now()

	if l.principals.limited() && who.Principal != "" {
		if err := t.take(l.principals.get(key{text: who.Principal}, now), now); err != nil {
			return BoundPrincipal, err
		}
	}

	if l.apps.limited() && who.App != "" {
		if err := t.take(l.apps.get(key{text: who.App}, now), now); err != nil {
			return BoundApp, err
		}
	}

	if b := s.local.bucket.Load(); b != nil {
		if err := t.take(b.limiter, now); err != nil {
			return BoundService, err
		}
	}

	if l.projects.limited() && s.Project != "" {
		if err := t.take(l.projects.get(key{text: s.Project}, now), now); err != nil {
			return BoundProject, err
		}
	}

	if l.global != nil {
		if err := t.take(l.global, now); err != nil {
			return BoundGlobal, err
		}
	}

	return 0, nil
}

// take takes a token and remembers the bucket that is closest to empty.
func (t *Ticket) take(lim *rate.Limiter, now time.Time) error {
	if !lim.AllowN(now, 1) {
		t.Limit, t.Remaining, t.Reset = lim.Burst(), 0, untilFull(lim, lim.TokensAt(now))

		return tooMany(lim, now, "")
	}

	tokens := lim.TokensAt(now)
	if left := max(int(tokens), 0); t.Limit == 0 || left < t.Remaining {
		t.Limit, t.Remaining, t.Reset = lim.Burst(), left, untilFull(lim, tokens)
	}

	return nil
}

func untilFull(lim *rate.Limiter, tokens float64) time.Duration {
	return seconds((float64(lim.Burst()) - tokens) / float64(lim.Limit()))
}

func seconds(s float64) time.Duration {
	return time.Duration(math.Min(math.Max(s, 0), 1e6) * float64(time.Second))
}

// tooMany tells when the next token will be there.
func tooMany(lim *rate.Limiter, now time.Time, msg string) error {
	wait := seconds((1 - lim.TokensAt(now)) / float64(lim.Limit()))

	return &fault.Error{Code: fault.TooManyRequests, Msg: msg, RetryAfter: max(wait, time.Millisecond)}
}

// slots bound how many requests of a service run at a time.
type slots struct {
	size, queue int64
	sem         *semaphore.Weighted
	waiting     atomic.Int64
}

// Constant faults, so that refusing allocates nothing.
var (
	errSlots = fault.New(fault.ConcurrencyLimit, "").After(time.Second)
	errGone  = fault.New(fault.ClientGone, "")
)

func (s *slots) acquire(ctx context.Context, wait time.Duration) error {
	if s.sem.TryAcquire(1) {
		return nil
	}

	if wait <= 0 {
		return errSlots
	}

	defer s.waiting.Add(-1)

	if s.waiting.Add(1) > s.queue {
		return errSlots
	}

	short, cancel := context.WithTimeout(ctx, wait)
	defer cancel()

	if s.sem.Acquire(short, 1) != nil {
		if ctx.Err() != nil {
			return errGone
		}

		return errSlots
	}

	return nil
}

func (s *slots) release() { s.sem.Release(1) }
