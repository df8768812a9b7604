package limit

import (
	"math"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// bucket is a rate with the limiter that keeps it, in one piece of memory: with 100,000 of
// them every jump to another place costs as much as taking the token.
type bucket struct {
	limiter rate.Limiter
	used    atomic.Int64 // ns since the epoch; only in tables
	rate    Rate         // asking the limiter for it would take its lock
}

// newBucket returns a full bucket.
func newBucket(r Rate) *bucket {
	b := &bucket{rate: r}
	// As if its last token had been taken ages ago.
	b.limiter.SetLimitAt(time.Time{}, rate.Limit(r.PerSecond))
	b.limiter.SetBurstAt(time.Time{}, r.burst())

	return b
}

// full reports whether forgetting the bucket loses nothing.
func (b *bucket) full(now time.Time) bool {
	return b.limiter.TokensAt(now) >= float64(b.rate.burst())
}

// untilFull is how long a rest fills the bucket again.
func (b *bucket) untilFull(tokens float64) time.Duration {
	return seconds((float64(b.rate.burst()) - tokens) / b.rate.PerSecond)
}

// tooMany tells when the next token will be there.
func (b *bucket) tooMany(now time.Time, msg string) error {
	wait := seconds((1 - b.limiter.TokensAt(now)) / b.rate.PerSecond)

	return &fault.Error{Code: fault.TooManyRequests, Msg: msg, RetryAfter: max(wait, time.Millisecond)}
}

func seconds(s float64) time.Duration {
	return time.Duration(math.Min(math.Max(s, 0), 1e6) * float64(time.Second))
}

// claim is one request's way through the buckets. It lives on the stack.
type claim struct {
	now   time.Time
	quiet bool // nobody asks how much is left

	taken  [NumBounds]*bucket
	last   Bound
	least  *bucket // the one closest to empty
	tokens float64 // in least
}

// take takes a token and remembers the bucket that is closest to empty.
func (c *claim) take(bound Bound, b *bucket) bool {
	c.last = bound

	if !b.limiter.AllowN(c.now, 1) {
		c.least = b

		return false
	}

	c.taken[bound] = b

	if c.quiet {
		return true
	}

	if tokens := b.limiter.TokensAt(c.now); c.least == nil || math.Floor(tokens) < math.Floor(c.tokens) {
		c.least, c.tokens = b, tokens
	}

	return true
}

// tell fills in what the rate-limit headers say.
func (c *claim) tell(t *Ticket) {
	if b := c.least; b != nil && !c.quiet {
		t.Limit, t.Remaining, t.Reset = b.rate.burst(), max(int(c.tokens), 0), b.untilFull(c.tokens)
	}
}

// refuse gives the tokens back: a caller whom a wide bound refuses keeps its own rate, and
// those who share a bucket with it keep theirs.
func (c *claim) refuse(t *Ticket) (Bound, error) {
	for _, b := range c.taken {
		if b != nil {
			b.limiter.AllowN(c.now, -1)
		}
	}

	c.tokens = math.Max(c.least.limiter.TokensAt(c.now), 0)
	c.tell(t)

	return c.last, c.least.tooMany(c.now, "")
}
