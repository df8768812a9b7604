package tunnel

import "time"

// bucket is a token bucket that may go into debt, so that what has arrived already is let through
// and the next read waits instead. A rate that is not positive bounds nothing.
type bucket struct {
	rate, burst float64 // per second; 0 is no bound
	tokens      float64
	last        time.Time
}

func newBucket(perSecond, seconds int, now time.Time) bucket {
	if perSecond <= 0 {
		return bucket{}
	}

	return bucket{rate: float64(perSecond), burst: float64(perSecond * seconds), tokens: float64(perSecond * seconds), last: now}
}

func (b *bucket) refill(now time.Time) {
	if b.rate == 0 {
		return
	}

	b.tokens = min(b.burst, b.tokens+now.Sub(b.last).Seconds()*b.rate)
	b.last = now
}

// take counts one in and reports whether that is within the bound.
func (b *bucket) take() bool {
	if b.rate == 0 {
		return true
	}

	b.tokens--

	return b.tokens >= 0
}

// debt is how long to wait until nothing is owed.
func (b *bucket) debt() time.Duration {
	if b.rate == 0 || b.tokens >= 0 {
		return 0
	}

	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}
