package serve

import (
	"context"
	"time"
)

// Header reads request headers.
type Header interface {
	// Get returns the first value of a header, nil if absent. The name is matched without regard to case.
	Get(name string) []byte
}

// Exchange is one request and its answer, whatever door it came through.
type Exchange struct {
	// Method, Path (decoded, without query) and Body as received.
	Method, Path []byte
	Body         []byte
	Header       Header
	// TakeBody, when set, gives Body away for good and takes spare, which may be nil, in its place.
	TakeBody func(spare []byte) []byte
	// Context ends when the client is gone.
	Context context.Context //nolint:containedctx // an Exchange is the request itself
	Start   time.Time

	// Status of the answer.
	Status int
	// Type of the answer's body; empty without one.
	Type string
	// Out is the answer's body. The App appends to it; a door may set a buffer with capacity before.
	Out []byte
	// Extra headers of the answer, name after value pairs.
	Extra []HeaderLine
}

// HeaderLine is one header of an answer.
type HeaderLine struct{ Name, Value string }

func (x *Exchange) add(name, value string) {
	x.Extra = append(x.Extra, HeaderLine{name, value})
}

const typeJSON = "application/json"

// json starts a JSON answer.
func (x *Exchange) json(status int) {
	x.Status, x.Type = status, typeJSON
}
