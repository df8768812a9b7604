package identity

import (
	"net/netip"
	"sync"
	"time"
)

// Bounds of the lockout.
const (
	failuresPerUser   = 5   // wrong passwords in a row for one user from one source
	failuresPerSource = 100 // for any users from one source, so that names cannot be tried through
	lockFor           = 15 * time.Minute
	goodFor           = 24 * time.Hour
	maxTracked        = 16 << 10
)

// lockout counts wrong passwords. It counts per user and source, so that nobody can lock
// others out by failing on purpose. It forgets the oldest when it is full.
type lockout struct {
	now func() time.Time

	mu      sync.Mutex // guards entries
	entries map[lockKey]*lockEntry
}

type lockKey struct {
	user   string // "" counts for the source alone
	source netip.Prefix
}

type lockEntry struct {
	failures int
	last     time.Time
	good     time.Time // of the last right password
}

func newLockout(now func() time.Time) *lockout {
	return &lockout{now: now, entries: make(map[lockKey]*lockEntry)}
}

// lockedFor tells how long user may not try from addr; 0 means it may.
func (l *lockout) lockedFor(user string, addr netip.Addr) time.Duration {
	source := sourceOf(addr)
	now := l.now()

	l.mu.Lock()
	defer l.mu.Unlock()

	own := lockKey{user, source}
	left := l.left(own, failuresPerUser, now)

	// Who has proved to know the password from here is not one who tries names through.
	if e := l.entries[own]; e != nil && now.Sub(e.good) < goodFor {
		return left
	}

	return max(left, l.left(lockKey{"", source}, failuresPerSource, now))
}

func (l *lockout) left(k lockKey, limit int, now time.Time) time.Duration {
	e := l.entries[k]
	if e == nil || e.failures < limit {
		return 0
	}

	return max(e.last.Add(lockFor).Sub(now), 0)
}

// failed counts a wrong password.
func (l *lockout) failed(user string, addr netip.Addr) {
	source := sourceOf(addr)
	now := l.now()

	l.mu.Lock()
	defer l.mu.Unlock()

	for _, k := range []lockKey{{user, source}, {"", source}} {
		e := l.entry(k, now)

		if now.Sub(e.last) > lockFor {
			e.failures = 0
		}

		e.failures++
		e.last = now
	}
}

// succeeded forgets the failures of user from addr. Those of the source stay, so that an
// attacker cannot clear them with an account of his own; they do not hold for this user.
func (l *lockout) succeeded(user string, addr netip.Addr) {
	now := l.now()

	l.mu.Lock()
	defer l.mu.Unlock()

	*l.entry(lockKey{user, sourceOf(addr)}, now) = lockEntry{last: now, good: now}
}

// entry returns the entry of k, making it and room for it if need be.
func (l *lockout) entry(k lockKey, now time.Time) *lockEntry {
	e := l.entries[k]
	if e == nil {
		l.makeRoom(now)

		e = &lockEntry{}
		l.entries[k] = e
	}

	return e
}

// makeRoom drops what is over, and when nothing is, the oldest of a sample.
func (l *lockout) makeRoom(now time.Time) {
	if len(l.entries) < maxTracked {
		return
	}

	const sample = 64

	var (
		oldest lockKey
		at     = now.Add(time.Hour)
		seen   int
	)

	for k, e := range l.entries { // in random order
		if now.Sub(e.last) > lockFor {
			delete(l.entries, k)
		} else if e.last.Before(at) {
			oldest, at = k, e.last
		}

		if seen++; seen >= sample {
			break
		}
	}

	if len(l.entries) >= maxTracked {
		delete(l.entries, oldest)
	}
}

// sourceOf is the address, or the /64 of an IPv6 address, which is one customer.
func sourceOf(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()
	bits := addr.BitLen()

	if addr.Is6() {
		bits = 64
	}

	p, err := addr.WithZone("").Prefix(bits)
	if err != nil {
		return netip.Prefix{} // the zero address, as of a Unix socket
	}

	return p
}
