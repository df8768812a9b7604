package upstream

import (
	"errors"
	"io"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router/pool"
)

const (
	copySize   = 32 << 10 // of the buffer for streamed request bodies
	inlineSize = 16 << 10 // a body up to this goes out in one write with the head
	// lastWords is how long an instance that stopped reading has to say why.
	lastWords = 200 * time.Millisecond
)

// Forward implements gateway.Forwarder.
func (cl *Client) Forward(c *gateway.Call, a *gateway.Attempt) gateway.Result {
	h, ok := a.Lease.Endpoint().Backend.(*host)
	if !ok {
		panic("BUG: the lease is for an endpoint of another forwarder")
	}

	if h.link != nil && fitsLink(c, a) && h.holdLink() {
		res, ok := h.overLink(c, a)
		h.leaveLink()

		if ok {
			return res
		}
	}

	if c.Upgrade != nil {
		return h.upgrade(c, a)
	}

	x, err := h.get(c.Context, a.Deadline)
	if err != nil {
		return unreachable(c, err)
	}

	res, silent := x.exchange(c, a)
	if !silent || !x.reused || a.Stream != nil || res.Sent && !a.Pure {
		return res
	}
	// A pooled connection broke without a byte of answer: the worker may have closed it, and
	// its other idle ones as well. A new connection tells whether the worker itself is gone.
	h.flush()

	x, err = h.dial(c.Context, a.Deadline)
	if err != nil {
		again := unreachable(c, err)
		again.Sent = res.Sent

		return again
	}

	again, _ := x.exchange(c, a)
	again.Sent = again.Sent || res.Sent

	return again
}

func unreachable(c *gateway.Call, err error) gateway.Result {
	if c.Context.Err() != nil {
		return gateway.Result{Outcome: pool.Neutral, Err: fault.Wrap(fault.ClientGone, err, "")}
	}

	return gateway.Result{Outcome: pool.Unreachable, Err: fault.Wrap(fault.BackendUnreachable, err, "").After(time.Second)}
}

// exchange sends the request and passes the answer on. silent tells that the connection
// broke before a byte of an answer came.
func (x *conn) exchange(c *gateway.Call, a *gateway.Attempt) (res gateway.Result, silent bool) {
	x.writeHead(c, a)

	err := x.send(c, a, &res)
	if err != nil && (res.Err != nil || waited(err)) {
		return x.fail(&res, err), false
	}

	deadline := a.Deadline
	if err != nil { // the instance stopped reading: it may have answered already
		deadline = earlier(deadline, time.Now().Add(lastWords))
	}

	begun, headErr := x.readHead(c.Context, deadline, string(c.Method) == "HEAD")
	if headErr != nil {
		if err != nil {
			headErr = err
		}

		return x.fail(&res, headErr), !begun && !waited(headErr)
	}

	x.resp.close = x.resp.close || err != nil || x.req.upgrade

	if x.req.upgrade && x.resp.status < 300 {
		return x.accepted(c, &res), false
	}

	a.Lease.Answered()
	x.answer(c, a, &res)

	return res, false
}

// waited reports whether err says that waiting came to an end, and nothing about the connection.
func waited(err error) bool { return errors.Is(err, errCanceled) || errors.Is(err, errDeadline) }

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}

	return a
}

// send writes head and body. Faults of the client's side stand in res.Err.
func (x *conn) send(c *gateway.Call, a *gateway.Attempt, res *gateway.Result) error {
	if a.Stream != nil {
		return x.sendStream(c, a, res)
	}

	if len(a.Body) <= inlineSize {
		x.wbuf = append(x.wbuf, a.Body...)

		sent, err := x.write(c.Context, x.wbuf, a.Deadline)
		res.Sent = sent

		return err
	}

	sent, err := x.write(c.Context, x.wbuf, a.Deadline)
	res.Sent = sent

	if err == nil {
		_, err = x.write(c.Context, a.Body, a.Deadline)
	}

	return err
}

// sendStream copies the body as it arrives. A body that ends too early or breaks off ends the
// connection, so that the instance never takes a part for the whole.
func (x *conn) sendStream(c *gateway.Call, a *gateway.Attempt, res *gateway.Result) error {
	sent, err := x.write(c.Context, x.wbuf, a.Deadline)
	res.Sent = sent

	if err != nil {
		return err
	}

	buf, ok := x.host.client.copies.Get().(*[copySize]byte)
	if !ok {
		panic("BUG: the pool of copy buffers holds something else")
	}
	defer x.host.client.copies.Put(buf)

	res.BodyUsed = true

	// A client that stalls must not hold a connection of the instance beyond the attempt.
	if p, ok := a.Stream.(gateway.Patient); ok {
		p.Until(a.Deadline)
	}

	for total := int64(0); ; {
		n, rerr := a.Stream.Read(buf[:])
		if n > 0 {
			total += int64(n)
			if err := x.sendPiece(c, a, buf[:n]); err != nil {
				return err
			}
		}

		if errors.Is(rerr, io.EOF) {
			return x.endStream(c, a, total, res)
		}

		if rerr != nil {
			res.Err = rerr

			return rerr //nolint:wrapcheck // the door's fault is the answer
		}
	}
}

func (x *conn) sendPiece(c *gateway.Call, a *gateway.Attempt, piece []byte) error {
	if a.Length >= 0 {
		_, err := x.write(c.Context, piece, a.Deadline)

		return err
	}

	x.wbuf = strconv.AppendInt(x.wbuf[:0], int64(len(piece)), 16)
	x.wbuf = append(x.wbuf, "\r\n"...)
	x.wbuf = append(x.wbuf, piece...)
	x.wbuf = append(x.wbuf, "\r\n"...)
	_, err := x.write(c.Context, x.wbuf, a.Deadline)

	return err
}

func (x *conn) endStream(c *gateway.Call, a *gateway.Attempt, total int64, res *gateway.Result) error {
	if a.Length < 0 {
		_, err := x.write(c.Context, []byte("0\r\n\r\n"), a.Deadline)

		return err
	}

	if total != a.Length {
		res.Err = fault.New(fault.BadRequest, "The body is not as long as its Content-Length.")

		return res.Err
	}

	return nil
}

// fail closes the connection and says what to blame.
func (x *conn) fail(res *gateway.Result, err error) gateway.Result {
	x.close()

	switch {
	case res.Err != nil: // the client's side
		res.Outcome = pool.Neutral
	case errors.Is(err, errCanceled):
		res.Outcome, res.Err = pool.Neutral, fault.Wrap(fault.ClientGone, err, "")
	case errors.Is(err, errDeadline):
		res.Outcome, res.Err = pool.TimedOut, fault.Wrap(fault.BackendTimeout, err, "")
	case errors.Is(err, errGarbage), errors.Is(err, errHeadSize):
		res.Outcome, res.Err = pool.Broken, fault.Wrap(fault.BackendFailed, err, "")
	default:
		res.Outcome, res.Err = pool.Broken, fault.Wrap(fault.BackendUnreachable, err, "").After(time.Second)
	}

	return *res
}

// answer passes the answer on whose head has been read.
func (x *conn) answer(c *gateway.Call, a *gateway.Attempt, res *gateway.Result) {
	r := &x.resp

	if r.drains {
		a.Lease.Endpoint().Drain()
	}
	// The worker refused because it is going away. Its header tells that nothing was started.
	if r.status == 503 && (r.drains || r.close && a.Pure) {
		x.close()

		res.Outcome, res.NotStarted = pool.Neutral, r.drains
		res.Err = fault.New(fault.NoInstance, "").After(time.Second)

		return
	}

	rec := &c.Record
	rec.FirstByte, rec.Status = time.Since(c.Start), r.status
	res.Status = r.status

	if r.length == chunkedLen && !r.events {
		x.unchunk()
	}

	if r.events || r.length < 0 || r.length > x.host.client.cfg.BufferBytes {
		x.startStream(c, a, res)

		return
	}

	body, err := x.buffered(c.Context, r.length, a.Deadline)
	if err != nil {
		rec.Status = 0
		*res = x.fail(res, err)

		return
	}

	res.Outcome = blame(r.status, r.retry)
	res.Answered, res.BytesOut = true, int64(len(body))

	x.copyHeaders(c.Out)
	a.AnswerHeaders(c.Out)
	c.Out.Set(r.status, body)
	x.release()
}

// blame says what a status tells about the instance. A 503 with Retry-After is overload,
// which taking the instance out would only make worse.
func blame(status int, retryAfter bool) pool.Outcome {
	switch {
	case status == 503 && retryAfter:
		return pool.Neutral
	case status >= 500 && status != 501:
		return pool.EngineError
	default:
		return pool.OK
	}
}

// release gives the connection back if it may be used again.
func (x *conn) release() {
	if x.resp.close || x.r != x.w {
		x.close()

		return
	}

	x.host.put(x)
}
