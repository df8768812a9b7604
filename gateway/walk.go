package gateway

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
)

// walk is what one request needs on its way. It is pooled, so that the corridor allocates
// nothing; two hold on to it at most, Do and a streamed answer, and the last one puts it back.
type walk struct {
	g       *Gateway
	holders atomic.Int32

	call    *Call
	plan    *plan.Plan
	service *plan.Service
	rest    []byte // of the path

	auth      auth.Request
	bodyLimit int64
	reserved  int64 // of unproven
	body      []byte
	bodyRead  bool
	readBody  func() ([]byte, error) // bound once

	ticket   limit.Ticket
	lease    pool.Lease
	router   router.Request
	pick     pool.Request
	decision router.Decision
	tried    []*router.Version // versions that have nothing left for this request
	attempt  Attempt
	deadline time.Time
	endpoint *pool.Endpoint // of the last attempt
	retrying bool
	lastErr  error
	limitNum [20]byte

	streaming bool
	broken    bool // a panic came by: the walk is not used again
	settled   bool
}

func newWalk(g *Gateway) *walk {
	w := &walk{g: g}
	w.readBody = w.bodyForSignature
	w.attempt.Done = w.streamed

	return w
}

func (w *walk) begin(c *Call) {
	w.call = c
	w.holders.Store(1)
	w.bodyLimit = defaultBodyLimit
}

// defaultBodyLimit holds for signatures over bodies of services that do not exist.
const defaultBodyLimit = 12 << 20

func (w *walk) authRequest() *auth.Request {
	c := w.call
	w.auth = auth.Request{
		Method: c.Method, Path: c.Path, Query: c.Query, Host: c.Host, Header: c.Header,
		Remote: c.Remote.Addr(), TLS: c.TLS, Now: c.Start, Body: w.readBody,
		Suspect: w.g.limits.Suspect(c.Remote.Addr(), c.Start),
	}

	return &w.auth
}

// loadBody reads the body once.
func (w *walk) loadBody(most int64) error {
	if w.bodyRead {
		return nil
	}

	if w.call.Body.Length() > most {
		return errTooLarge
	}

	body, err := w.call.Body.Bytes(most)
	if err != nil {
		return err //nolint:wrapcheck // the door's fault is the answer
	}

	w.body, w.bodyRead = body, true
	w.call.Record.BytesIn = int64(len(body))

	return nil
}

// rateHeaders tells the caller how much is left.
func (w *walk) rateHeaders() {
	out, t := w.call.Out, &w.ticket
	out.AddHeader("X-RateLimit-Limit", strconv.AppendInt(w.limitNum[:0], int64(t.Limit), 10))
	out.AddHeader("X-RateLimit-Remaining", strconv.AppendInt(w.limitNum[:0], int64(t.Remaining), 10))
	out.AddHeader("X-RateLimit-Reset", strconv.AppendInt(w.limitNum[:0], retrySeconds(t.Reset), 10))
}

// refuse answers with a fault.
func (w *walk) refuse(err error) {
	rec := &w.call.Record
	rec.Outcome = outcomeOf(fault.From(err).Code)

	WriteFault(w.call, err)
}

// leave is the end of Do. A streamed answer may go on.
func (w *walk) leave() {
	if !w.streaming {
		w.settle()
	}

	w.drop()
}

// streamed is the end of a streamed answer.
func (w *walk) streamed(bytes int64, err error) {
	rec := &w.call.Record
	rec.BytesOut, rec.Err = bytes, err

	outcome := pool.OK

	switch f := fault.From(err); {
	case f == nil && rec.Status >= 400:
		rec.Outcome = UpstreamStatus
	case f == nil:
		rec.Outcome = Served
	case f.Code == fault.ClientGone:
		rec.Outcome, outcome = ClientGone, pool.Neutral
	case f.Code == fault.BackendTimeout:
		rec.Outcome, outcome = UpstreamTimeout, pool.TimedOut
	default:
		rec.Outcome, outcome = UpstreamError, pool.Broken
	}

	if rec.Status >= 500 && outcome == pool.OK {
		outcome = pool.EngineError
	}

	w.lease.Done(outcome)
	w.settle()
	w.drop()
}

// settle closes the books of a request, once.
func (w *walk) settle() {
	if w.settled {
		return
	}

	w.settled = true
	w.ticket.Release()
	w.proven()

	if w.lease.Held() {
		w.lease.Done(pool.Neutral)
	}

	if w.retrying {
		w.retrying = false
		w.g.budget.leave()
	}

	w.g.budget.active.Add(-1)

	c := w.call
	c.Record.Total = time.Since(c.Start)

	if w.g.hooks.Settled != nil {
		w.g.hooks.Settled(c)
	}
}

// drop lets go of the walk; the last holder puts it back.
func (w *walk) drop() {
	if w.holders.Add(-1) != 0 || w.broken {
		return
	}

	scratch := w.router.Scratch[:0]
	if cap(scratch) > 4096 {
		scratch = nil
	}

	clear(w.tried)
	*w = walk{
		g: w.g, readBody: w.readBody, tried: w.tried[:0],
		attempt: Attempt{Done: w.attempt.Done}, router: router.Request{Scratch: scratch},
	}
	w.g.walks.Put(w)
}

// outcomeOf sorts a fault for metrics.
func outcomeOf(code fault.Code) Outcome {
	//nolint:exhaustive // the rest is told apart by status
	switch code {
	case fault.ServiceNotRunning:
		return RejectedNotRunning
	case fault.Overloaded, fault.QueueTimeout, fault.BreakerOpen:
		return RejectedOverload
	case fault.NoInstance, fault.Unavailable, fault.ShuttingDown:
		return RejectedNoInstance
	case fault.BackendUnreachable:
		return UpstreamUnreachable
	case fault.BackendTimeout:
		return UpstreamTimeout
	case fault.BackendFailed:
		return UpstreamError
	case fault.ClientGone:
		return ClientGone
	}

	switch status := code.Status(); {
	case status == 401:
		return RejectedAuth
	case status == 403:
		return RejectedForbidden
	case status == 404:
		return RejectedNotFound
	case status == 429:
		return RejectedRate
	case status < 500:
		return RejectedBad
	default:
		return OutcomeUnknown
	}
}
