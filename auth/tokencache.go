package auth

import (
	"bytes"
	"hash/maphash"
	"math/bits"
	"sync/atomic"
	"time"
)

// tokenCache remembers tokens whose signature was verified. It is a table of fixed size in which
// each token has a few places, so it is bounded without bookkeeping, and reading takes no lock.
// Only tokens that verified get in, so strangers cannot push anything out.
//
// A place is found by a keyed hash of 64 bits, which is five times faster than SHA-256, and the
// token is then compared in full: the hash only finds, it proves nothing.
type tokenCache struct {
	seed  maphash.Seed
	sets  []tokenSet
	shift uint
}

const tokenWays = 4

type tokenSet [tokenWays]atomic.Pointer[tokenEntry]

type tokenEntry struct {
	hash      uint64
	text      []byte
	claims    TokenClaims
	by        signedBy
	principal Principal
	// notBefore and expires are checked on each use, in ns since the epoch.
	notBefore, expires int64
	// good is the generation of the Directory against which revocation, key and user were
	// checked last. Another Directory means: check again.
	good atomic.Uint64
	used atomic.Int64 // ns since the epoch, coarse
}

func newTokenCache(entries int) *tokenCache {
	n := max(1, bits.Len(uint((entries-1)/tokenWays)))

	return &tokenCache{seed: maphash.MakeSeed(), sets: make([]tokenSet, 1<<n), shift: uint(64 - n)}
}

func (c *tokenCache) get(token []byte) (hash uint64, e *tokenEntry) {
	hash = maphash.Bytes(c.seed, token)
	set := &c.sets[hash>>c.shift]

	for i := range set {
		if e := set[i].Load(); e != nil && e.hash == hash && bytes.Equal(e.text, token) {
			return hash, e
		}
	}

	return hash, nil
}

// put adds e in an empty place, else in that of an expired or the longest unused token.
func (c *tokenCache) put(e *tokenEntry, now int64) {
	set := &c.sets[e.hash>>c.shift]
	victim, oldest := 0, int64(1<<63-1)

	for i := range set {
		old := set[i].Load()
		if old == nil || old.expires <= now || old.hash == e.hash {
			victim = i

			break
		}

		if used := old.used.Load(); used < oldest {
			victim, oldest = i, used
		}
	}

	set[victim].Store(e)
}

// coarse is how exact tokenEntry.used is: written seldom, so that the line stays shared.
const coarse = int64(time.Second)

func (e *tokenEntry) touch(now int64) {
	if now-e.used.Load() > coarse {
		e.used.Store(now)
	}
}
