package edge

import (
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// Door names a listener.
type Door uint8

// Doors.
const (
	DoorHTTP Door = iota
	DoorHTTPS
	NumDoors
)

// String is the door's metric label.
func (d Door) String() string {
	if d == DoorHTTPS {
		return "https"
	}

	return "http"
}

// Refusal says why a connection was not served.
type Refusal uint8

// Refusals.
const (
	RefusedTotal  Refusal = iota // too many connections
	RefusedSource                // too many from one source
	RefusedTLS                   // handshake failed or took too long
	NumRefusals
)

// String is the refusal's metric label.
func (r Refusal) String() string {
	return [NumRefusals]string{"total_limit", "source_limit", "tls_handshake"}[r%NumRefusals]
}

// Hooks announce what happens at the doors. Every field may be nil; they run on the request path
// and must not block.
type Hooks struct {
	// Started is called when a request was let in.
	Started func(d Door)
	// Ended is called once for each Started, after the answer was written.
	Ended func(d Door, r *gateway.Record)
	// SocketOpened stands in for Ended when the request became a WebSocket, and SocketClosed is called once for
	// each, when it is over.
	SocketOpened func(d Door, r *gateway.Record)
	SocketClosed func(d Door, r *gateway.Record)
	// Rejected is called for a request that the guard refused; it was never Started.
	Rejected func(d Door, code fault.Code)
	// Opened and Closed frame a connection. Refused stands in for both, except that a connection whose
	// handshake fails was Opened.
	Opened  func(d Door)
	Closed  func(d Door, age time.Duration)
	Refused func(d Door, why Refusal)
	// LogDropped counts access log lines that found the queue full.
	LogDropped func()
	// Draining tells the progress of a drain: requests in flight, and how many were cut.
	Draining func(on bool, inflight, cut int)
	// Panicked counts panics that became a 500.
	Panicked func()
}

func (h *Hooks) fill() {
	if h.Started == nil {
		h.Started = func(Door) {}
	}

	if h.Ended == nil {
		h.Ended = func(Door, *gateway.Record) {}
	}

	if h.SocketOpened == nil {
		h.SocketOpened = func(Door, *gateway.Record) {}
	}

	if h.SocketClosed == nil {
		h.SocketClosed = func(Door, *gateway.Record) {}
	}

	if h.Rejected == nil {
		h.Rejected = func(Door, fault.Code) {}
	}

	if h.Opened == nil {
		h.Opened = func(Door) {}
	}

	if h.Closed == nil {
		h.Closed = func(Door, time.Duration) {}
	}

	if h.Refused == nil {
		h.Refused = func(Door, Refusal) {}
	}

	if h.LogDropped == nil {
		h.LogDropped = func() {}
	}

	if h.Draining == nil {
		h.Draining = func(bool, int, int) {}
	}

	if h.Panicked == nil {
		h.Panicked = func() {}
	}
}
