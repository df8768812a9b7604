package auth

import (
	"encoding/binary"
	"math/bits"
	"sync"
)

// replayCache remembers the signatures that were used, as long as they would verify again. It is
// a table of fixed size; when a set is full, the signature that ends first makes room, which is
// reported, because that one could now be used again.
type replayCache struct {
	sets []replaySet
}

const replayWays = 8

type replaySet struct {
	mu   sync.Mutex // guards ways
	ways [replayWays]replayEntry
}

type replayEntry struct {
	a, b    uint64 // the first half of the signature
	expires int64  // seconds since the epoch
}

func newReplayCache(entries int) *replayCache {
	n := bits.Len(uint((entries - 1) / replayWays))

	return &replayCache{sets: make([]replaySet, 1<<n)}
}

// use reports whether a signature is new, and whether remembering it pushed out one that could
// still be used. All times are seconds since the epoch.
func (c *replayCache) use(signature *[32]byte, now, expires int64) (fresh, evicted bool) {
	a, b := binary.LittleEndian.Uint64(signature[:]), binary.LittleEndian.Uint64(signature[8:])
	set := &c.sets[binary.LittleEndian.Uint64(signature[16:])&uint64(len(c.sets)-1)]

	set.mu.Lock()
	defer set.mu.Unlock()

	victim := &set.ways[0]

	for i := range set.ways {
		e := &set.ways[i]
		if e.a == a && e.b == b && e.expires >= now {
			return false, false
		}

		if e.expires < victim.expires {
			victim = e
		}
	}

	evicted = victim.expires >= now
	*victim = replayEntry{a: a, b: b, expires: expires}

	return true, evicted
}
