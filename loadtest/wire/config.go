package wire

import (
	"sync/atomic"
	"time"
)

// Schedule gives the moments at which requests are meant to start, as offsets from the start of the run.
type Schedule interface {
	// Next returns the next moment; false when there is none.
	Next() (time.Duration, bool)
}

// Source makes requests. It belongs to one Loop.
type Source interface {
	// Append appends a whole request, or the payload of a WebSocket message, and tells its target in
	// the mix. now is the offset from the start of the run. It may return dst's own backing array or
	// any other bytes, which must stay as they are until the next call.
	Append(dst []byte, now int64) (raw []byte, target int)
}

// Config of a Loop.
type Config struct {
	Endpoint Endpoint
	// Schedule makes the loop open; nil makes it closed.
	Schedule Schedule
	// Connections is the number of callers of a closed loop, and the most that an open loop makes.
	Connections int
	// Initial is how many connections an open loop makes before the start.
	Initial int
	// InFlight is the number of messages under way on one WebSocket; 0 means 1.
	InFlight int
	// Binary sends WebSocket messages as binary, not as text.
	Binary bool
	// Timeout bounds one request, from the moment it is written.
	Timeout time.Duration
	// Pace is the shortest time between two starts; 0 means none.
	Pace time.Duration
	// Spin is how long an open loop does not sleep before a request is due; 0 lets it sleep all the time.
	Spin time.Duration
	// HeadOnly tells that requests use HEAD, whose answers have no body.
	HeadOnly bool
	// Stream looks for server-sent events in answers.
	Stream bool
	// Seed of masks.
	Seed uint64
}

// Shared is what all Loops of one run look at.
type Shared struct {
	base  time.Time
	stop  atomic.Int64 // no request starts behind it
	grace atomic.Int64 // how long requests may take to end behind it
	left  atomic.Int64 // requests that may still start
	bound bool
}

// NewShared prepares a run: stop is when the last request may start, grace how long requests may take
// behind it, limit the number of requests, 0 for any.
func NewShared(stop, grace time.Duration, limit int64) *Shared {
	s := &Shared{bound: limit > 0}
	s.stop.Store(int64(stop))
	s.grace.Store(int64(grace))
	s.left.Store(limit)

	return s
}

// Start begins the run. It must be called before any Loop runs.
func (s *Shared) Start() { s.base = time.Now() }

// Now is the offset from the start.
func (s *Shared) Now() time.Duration { return time.Since(s.base) }

// Begun is the moment of the start.
func (s *Shared) Begun() time.Time { return s.base }

// Stop ends the run early: nothing starts any more, and what is under way has grace to end.
func (s *Shared) Stop(grace time.Duration) {
	s.grace.Store(min(s.grace.Load(), int64(grace)))
	s.stop.Store(min(s.stop.Load(), int64(s.Now())))
}

// claim takes one of the requests that may start.
func (s *Shared) claim() bool { return !s.bound || s.left.Add(-1) >= 0 }

// Stats is what a Loop did beside its requests.
type Stats struct {
	Dials, DialErrors int64
	Connections       int           // most at one time
	CPU, Wall         time.Duration // of the thread
	Spun              time.Duration // part of CPU that was spent on waiting without sleep
	Cut               int64         // requests that were under way when the grace was over
	Starved           int64         // requests that were due when no connection was free
}
