package gateway

import (
	"context"
	"io"
	"net/netip"
	"time"

	"github.com/sluice-gateway/sluice/auth"
)

// Header reads request headers as they came, before anything is rewritten.
type Header interface {
	// Get returns the first value of a header, nil if absent. name is in lower case.
	Get(name string) []byte
	// Each calls f for every header line, in order, until f returns false.
	Each(f func(name, value []byte) bool)
}

// Body is the request body. Exactly one of Bytes and Stream is used, once.
type Body interface {
	// Length is the declared Content-Length, 0 without a body, -1 if chunked.
	Length() int64
	// Bytes reads all of it. Over limit it returns a fault (BodyTooLarge); a client that
	// is too slow, lies or vanishes gives a fault as well. The slice lives as long as the Call.
	Bytes(limit int64) ([]byte, error)
	// Stream gives it as it arrives, cut off with the same fault at limit.
	Stream(limit int64) io.Reader
}

// Patient is what a stream of a Body may be: its reads wait no longer than until a point of time, and fail
// with a fault of the client then.
type Patient interface {
	Until(t time.Time)
}

// Out takes the answer. Either Set (a whole answer) or Stream is called, at most once,
// after all AddHeader calls.
type Out interface {
	// AddHeader appends a response header; both arguments are copied.
	AddHeader(name string, value []byte)
	// Set gives a whole answer; body is copied.
	Set(status int, body []byte)
	// Stream sends the head now and then each chunk that next returns, flushed one by one,
	// until next returns io.EOF. Another error ends the connection without a proper end, so
	// that the client can tell. next is called from the door's goroutine, possibly after Do returned;
	// done is called exactly once when the stream is over. Until done has returned the Call and
	// everything in it stay valid, also after Do returned: a streamed call is settled by done.
	Stream(status int, next func() ([]byte, error), done func(err error))
}

// Call is one request in the corridor.
type Call struct {
	// ID is the request id: the client's X-Request-Id if it is acceptable, else a new one.
	ID string
	// Method, Target (as on the request line), Path and Query (both cut from Target, without "?").
	Method, Target, Path, Query []byte
	Host                        []byte
	Header                      Header
	Body                        Body
	Out                         Out
	// Remote is the client, as the door trusts it (after trusted proxies).
	Remote netip.AddrPort
	TLS    bool
	Start  time.Time
	// Context ends when the client is gone or the door shuts down hard.
	Context context.Context //nolint:containedctx // a Call is the request itself and lives as long as its context
	// Upgrade is set by the door if the call asks for a WebSocket and its handshake is in order.
	Upgrade *Upgrade

	// Filled along the way and read by settle.
	Record Record
}

// Record is the one event of a request: filled along the way, settled once.
type Record struct {
	Outcome   Outcome
	Status    int
	Principal *auth.Principal // nil until verified
	ServiceID string
	ProjectID string
	Model     string // name/version
	Instance  string
	Rule      string
	Attempts  int
	BytesIn   int64
	BytesOut  int64
	Err       error // for the log; never shown
	// CloseCode, MessagesIn and MessagesOut describe a WebSocket when it is over.
	CloseCode               uint16
	MessagesIn, MessagesOut int64
	// Durations from Start; zero if the room was not reached.
	Verified, Admitted, Picked, FirstByte, Total time.Duration
}

// Outcome says how a request ended, for metrics.
type Outcome uint8

// Outcomes.
const (
	OutcomeUnknown Outcome = iota
	Served
	UpstreamStatus      // the engine answered 4xx or 5xx
	RejectedBad         // the request itself
	RejectedAuth        // 401
	RejectedForbidden   // 403
	RejectedNotFound    // 404
	RejectedNotRunning  // service stopped
	RejectedRate        // 429
	RejectedOverload    // 503, our queue
	RejectedNoInstance  // 503, nothing ready
	UpstreamUnreachable // dial, reset
	UpstreamTimeout     // deadline
	UpstreamError       // garbage or broken off
	ClientGone
	Panicked
	NumOutcomes
)

//nolint:gochecknoglobals // constant table
var outcomeNames = [NumOutcomes]string{
	"unknown", "served", "upstream_status", "rejected_bad", "rejected_auth", "rejected_forbidden",
	"rejected_not_found", "rejected_not_running", "rejected_rate", "rejected_overload", "rejected_no_instance",
	"upstream_unreachable", "upstream_timeout", "upstream_error", "client_gone", "panicked",
}

// String is the outcome's metric label.
func (o Outcome) String() string {
	if o < NumOutcomes {
		return outcomeNames[o]
	}

	return outcomeNames[OutcomeUnknown]
}
