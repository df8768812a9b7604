// Package plan turns routing snapshots into the one immutable Plan that requests read.
//
// A Compiler owns what outlives a snapshot: the pool of every model version, the limits and
// the turn counter of every service, keyed by their ids. A new Plan borrows them; what no
// route names any more is closed after the swap. Compiling happens on one goroutine, beside
// the requests; a route whose revision did not change is taken over as it is.
//
// A Follower keeps the newest plan behind one atomic pointer. A snapshot that does not
// compile changes nothing. The last good snapshot is kept on disk, so that a gateway starts
// and serves while control is away.
package plan

import (
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
)

// Guard says who calls and what they may do: the credentials and rights of one snapshot.
// A NewGuard makes one per snapshot.
type Guard interface {
	// Verify finds the principal; the error is a fault. allowed is what the service accepts.
	Verify(r *auth.Request, allowed auth.AuthSet) (*auth.Principal, error)
	// Authorize reports by a fault that p may not do action on the service.
	Authorize(p *auth.Principal, action, projectID, serviceID string) error
}

// Service is what the gateway knows about one service.
type Service struct {
	ID, Name, Project string
	Revision          int64
	Running           bool
	WebSocket         bool
	Allowed           auth.AuthSet
	Route             *router.Route
	Limits            *limit.Service
	// BodyLimit in bytes; Timeout in all, PerTry for one attempt (0: none of its own).
	BodyLimit int64
	// MessageLimit bounds a WebSocket message; 0 if the service sets no limit on bodies.
	MessageLimit    int64
	Timeout, PerTry time.Duration
	// StreamIdle is how long a streamed answer may pause; 0: what the forwarder allows.
	StreamIdle time.Duration
	Attempts   int
	state      *state
}

// MarkAble remembers that the service was able to serve at the time of now.
func (s *Service) MarkAble(now time.Time) {
	// Once a second is enough, so that requests seldom write to the shared line.
	if ms := now.UnixMilli(); ms-s.state.able.Load() > 1000 {
		s.state.able.Store(ms)
	}
}

// WasAble reports whether the service was able to serve not longer than d before now.
func (s *Service) WasAble(now time.Time, d time.Duration) bool {
	return now.UnixMilli()-s.state.able.Load() <= d.Milliseconds()
}

// Plan is one compiled snapshot. It never changes.
type Plan struct {
	Revision int64
	Guard    Guard
	Services router.Table[*Service]
}

// state is what survives plans.
type state struct {
	limits *limit.Service
	turns  *router.Turns
	pools  map[string]*pool.Pool // by model id
	models map[string]string     // name and version by model id
	able   atomic.Int64          // ms since the epoch
}
