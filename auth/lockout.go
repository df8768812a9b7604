package auth

import (
	"encoding/binary"
	"hash/maphash"
	"math/bits"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// lockout counts bad signatures in a row for a key and a source, and locks that pair for a while.
// The same key from elsewhere is not touched, so nobody can lock out others by guessing.
//
// It is a table of fixed size. When a set is full, the pair that failed longest ago and is not
// locked makes room.
type lockout struct {
	cfg  Config
	seed maphash.Seed
	sets []lockSet
	used atomic.Bool // false until the first failure: then there is nothing to look up
}

const lockWays = 8

type lockSet struct {
	mu   sync.Mutex // guards ways
	ways [lockWays]lockEntry
}

type lockEntry struct {
	id    uint64 // 0 means empty
	fails int
	last  int64 // time of the last failure, ns since the epoch
	until int64 // locked until then
}

func newLockout(cfg Config) *lockout {
	n := bits.Len(uint((cfg.LockEntries - 1) / lockWays))

	return &lockout{cfg: cfg, seed: maphash.MakeSeed(), sets: make([]lockSet, 1<<n)}
}

// source is the part of an address that a lock holds for.
func (l *lockout) source(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap()

	n := l.cfg.LockPrefix6
	if addr.Is4() {
		n = l.cfg.LockPrefix4
	}

	p, err := addr.Prefix(n)
	if err != nil { // no address: all such sources are one
		return netip.Prefix{}
	}

	return p
}

// id is never 0.
func (l *lockout) id(key []byte, addr netip.Addr) uint64 {
	var buf [24]byte

	binary.LittleEndian.PutUint64(buf[:], maphash.Bytes(l.seed, key))

	if p := l.source(addr); p.IsValid() {
		a := p.Addr().As16()
		copy(buf[8:], a[:])
	}

	return maphash.Bytes(l.seed, buf[:]) | 1
}

// check returns how long the pair stays locked, and whether it has failed at all.
func (l *lockout) check(id uint64, now time.Time) (left time.Duration, failed bool) {
	if !l.used.Load() {
		return 0, false
	}

	set := l.set(id)
	set.mu.Lock()
	defer set.mu.Unlock()

	e := set.find(id)
	if e == nil {
		return 0, false
	}

	e.calibrate(now.UnixNano())

	return max(0, time.Duration(e.until-now.UnixNano())), true
}

// fail counts a bad signature; it reports whether the pair is locked by it.
func (l *lockout) fail(id uint64, now time.Time) bool {
	l.used.Store(true)

	set := l.set(id)
	set.mu.Lock()
	defer set.mu.Unlock()

	ns := now.UnixNano()

	e := set.find(id)
	if e == nil {
		e = set.victim(ns)
		*e = lockEntry{id: id}
	}

	e.calibrate(ns)

	if e.until != 0 && e.until <= ns || ns-e.last > int64(l.cfg.LockFor) { // an old story
		e.fails, e.until = 0, 0
	}

	e.fails++
	e.last = ns

	if e.fails < l.cfg.LockAfter || e.until > ns {
		return false
	}

	e.until = ns + int64(l.cfg.LockFor)

	return true
}

// calibrate moves an entry along when the clock was set back: a lock lasts no longer for it.
func (e *lockEntry) calibrate(now int64) {
	back := e.last - now
	if back <= 0 {
		return
	}

	e.last = now

	if e.until != 0 {
		e.until -= back
	}
}

// clear forgets the failures of a pair after a good signature.
func (l *lockout) clear(id uint64) {
	set := l.set(id)
	set.mu.Lock()
	defer set.mu.Unlock()

	if e := set.find(id); e != nil {
		*e = lockEntry{}
	}
}

func (l *lockout) set(id uint64) *lockSet { return &l.sets[(id>>1)&uint64(len(l.sets)-1)] }

func (s *lockSet) find(id uint64) *lockEntry {
	for i := range s.ways {
		if s.ways[i].id == id {
			return &s.ways[i]
		}
	}

	return nil
}

func (s *lockSet) victim(now int64) *lockEntry {
	v := &s.ways[0]

	for i := range s.ways {
		e := &s.ways[i]
		if e.id == 0 {
			return e
		}

		if locked, vLocked := e.until > now, v.until > now; vLocked && !locked || vLocked == locked && e.last < v.last {
			v = e
		}
	}

	return v
}
