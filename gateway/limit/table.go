package limit

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
)

// key is a keyed hash of a name or a network. Nobody can aim at the key of another, and of
// 100,000 names two meet once in three thousand million processes; they then share a bucket.
type key uint64

const (
	shardBits = 6
	numShards = 1 << shardBits
)

// table keeps one bucket per key, at most max of them and one more per shard. Lookups share a
// read lock on one of many shards. When the table is full, a new key's shard forgets a bucket
// that is full again (which loses nothing), or else the one that was not used for longest
// among a few. Shards have no bound of their own: with as many keys as there may be, some get
// more than others, and would forget callers who are there.
type table struct {
	rate   Rate
	seed   maphash.Seed
	max    int64
	count  atomic.Int64
	shards [numShards]shard
}

type shard struct {
	mu      sync.RWMutex // guards buckets
	buckets map[key]*bucket
	_       [32]byte
}

func newTable(r Rate, maxKeys int) *table {
	t := &table{rate: r, seed: maphash.MakeSeed(), max: int64(maxKeys)}
	for i := range t.shards {
		t.shards[i].buckets = make(map[key]*bucket)
	}

	return t
}

func (t *table) limited() bool { return t.rate.limited() }

// text is the key of a name.
func (t *table) text(name string) key { return key(maphash.String(t.seed, name)) }

// source is the key of the network that one customer of a provider usually has.
func (t *table) source(a netip.Addr) key {
	const prefix4, prefix6 = 3, 7 // bytes

	var network [9]byte

	if a = a.Unmap(); a.Is4() {
		b := a.As4()
		network[0] = 4

		copy(network[1:], b[:prefix4])
	} else if a.IsValid() {
		b := a.As16()
		network[0] = 6

		copy(network[1:], b[:prefix6])
	}

	return key(maphash.Bytes(t.seed, network[:]))
}

func (t *table) shard(k key) *shard { return &t.shards[k>>(64-shardBits)] }

// find returns the bucket of k, nil if there is none.
func (t *table) find(k key, now time.Time) *bucket {
	s := t.shard(k)

	s.mu.RLock()
	b := s.buckets[k]
	s.mu.RUnlock()

	if b != nil {
		b.used.Store(now.UnixNano())
	}

	return b
}

// get returns the bucket of k and makes it if need be.
func (t *table) get(k key, now time.Time) *bucket {
	if b := t.find(k, now); b != nil {
		return b
	}

	s := t.shard(k)

	s.mu.Lock()
	defer s.mu.Unlock()

	if b := s.buckets[k]; b != nil {
		return b
	}

	if t.count.Load() >= t.max && len(s.buckets) > 0 {
		s.evict(now)
		t.count.Add(-1)
	}

	b := newBucket(t.rate)
	b.used.Store(now.UnixNano())
	s.buckets[k] = b
	t.count.Add(1)

	return b
}

const evictSample = 16

// evict drops one bucket; map order makes the sample random enough.
func (s *shard) evict(now time.Time) {
	var (
		victim key
		oldest int64
		n      int
	)

	for k, b := range s.buckets {
		if b.full(now) {
			delete(s.buckets, k)

			return
		}

		if used := b.used.Load(); n == 0 || used < oldest {
			victim, oldest = k, used
		}

		if n++; n == evictSample {
			break
		}
	}

	delete(s.buckets, victim)
}

// size is the number of keys.
func (t *table) size() int { return int(t.count.Load()) }
