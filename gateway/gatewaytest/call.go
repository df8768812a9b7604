// Package gatewaytest has stand-ins for the neighbours of the corridor: a door with its
// calls, a guard, and plans that are put into force by hand.
package gatewaytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// Header is a list of header lines.
type Header [][2]string

// Get implements gateway.Header.
func (h Header) Get(name string) []byte {
	for _, line := range h {
		if strings.EqualFold(line[0], name) {
			return []byte(line[1])
		}
	}

	return nil
}

// Each implements gateway.Header.
func (h Header) Each(f func(name, value []byte) bool) {
	for _, line := range h {
		if !f([]byte(line[0]), []byte(line[1])) {
			return
		}
	}
}

// Body is a request body; Declared overrides its length if it is not 0.
type Body struct {
	Data     []byte
	Declared int64
	Err      error // after the data
}

// Length implements gateway.Body.
func (b *Body) Length() int64 {
	if b.Declared != 0 {
		return b.Declared
	}

	return int64(len(b.Data))
}

// Bytes implements gateway.Body.
func (b *Body) Bytes(limit int64) ([]byte, error) {
	if int64(len(b.Data)) > limit {
		return nil, fault.New(fault.BodyTooLarge, "")
	}

	return b.Data, b.Err
}

// Stream implements gateway.Body.
func (b *Body) Stream(limit int64) io.Reader {
	if int64(len(b.Data)) > limit {
		return io.MultiReader(bytes.NewReader(b.Data[:limit]), failing{fault.New(fault.BodyTooLarge, "")})
	}

	if b.Err != nil {
		return io.MultiReader(bytes.NewReader(b.Data), failing{b.Err})
	}

	return bytes.NewReader(b.Data)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// Out records the answer. Answers counts Set and Stream calls.
type Out struct {
	mu       sync.Mutex
	Status   int
	Headers  Header
	Body     []byte
	Answers  int
	Streamed bool
	// End is what a stream ended with; nil for a proper end.
	End error
	// OnChunk sees each piece of a stream; an error stops the stream, as a client that left.
	OnChunk func(piece []byte) error
}

// AddHeader implements gateway.Out.
func (o *Out) AddHeader(name string, value []byte) {
	o.Headers = append(o.Headers, [2]string{strings.Clone(name), string(value)})
}

// Set implements gateway.Out.
func (o *Out) Set(status int, body []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()

	o.Answers++
	o.Status, o.Body = status, append([]byte(nil), body...)
}

// Stream implements gateway.Out; it reads the stream to its end before it returns.
func (o *Out) Stream(status int, next func() ([]byte, error), done func(error)) {
	o.mu.Lock()
	o.Answers++
	o.Status, o.Streamed = status, true
	o.mu.Unlock()

	for {
		piece, err := next()
		o.Body = append(o.Body, piece...)

		if err == nil && o.OnChunk != nil {
			err = o.OnChunk(piece)
		}

		if errors.Is(err, io.EOF) {
			done(nil)

			return
		}

		if err != nil {
			o.End = err
			done(err)

			return
		}
	}
}

// Header returns the first value of a response header.
func (o *Out) Header(name string) string { return string(o.Headers.Get(name)) }

// NewCall makes a call as a door would. target is path and query.
func NewCall(ctx context.Context, method, target string, body []byte, header ...[2]string) (*gateway.Call, *Out) {
	out := &Out{}
	path, query, _ := strings.Cut(target, "?")

	return &gateway.Call{
		ID: "req-1", Method: []byte(method), Target: []byte(target), Path: []byte(path), Query: []byte(query),
		Host: []byte("api.example"), Header: Header(header), Body: &Body{Data: body}, Out: out,
		Remote: netip.MustParseAddrPort("192.0.2.7:5000"), Start: time.Now(), Context: ctx,
	}, out
}
