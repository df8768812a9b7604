package upstream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
	"unsafe"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

var errLink = errors.New("the instance has no usable link")

// linkTo prepares a link to an instance that has one; nil otherwise. Only workers of ours have. One on
// another machine proves itself, and lets in nobody who does not.
func (cl *Client) linkTo(in *spec.Instance) (*link.Client, error) {
	network, address, ok := strings.Cut(in.LinkAddress, ":")
	if !ok || address == "" {
		return nil, nil //nolint:nilnil // calls go over HTTP
	}

	switch network {
	case "unix":
		return link.NewClient(link.Config{Network: "unix", Address: address}), nil
	case "tcp":
		if !loopback(address) {
			return nil, fmt.Errorf("%w: %s is on another machine and without TLS", errLink, in.LinkAddress)
		}

		return link.NewClient(link.Config{Network: "tcp", Address: address}), nil
	case "tls":
		if cl.cfg.Worker == nil {
			return nil, fmt.Errorf("%w: %s asks for a certificate, and there is none", errLink, in.LinkAddress)
		}

		return link.NewClient(link.Config{Network: "tcp", Address: address, TLS: cl.cfg.Worker(in.ID)}), nil
	default:
		return nil, nil //nolint:nilnil // of a later version: HTTP does as well
	}
}

// linkCall is the memory of one call over a link.
type linkCall struct {
	call link.Call
	ans  link.Answer
	add  func(name, value []byte) bool
	out  func(name, value []byte) bool
	to   gateway.Out
}

// keepLinkBody is the largest answer whose memory is kept for the next call.
const keepLinkBody = 256 << 10

//nolint:gochecknoglobals // a pool has to be shared to be of use
var linkCalls = sync.Pool{New: func() any {
	l := new(linkCall)
	l.add, l.out = l.addHeader, l.copyHeader

	return l
}}

// fitsLink reports whether a call is one for a link: small, whole, and no switch of protocol.
func fitsLink(c *gateway.Call, a *gateway.Attempt) bool {
	return c.Upgrade == nil && a.Stream == nil && len(a.Body) <= link.MaxBody && len(a.Path)+len(c.Query) < link.MaxHead/2
}

// overLink makes an attempt over the link. ok is false if the call has to go over HTTP after all.
func (h *host) overLink(c *gateway.Call, a *gateway.Attempt) (res gateway.Result, ok bool) {
	l, _ := linkCalls.Get().(*linkCall)
	defer l.free()

	l.fill(c, a)

	err := h.link.Do(c.Context, &l.call, &l.ans)
	if errors.Is(err, link.ErrBusy) || errors.Is(err, link.ErrAnswer) && a.Pure {
		return res, false
	}

	if err != nil {
		return linkFailed(c, a, err), true
	}

	a.Lease.Answered()

	rec := &c.Record
	rec.FirstByte, rec.Status = time.Since(c.Start), l.ans.Status
	res = gateway.Result{
		Answered: true, Sent: true, Status: l.ans.Status, BytesOut: int64(len(l.ans.Body)),
		Outcome: blame(l.ans.Status, l.ans.Header.Get("Retry-After") != nil),
	}

	l.to = c.Out
	l.ans.Header.Each(l.out)
	a.AnswerHeaders(c.Out)
	c.Out.Set(l.ans.Status, l.ans.Body)

	return res, true
}

// linkFailed says what a call without an answer means.
func linkFailed(c *gateway.Call, a *gateway.Attempt, err error) gateway.Result {
	var (
		le  *link.Error
		res gateway.Result
	)

	if errors.As(err, &le) {
		res.Sent = le.Reached
	}

	switch {
	case c.Context.Err() != nil:
		res.Outcome, res.Err = pool.Neutral, fault.Wrap(fault.ClientGone, err, "")
	case errors.Is(err, context.DeadlineExceeded):
		res.Outcome, res.Err = pool.TimedOut, fault.Wrap(fault.BackendTimeout, err, "")
	case errors.Is(err, link.ErrDraining):
		a.Lease.Endpoint().Drain()

		res.Outcome, res.NotStarted = pool.Draining, true
		res.Err = fault.Wrap(fault.NoInstance, err, "").After(time.Second)
	case res.Sent:
		res.Outcome, res.Err = pool.Broken, fault.Wrap(fault.BackendUnreachable, err, "").After(time.Second)
	default:
		res.Outcome, res.Err = pool.Unreachable, fault.Wrap(fault.BackendUnreachable, err, "").After(time.Second)
	}

	return res
}

func (l *linkCall) fill(c *gateway.Call, a *gateway.Attempt) {
	l.call.Method, l.call.Body = c.Method, a.Body
	l.call.Path = append(l.call.Path[:0], a.Path...)

	if len(c.Query) > 0 {
		l.call.Path = append(append(l.call.Path, '?'), c.Query...)
	}

	// A deadline of the gateway ends the call here; the worker gets the same number.
	l.call.Timeout = max(time.Until(a.Deadline), time.Millisecond)

	h := &l.call.Header
	h.Reset()
	c.Header.Each(l.add)

	var ms [20]byte

	h.Add("x-sluice-timeout-ms", strconv.AppendInt(ms[:0], max(l.call.Timeout.Milliseconds(), 1), 10))
	h.Add("x-request-id", unsafe.Slice(unsafe.StringData(c.ID), len(c.ID)))
}

// addHeader takes the headers that our own worker reads; it has no use for others.
func (l *linkCall) addHeader(name, value []byte) bool {
	var small [maxKnownName]byte

	lower, twin := lowerName(small[:0], name)
	if twin {
		return true
	}

	switch string(lower) {
	case "content-type", "content-encoding", "accept-encoding", "inference-header-content-length",
		"x-sluice-explain", "traceparent":
		if safeValue(value) {
			l.call.Header.AddBytes(lower, value)
		}
	}

	return true
}

func (l *linkCall) copyHeader(name, value []byte) bool {
	// AddHeader copies both, so that the string may share the buffer for the call.
	l.to.AddHeader(unsafe.String(&name[0], len(name)), value)

	return true
}

func (l *linkCall) free() {
	l.to, l.call.Method, l.call.Body = nil, nil, nil

	if cap(l.ans.Body) > keepLinkBody {
		l.ans.Body = nil
	}

	linkCalls.Put(l)
}
