// Package limit is admission: who may come in now, and who must wait or come later.
//
// Two kinds of bounds hold. Rates are token buckets for the principal, the app, the
// service, the project and the whole gateway, asked in this order, so that a caller who is
// over its own rate takes nothing from the others. Slots bound how many requests of a
// service run at a time; a request may wait for one, shortly. A refusal is a 429 with
// Retry-After and never says anything about the state of the platform.
//
// A third bound holds for strangers: a source network (a /24 or a /56) that keeps failing to
// authenticate is told to come later, and costly proofs of its requests have to queue. Who
// does prove who it is comes in as ever: the neighbours of a flood are not its authors. What
// services that ask nobody's name give to one network can be bounded too. No other key is
// ever taken from what a stranger sends, so that strangers cannot fill the tables.
//
// Local keeps everything in this process. It has no goroutines and is safe for concurrent
// use; a request locks the buckets of its own keys and nothing else.
package limit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// Limiter admits requests. Local is the one for a single gateway; one that shares its
// buckets with other gateways has the same shape.
type Limiter interface {
	// Suspect reports, before authentication, that this source failed so often lately that
	// nothing costly should be done for it at once.
	Suspect(from netip.Addr, now time.Time) bool
	// Refused tells that a request from this source did not authenticate. If there were too
	// many of them, it returns the fault to answer with.
	Refused(from netip.Addr, now time.Time) error
	// Admit fills t or refuses with a fault. The caller releases t exactly once.
	Admit(ctx context.Context, s *Service, who Who, t *Ticket) error
}

// Who is the authenticated caller. At a service that asks nobody's name it is only From.
type Who struct {
	Principal string // auth.Principal.Key
	App       string
	From      netip.Addr // without Principal
}

// Rate is a token bucket. Zero PerSecond means no limit.
type Rate struct {
	PerSecond float64
	// Burst is how much may come at once; default PerSecond, at least 1.
	Burst int
}

func (r Rate) limited() bool { return r.PerSecond > 0 }

func (r Rate) burst() int {
	if r.Burst > 0 {
		return r.Burst
	}

	return max(int(r.PerSecond), 1)
}

func (r Rate) check(name string) error {
	if r.PerSecond < 0 || r.PerSecond > 1e9 || r.Burst < 0 {
		return fmt.Errorf("%s: rate %v, burst %d out of range", name, r.PerSecond, r.Burst)
	}

	return nil
}

// Config of a Local limiter. Service is the default for services that have no rate of their own.
type Config struct {
	Global, Project, Principal, App, Service Rate
	// Concurrency is the default number of slots per service; 0 means no bound.
	Concurrency int
	// SlotWait is how long a request waits for a slot; default 100 ms, negative for not at all.
	SlotWait time.Duration
	// SlotQueue is how many requests may wait per service; default as many as there are slots.
	SlotQueue int
	// Source is how many failed authentications a source network may cause; default 200 a
	// second, 2,000 at once. Negative PerSecond turns the bound off.
	Source Rate
	// Anonymous is what services that ask nobody's name give to one source network in all.
	Anonymous Rate
	// MaxKeys bounds each table of principals, apps and sources; default 100,000. When one is
	// full, keys that were not used for long are forgotten.
	MaxKeys int
	// NoHeaders leaves X-RateLimit-* out of answers.
	NoHeaders bool
	Hooks     Hooks
}

// Bound names what refused a request.
type Bound uint8

// Bounds.
const (
	BoundSource Bound = iota
	BoundAnonymous
	BoundPrincipal
	BoundApp
	BoundService
	BoundProject
	BoundGlobal
	BoundSlots
	NumBounds
)

//nolint:gochecknoglobals // constant table
var boundNames = [NumBounds]string{"source", "anonymous", "principal", "app", "service", "project", "global", "slots"}

// String is the bound's metric label.
func (b Bound) String() string {
	if b < NumBounds {
		return boundNames[b]
	}

	return "unknown"
}

// Hooks report what the limiter does; nil fields are skipped.
type Hooks struct {
	// Limited: a request was refused.
	Limited func(b Bound)
}

func (h *Hooks) limited(b Bound) {
	if h.Limited != nil {
		h.Limited(b)
	}
}

// Defaults returns c with every zero field filled.
func (c Config) Defaults() Config {
	if c.SlotWait == 0 {
		c.SlotWait = 100 * time.Millisecond
	}

	if c.Source.PerSecond == 0 {
		c.Source = Rate{PerSecond: 200, Burst: 2000}
	}

	if c.MaxKeys == 0 {
		c.MaxKeys = 100_000
	}

	return c
}

// Validate reports every mistake in c.
func (c Config) Validate() error {
	errs := []error{
		c.Global.check("global"), c.Project.check("project"), c.Principal.check("principal"),
		c.App.check("app"), c.Service.check("service"), c.Anonymous.check("anonymous"),
	}
	if c.Source.PerSecond >= 0 {
		errs = append(errs, c.Source.check("source"))
	}

	if c.Concurrency < 0 || c.SlotQueue < 0 {
		errs = append(errs, fmt.Errorf("concurrency %d or slot queue %d is negative", c.Concurrency, c.SlotQueue))
	}

	if c.MaxKeys < 0 {
		errs = append(errs, fmt.Errorf("max keys %d is negative", c.MaxKeys))
	}

	return errors.Join(errs...)
}

// Service is the admission state of one service. It outlives snapshots: Local.Service
// makes it, SetLimits follows a change of the policy.
type Service struct {
	ID, Project string

	local serviceState
}

// Ticket is the right to run one request. The zero value holds nothing.
type Ticket struct {
	slots *slots

	// What the rate-limit headers say; Limit is 0 if no rate holds.
	Limit, Remaining int
	Reset            time.Duration
}

// Release gives the slot back. Calling it again does nothing.
func (t *Ticket) Release() {
	if t.slots != nil {
		t.slots.release()
		t.slots = nil
	}
}

var _ Limiter = (*Local)(nil)

// limitsOf merges a service's policy with the defaults.
func (c Config) limitsOf(l spec.Limits) (Rate, int) {
	rate, slots := c.Service, c.Concurrency
	if l.RequestsPerSecond > 0 {
		rate = Rate{PerSecond: l.RequestsPerSecond, Burst: l.Burst}
	}

	if l.Concurrency > 0 {
		slots = l.Concurrency
	}

	return rate, slots
}
