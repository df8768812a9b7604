package gateway

import (
	"errors"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/internal/apischema"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
)

// send chooses version and instance and forwards, again if that is safe.
func (w *walk) send() error {
	c := w.call
	w.deadline = c.Start.Add(w.service.Timeout)
	w.router = router.Request{
		Header: c.Header, Query: c.Query, Principal: c.Record.Principal,
		Remote: c.Remote.Addr(), Scratch: w.router.Scratch,
	}
	w.service.Route.PoolKeys(&w.router, &w.pick)
	w.pick.Long = c.Upgrade != nil
	w.decision = w.service.Route.Choose(&w.router)

	var patience time.Time // until when to wait for an instance; zero until there is none

	for sent := 0; ; {
		err := w.acquire()
		if err != nil {
			if !errors.Is(err, pool.ErrNone) {
				return err
			}

			if err := w.await(&patience); err != nil {
				return err
			}

			continue
		}

		res := w.once()
		if res.Answered {
			return nil
		}

		if res.Sent {
			sent++
		}

		if err := w.again(&res, sent); err != nil {
			return err
		}
	}
}

// acquire gets a lease, from the version of the decision or, if that has nothing left and
// no rule binds the request, from another one.
func (w *walk) acquire() error {
	for {
		v := w.decision.Version
		if v == nil {
			return pool.ErrNone
		}

		if err := w.declared(v); err != nil {
			return err
		}

		if err := w.fits(v); err != nil {
			return err
		}

		if err := w.prepareBody(v); err != nil {
			return err
		}

		err := v.Pool.Acquire(w.call.Context, &w.pick, w.deadline, &w.lease)
		if err == nil {
			w.picked(v)

			return nil
		}

		if !errors.Is(err, pool.ErrNone) || w.decision.Reason == router.ByRule {
			return err //nolint:wrapcheck // a fault already
		}

		w.tried = append(w.tried, v)
		w.decision = router.Decision{Version: w.service.Route.Other(w.hasTried), Reason: router.ByWeight}
	}
}

// path is where the request goes at an engine of the version.
func (w *walk) path(v *router.Version) []byte {
	if len(w.rest) == 0 {
		return v.DefaultPath()
	}

	return w.rest
}

// declared refuses what the package of the version does not declare.
func (w *walk) declared(v *router.Version) error {
	c := w.call

	d, allow := v.Declares(c.Method, w.path(v))
	switch d {
	case router.NoSuchPath:
		return errNoEndpoint
	case router.NoSuchMethod:
		// A WebSocket begins with GET whatever method the package names for the path.
		if c.Upgrade != nil {
			return nil
		}

		c.Out.AddHeader("Allow", []byte(allow))

		return errNoMethod
	case router.Declared:
	}

	return nil
}

var (
	errTooLongToCheck = fault.New(fault.BodyTooLarge, "The API checks its requests, and takes bodies up to 1 MiB.")
	errPacked         = fault.New(fault.BadEncoding, "The API checks its requests: the body must not be compressed.")
)

// fits checks the body of a request whose API asks for it.
func (w *walk) fits(v *router.Version) error {
	c := w.call

	schema := v.Schema(c.Method, w.path(v))
	if schema == nil || c.Upgrade != nil {
		return nil
	}

	if e := c.Header.Get("content-encoding"); len(e) > 0 && string(e) != "identity" {
		return errPacked
	}

	if c.Body.Length() > apischema.MaxBody {
		return errTooLongToCheck
	}

	w.attempt.Stream = nil // a version that has no instance left may have wanted one

	if err := w.loadBody(min(w.service.BodyLimit, apischema.MaxBody)); err != nil {
		return err
	}

	return schema.Check(w.body) //nolint:wrapcheck // a fault already
}

func (w *walk) hasTried(v *router.Version) bool {
	return slices.Contains(w.tried, v)
}

func (w *walk) picked(v *router.Version) {
	c, e := w.call, w.lease.Endpoint()
	w.endpoint = e
	rec := &c.Record
	rec.Model, rec.Instance, rec.Rule = v.Label, e.ID, w.decision.Rule
	rec.Picked = time.Since(c.Start)
	rec.Attempts++

	a := &w.attempt
	a.Lease = &w.lease
	a.Pure = v.Pure
	a.model, a.instance, a.rule = v.LabelBytes(), e.IDBytes(), w.decision.RuleBytes()

	a.Path, a.StreamIdle = w.path(v), w.service.StreamIdle

	a.Deadline = w.deadline
	if w.service.PerTry > 0 {
		if end := time.Now().Add(w.service.PerTry); end.Before(a.Deadline) {
			a.Deadline = end
		}
	}
}

// prepareBody reads a body that may have to be sent again, and lets a long one flow.
func (w *walk) prepareBody(v *router.Version) error {
	a, length := &w.attempt, w.call.Body.Length()

	switch {
	case w.bodyRead || a.Stream != nil:
	case length == 0:
		w.bodyRead = true
	case length > w.g.cfg.BufferBytes || length < 0 && !v.Pure:
		a.Stream, a.Length = w.call.Body.Stream(w.service.BodyLimit), length
		w.call.Record.BytesIn = max(length, 0)
	default:
		if err := w.loadBody(w.service.BodyLimit); err != nil {
			return err
		}
	}

	a.Body = w.body

	return nil
}

// once makes one attempt and gives the lease back, unless the answer is streamed.
func (w *walk) once() Result {
	rec := &w.call.Record
	w.holders.Add(1) // for a stream, whose end may come before Forward returns

	res := w.g.forward.Forward(w.call, &w.attempt)
	if res.Streaming {
		w.streaming = true
		w.service.MarkAble(w.call.Start)

		return res
	}

	w.holders.Add(-1)

	if res.Upgraded {
		w.lift()

		return res
	}

	w.lease.Done(res.Outcome)

	if w.retrying {
		w.retrying = false
		w.g.budget.leave()
	}

	if res.Answered {
		rec.BytesOut = res.BytesOut
		rec.Outcome = Served
		w.service.MarkAble(w.call.Start)

		switch {
		case res.Err != nil:
			rec.Err, rec.Outcome = res.Err, outcomeOf(fault.From(res.Err).Code)
		case rec.Status >= 400:
			rec.Outcome = UpstreamStatus
		}
	}

	return res
}

// again decides whether another attempt may follow, and prepares it.
func (w *walk) again(res *Result, sent int) error {
	c := w.call
	w.lastErr = res.Err

	if c.Context.Err() != nil {
		return errGone
	}

	safe := !res.Sent || w.attempt.Pure || res.NotStarted
	if !safe || res.BodyUsed || sent >= w.service.Attempts ||
		c.Record.Attempts >= 4*pool.MaxTried {
		return res.Err
	}

	left := time.Until(w.deadline)
	if left <= 0 {
		return errTimeout
	}

	if !w.g.budget.enter(c.Context, min(left, w.g.cfg.RetryWait)) {
		return res.Err
	}

	w.retrying = true

	if w.g.hooks.Retried != nil {
		w.g.hooks.Retried(c, res.Err)
	}

	w.pick.Exclude(w.endpoint)

	return nil
}
