package gateway

import (
	"io"
	"time"

	"github.com/sluice-gateway/sluice/router/pool"
)

// Forwarder sends a call to an instance.
type Forwarder interface {
	// Forward makes one attempt. It writes to c.Out only when the answer is certain to be
	// the one that the client gets; until then it can be repeated elsewhere.
	Forward(c *Call, a *Attempt) Result
}

// Attempt is one sending of a call to the instance of a lease. The corridor owns it; it is
// valid until Forward returned, or until Done was called if the answer is streamed.
type Attempt struct {
	Lease *pool.Lease
	// Path for the engine, raw; the query is that of the call.
	Path []byte
	// Body is the whole body, if Stream is nil. Length is that of the stream, -1 if unknown.
	Body   []byte
	Stream io.Reader
	Length int64
	// Deadline of this attempt.
	Deadline time.Time
	// StreamIdle is how long a streamed answer may pause; 0: the forwarder's own bound.
	StreamIdle time.Duration
	// Pure: the engine may run a request twice.
	Pure bool
	// Done must be called exactly once when a streamed answer is over.
	Done func(bytes int64, err error)

	model, instance, rule []byte
	begun                 bool
}

// AnswerHeaders adds the headers that tell where the answer comes from. It must be called
// right before the answer is written: from then on nobody else may answer.
func (a *Attempt) AnswerHeaders(out Out) {
	a.begun = true

	out.AddHeader("X-Sluice-Model", a.model)
	out.AddHeader("X-Sluice-Instance", a.instance)

	if len(a.rule) > 0 {
		out.AddHeader("X-Sluice-Rule", a.rule)
	}
}

// Result is how an attempt ended.
type Result struct {
	// Answered: the client has the answer, or its beginning. Nothing may follow.
	Answered bool
	// Streaming: the answer is under way; Attempt.Done ends it.
	Streaming bool
	// Upgraded: the engine agreed to a WebSocket; Call.Upgrade has its connection.
	Upgraded bool
	// Sent: bytes of the request may have reached the engine.
	Sent bool
	// NotStarted: the engine said that it did not start the request.
	NotStarted bool
	// BodyUsed: the stream has been read from, so that it cannot be sent again.
	BodyUsed bool
	// Status of the engine, if it answered.
	Status   int
	BytesOut int64
	// Outcome is what the attempt says about the instance.
	Outcome pool.Outcome
	// Err is a fault if nothing was answered.
	Err error
}
