package gateway

import (
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// unproven bounds the memory of bodies that are read to check a signature over them: until then
// nobody has proved anything, and whoever knows an access key, which is no secret, can send them.
// One source gets half of it at most, so that there is room for others.
type unproven struct {
	most int64

	mu      sync.Mutex // guards held and sources
	held    int64
	sources map[netip.Addr]int64
}

// smallBody is what is not counted: a connection may always hold so much.
const smallBody = 64 << 10

// Constant faults, so that refusing allocates nothing.
var (
	errUnproven       = fault.New(fault.Overloaded, "Too many signed bodies are being read.").After(time.Second)
	errUnprovenSource = fault.New(fault.TooManyRequests, "Too many signed bodies are being read from this source.").After(time.Second)
)

// sourceOf is the address, or the /64 of an IPv6 address, which is one customer.
func sourceOf(a netip.Addr) netip.Addr {
	const customer = 64

	if a = a.Unmap(); a.Is6() {
		if p, err := a.WithZone("").Prefix(customer); err == nil {
			return p.Addr()
		}
	}

	return a
}

// take reserves n bytes for a source.
func (u *unproven) take(from netip.Addr, n int64) error {
	u.mu.Lock()
	defer u.mu.Unlock()

	if u.held+n > u.most {
		return errUnproven
	}

	if u.sources[from]+n > u.most/2 {
		return errUnprovenSource
	}

	u.held += n
	u.sources[from] += n

	return nil
}

// give returns them.
func (u *unproven) give(from netip.Addr, n int64) {
	u.mu.Lock()
	defer u.mu.Unlock()

	u.held -= n

	if u.sources[from] -= n; u.sources[from] <= 0 {
		delete(u.sources, from)
	}
}

// bodyForSignature reads the body of a request that nobody has authenticated.
func (w *walk) bodyForSignature() ([]byte, error) {
	limit := min(w.bodyLimit, w.g.cfg.SignedBytes)

	n := w.call.Body.Length()
	if n > limit {
		return nil, errTooLarge
	}

	if n < 0 { // whatever comes
		n = limit
	}

	if n > smallBody && w.g.unproven.most > 0 && w.reserved == 0 {
		if err := w.g.unproven.take(sourceOf(w.call.Remote.Addr()), n); err != nil {
			return nil, err
		}

		w.reserved = n
	}

	if err := w.loadBody(limit); err != nil {
		return nil, err
	}

	return w.body, nil
}

// proven gives the reservation back once the verdict is there.
func (w *walk) proven() {
	if w.reserved > 0 {
		w.g.unproven.give(sourceOf(w.call.Remote.Addr()), w.reserved)
		w.reserved = 0
	}
}
