package gateway

import (
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
)

// retryPause is how long a request waits before it tries instances again that failed it.
const retryPause = 100 * time.Millisecond

// newcomer is how long a service is waited for that did not serve lately: control may have called it
// running a moment before the plan with its instances comes into force here.
const newcomer = 250 * time.Millisecond

// await is for a request that has no instance left to try. A service that served a moment
// ago is likely to come back: a worker is being replaced, or the plan is just changing. The
// request waits for that, shortly, and then decides anew.
func (w *walk) await(until *time.Time) error {
	now := time.Now()
	changed := w.g.plans.Changed()

	if w.g.plans.Load() != w.plan {
		return w.renew()
	}

	if until.IsZero() {
		patience := w.g.cfg.Patience
		if w.lastErr == nil && !w.service.WasAble(now, w.g.cfg.AbleWithin) {
			patience = min(patience, newcomer)
		}

		if patience <= 0 {
			return w.nobody()
		}

		*until = now.Add(patience)
	}

	left := min(until.Sub(now), w.deadline.Sub(now))
	if left <= 0 {
		return w.nobody()
	}

	timer := time.NewTimer(min(left, retryPause))
	defer timer.Stop()

	select {
	case <-changed:
	case <-timer.C:
	case <-w.call.Context.Done():
		return errGone
	}

	return w.renew()
}

// nobody is the answer when no instance came: why the last attempt failed, if there was one.
func (w *walk) nobody() error {
	if w.lastErr != nil {
		return w.lastErr
	}

	if w.decision.Reason == router.ByRule {
		return fault.New(fault.NoInstance, "Rule %q binds the request to version %s, of which no instance is ready.",
			w.decision.Rule, w.decision.Version.Label).After(time.Second)
	}

	return errNoInstance
}

// renew decides again, by the plan in force and with every instance allowed again.
func (w *walk) renew() error {
	w.plan = w.g.plans.Load()

	s := w.plan.Services[w.service.ID]
	if s == nil {
		return errNoService
	}

	if !s.Running {
		return errNotRunning
	}

	w.service = s
	w.tried = w.tried[:0]
	w.pick = pool.Request{}
	s.Route.PoolKeys(&w.router, &w.pick)
	w.pick.Long = w.call.Upgrade != nil
	w.decision = s.Route.Choose(&w.router)

	return nil
}
