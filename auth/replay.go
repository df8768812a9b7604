package auth

import (
	"encoding/binary"
	"math"
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
	a, b uint64 // the first half of the signature
	// It ends when both are over: the time of day, in seconds since the epoch, and the clock that nobody
	// sets. So it is remembered when the time of day was set forward for a while, or back.
	expires, steady uint32
}

func (e *replayEntry) live(now moment) bool {
	return int64(e.expires) >= now.wall || int64(e.steady) >= now.steady
}

// steadyBase keeps the steady clock positive for dates before the start, which tests use.
const steadyBase = 1 << 31

// moment is the time of day, in seconds since the epoch, and seconds on a clock that nobody sets.
type moment struct{ wall, steady int64 }

func newReplayCache(entries int) *replayCache {
	n := bits.Len(uint((entries - 1) / replayWays))

	return &replayCache{sets: make([]replaySet, 1<<n)}
}

// use reports whether a signature is new, and whether remembering it pushed out one that could
// still be used. It expires at a time of day, in seconds since the epoch.
func (c *replayCache) use(signature *[32]byte, now moment, expires int64) (fresh, evicted bool) {
	a, b := binary.LittleEndian.Uint64(signature[:]), binary.LittleEndian.Uint64(signature[8:])
	set := &c.sets[binary.LittleEndian.Uint64(signature[16:])&uint64(len(c.sets)-1)]

	set.mu.Lock()
	defer set.mu.Unlock()

	victim := &set.ways[0]

	for i := range set.ways {
		e := &set.ways[i]

		alive := e.live(now)
		if e.a == a && e.b == b && alive {
			return false, false
		}

		if victim.live(now) && (!alive || e.expires < victim.expires) {
			victim = e
		}
	}

	evicted = victim.live(now)
	*victim = replayEntry{a: a, b: b, expires: seconds(expires), steady: seconds(now.steady + expires - now.wall)}

	return true, evicted
}

// seconds fits a time into an entry; it lasts until 2106.
func seconds(n int64) uint32 { return uint32(min(max(n, 0), math.MaxUint32)) } //nolint:gosec // bounded
