package pool

import (
	"math"
	"slices"
	"time"

	"github.com/sony/gobreaker/v2"
)

// Reasons for ejection, as given to Hooks.Ejected.
const (
	ReasonConsecutive = "consecutive_failures"
	ReasonConnect     = "connect"
	ReasonSuccessRate = "success_rate"
	ReasonLatency     = "latency"
)

// judge looks at what a request says about the health of e.
func (p *Pool) judge(e *Endpoint, o Outcome, now int64) {
	cfg := &p.cfg.Ejection
	if cfg.Disabled || o == Neutral || o == Draining {
		return
	}

	e.windowAll.Add(1)

	switch {
	case o == Unreachable:
		e.windowBad.Add(1)

		if e.connects.Add(1) >= int32(cfg.ConsecutiveConnect) {
			p.eject(e, ReasonConnect, now)
		}
	case o.failure():
		e.windowBad.Add(1)

		if e.consecutive.Add(1) >= int32(cfg.Consecutive) {
			p.eject(e, ReasonConsecutive, now)
		}
	default:
		if e.connects.Load() != 0 {
			e.connects.Store(0)
		}

		if e.consecutive.Load() != 0 {
			e.consecutive.Store(0)
		}
	}

	if next := p.nextLook.Load(); now >= next && p.nextLook.CompareAndSwap(next, now+int64(cfg.Interval)) && next != 0 {
		p.look(now)
	}
}

// eject takes e out for a while, longer each time, unless too many are out already.
func (p *Pool) eject(e *Endpoint, reason string, now int64) {
	cfg := &p.cfg.Ejection

	p.lookMu.Lock()
	defer p.lookMu.Unlock()

	if e.ejected.Load() > now {
		return
	}

	endpoints := p.view.Load().endpoints
	out := 1

	for _, other := range endpoints {
		if other.ejected.Load() > now {
			out++
		}
	}

	if float64(out) > cfg.MaxFraction*float64(len(endpoints)) {
		return
	}

	d := cfg.Base
	for range min(e.ejections.Load(), 30) {
		d = min(2*d, cfg.Max)
	}

	e.ejections.Add(1)
	e.consecutive.Store(0)
	e.connects.Store(0)
	e.ejected.Store(now + int64(d))
	p.sickUntil.Store(max(p.sickUntil.Load(), now+int64(d)))

	if p.cfg.Hooks.Ejected != nil {
		p.cfg.Hooks.Ejected(e.ID, reason, d)
	}
}

// look compares the instances with each other, once an interval.
func (p *Pool) look(now int64) {
	cfg := &p.cfg.Ejection
	endpoints := p.view.Load().endpoints

	type rate struct {
		e       *Endpoint
		success float64
	}

	var (
		rates     []rate
		latencies []float64
		sum       float64
	)

	for _, e := range endpoints {
		all, bad := e.windowAll.Swap(0), e.windowBad.Swap(0)
		if bad == 0 && all > 0 && e.ejections.Load() > 0 && e.ejected.Load() < now-int64(cfg.Interval) {
			e.ejections.Add(-1) // a good interval forgives one ejection
		}

		if all < int64(cfg.MinRequests) {
			continue
		}

		success := 1 - float64(min(bad, all))/float64(all)
		rates = append(rates, rate{e, success})
		sum += success

		if l := math.Float64frombits(e.ewma.Load()); l > 0 {
			latencies = append(latencies, l)
		}
	}

	if len(rates) < 2 {
		return
	}

	slices.Sort(latencies)

	mean := sum / float64(len(rates))

	for _, r := range rates {
		if r.success < mean-cfg.SuccessRate {
			p.eject(r.e, ReasonSuccessRate, now)
		} else if cfg.Latency > 0 && len(latencies) > 1 && slowOutlier(cfg, latencies, r.e.Latency()) {
			p.eject(r.e, ReasonLatency, now)
		}
	}
}

// slowOutlier compares with the lower median, so that of two instances the slower can be out.
func slowOutlier(cfg *Ejection, sorted []float64, latency time.Duration) bool {
	median := sorted[(len(sorted)-1)/2]

	return latency > cfg.LatencyFloor && float64(latency) > cfg.Latency*median
}

// unhealthy reports whether less than half of the instances are healthy. Then all are used:
// a fleet that is ill as a whole serves better than a small rest that is run over.
func (p *Pool) unhealthy(v *view, now int64) bool {
	sick := p.sick.Load()
	if !sick && p.sickUntil.Load() <= now {
		return false
	}

	healthy, open := 0, false

	for _, e := range v.endpoints {
		if e.healthy(now) {
			healthy++
		}

		open = open || gobreaker.State(e.breaker.state.Load()) != gobreaker.StateClosed
	}

	if sick && !open {
		p.sick.Store(false)
	}

	panics := 2*healthy < len(v.endpoints)
	if panics != p.panicking.Load() && p.panicking.CompareAndSwap(!panics, panics) && panics && p.cfg.Hooks.Panic != nil {
		p.cfg.Hooks.Panic(p.name)
	}

	return panics
}
