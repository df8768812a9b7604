package tunnel

import (
	"runtime/metrics"
	"sync/atomic"
	"time"
)

const (
	// trimFrom is how many tunnels there have to be for their memory to matter.
	trimFrom = 1000
	// trimCalm is how long no tunnel may have been opened.
	trimCalm = 3 * time.Second
	// trimEvery is how often memory is given back at most: each time costs a collection.
	trimEvery = 20 * time.Second
	// trimShare is how much memory for each tunnel has to be free for that to be worth it.
	trimShare = 1 << 10
)

// trim decides when memory that nobody uses goes back to the system. The Go runtime keeps as much as is in use, for garbage to come:
// what thousands of handshakes left behind would stay for hours with sockets that are silent.
type trim struct {
	opened atomic.Int64
	spare  func() int64 // bytes that a collection could give back

	// Only sweep uses the rest.
	seen  int64
	since time.Time // when opened was last seen to grow
	last  time.Time
}

// due reports whether it is time, with so many tunnels open.
func (t *trim) due(now time.Time, open int64) bool {
	if n := t.opened.Load(); n != t.seen {
		t.seen, t.since = n, now
	}

	if open < trimFrom || now.Sub(t.since) < trimCalm || !t.last.IsZero() && now.Sub(t.last) < trimEvery {
		return false
	}

	// Looking is not for every sweep either.
	t.last = now

	return t.spare() >= open*trimShare
}

// spare asks the runtime for free memory that it has not returned, and for garbage.
func spare() int64 {
	s := []metrics.Sample{
		{Name: "/memory/classes/heap/free:bytes"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/gc/heap/live:bytes"},
	}
	metrics.Read(s)

	for i := range s {
		if s[i].Value.Kind() != metrics.KindUint64 {
			return 0
		}
	}

	free, objects, live := s[0].Value.Uint64(), s[1].Value.Uint64(), s[2].Value.Uint64()

	return int64(free) + max(int64(objects)-int64(live), 0)
}
