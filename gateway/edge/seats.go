package edge

import (
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// seats counts WebSockets against their limits.
type seats struct {
	mu       sync.Mutex // guards the rest
	total    int
	sources  map[netip.Addr]int
	services map[string]int
}

// seat is the place of one WebSocket. The zero value is none.
type seat struct {
	of      *seats
	limits  *WebSocket
	source  netip.Addr
	service string
}

var (
	errSeatsTotal   = fault.New(fault.Overloaded, "Too many WebSockets.").After(time.Second)
	errSeatsSource  = fault.New(fault.TooManyRequests, "Too many WebSockets from one source.").After(time.Second)
	errSeatsService = fault.New(fault.ConcurrencyLimit, "Too many WebSockets of this service.").After(time.Second)
)

// take counts a WebSocket in before anything is known of it but its source.
func (s *seats) take(source netip.Addr, l *WebSocket) (seat, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if l.Connections > 0 && s.total >= l.Connections {
		return seat{}, errSeatsTotal
	}

	if l.ConnectionsPerSource > 0 && s.sources[source] >= l.ConnectionsPerSource {
		return seat{}, errSeatsSource
	}

	s.total++
	s.sources[source]++

	return seat{of: s, limits: l, source: source}, nil
}

// admit counts it in for its service.
func (t *seat) admit(service string) error {
	s := t.of

	s.mu.Lock()
	defer s.mu.Unlock()

	if n := t.limits.ConnectionsPerService; n > 0 && s.services[service] >= n {
		return errSeatsService
	}

	s.services[service]++
	t.service = service

	return nil
}

// leave gives the place back. Calling it again does nothing.
func (t *seat) leave() {
	s := t.of
	if s == nil {
		return
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.total--

	if s.sources[t.source]--; s.sources[t.source] <= 0 {
		delete(s.sources, t.source)
	}

	if t.service != "" {
		if s.services[t.service]--; s.services[t.service] <= 0 {
			delete(s.services, t.service)
		}
	}

	t.of = nil
}
