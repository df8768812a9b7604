package limit

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// key is a text or an address; as a comparable struct it is looked up without allocation.
type key struct {
	text string
	addr netip.Addr
}

const numShards = 64

// table keeps one bucket per key, at most max of them. Lookups share a read lock on one of
// many shards. A full shard forgets a bucket that is full again (which loses nothing), or
// else the one that was not used for longest among a few.
type table struct {
	rate   Rate
	max    int // per shard
	shards [numShards]shard
}

type shard struct {
	mu      sync.RWMutex // guards entries
	entries map[key]*entry
	_       [32]byte
}

type entry struct {
	limiter *rate.Limiter
	used    atomic.Int64
}

func newTable(r Rate, maxKeys int) *table {
	t := &table{rate: r, max: max(maxKeys/numShards, 1)}
	for i := range t.shards {
		t.shards[i].entries = make(map[key]*entry)
	}

	return t
}

func (t *table) limited() bool { return t.rate.limited() }

func (t *table) shard(k key) *shard {
	h := uint64(14695981039346656037)
	for i := range len(k.text) {
		h = (h ^ uint64(k.text[i])) * 1099511628211
	}

	if k.addr.IsValid() {
		for _, b := range k.addr.As16() {
			h = (h ^ uint64(b)) * 1099511628211
		}
	}

	return &t.shards[(h^h>>32)%numShards]
}

// find returns the bucket of k, nil if there is none.
func (t *table) find(k key, now time.Time) *rate.Limiter {
	s := t.shard(k)

	s.mu.RLock()
	e := s.entries[k]
	s.mu.RUnlock()

	if e == nil {
		return nil
	}

	e.used.Store(now.UnixNano())

	return e.limiter
}

// get returns the bucket of k and makes it if need be.
func (t *table) get(k key, now time.Time) *rate.Limiter {
	if lim := t.find(k, now); lim != nil {
		return lim
	}

	s := t.shard(k)

	s.mu.Lock()
	defer s.mu.Unlock()

	if e := s.entries[k]; e != nil {
		return e.limiter
	}

	if len(s.entries) >= t.max {
		s.evict(now)
	}

	e := &entry{limiter: newLimiter(t.rate)}
	e.used.Store(now.UnixNano())
	s.entries[k] = e

	return e.limiter
}

const evictSample = 16

// evict drops one entry; map order makes the sample random enough.
func (s *shard) evict(now time.Time) {
	var (
		victim key
		oldest int64
		n      int
	)

	for k, e := range s.entries {
		if e.limiter.TokensAt(now) >= float64(e.limiter.Burst()) {
			delete(s.entries, k)

			return
		}

		if used := e.used.Load(); n == 0 || used < oldest {
			victim, oldest = k, used
		}

		if n++; n == evictSample {
			break
		}
	}

	delete(s.entries, victim)
}

// size is the number of keys.
func (t *table) size() int {
	n := 0

	for i := range t.shards {
		t.shards[i].mu.RLock()
		n += len(t.shards[i].entries)
		t.shards[i].mu.RUnlock()
	}

	return n
}
