package auth

import (
	"cmp"
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Config of a Verifier. Zero fields mean the default.
type Config struct {
	// TokenCache is how many verified tokens are remembered (default 16,384).
	TokenCache int
	// DomainTokens accepts tokens without a project. The edge does not; the management API does,
	// and Authorize then refuses them for what belongs to a project.
	DomainTokens bool

	// Skew is how far X-Sdk-Date may be from now (default 15 minutes).
	Skew time.Duration
	// MaxSignedBody is how large a body under a signature may be (default 12 MiB).
	MaxSignedBody int64

	// LockAfter bad signatures in a row of one key from one source lock that pair for LockFor
	// (default 5, 5 minutes). A source is an address cut to LockPrefix4 or LockPrefix6 bits
	// (default 32 and 64). LockEntries bounds the table (default 8,192).
	LockAfter                int
	LockFor                  time.Duration
	LockPrefix4, LockPrefix6 int
	LockEntries              int

	// ReplayEntries is how many used signatures are remembered; 0 turns the replay cache off. A
	// client that sends the same request twice within a second signs it twice alike, and with
	// the cache the second is refused.
	ReplayEntries int

	// SuspectParallel signatures of tokens are verified at a time for suspect requests (default:
	// half of the processors). SuspectWaiting more wait, no longer than SuspectWait (default
	// 1,024, 1 s); the rest is told to come again.
	SuspectParallel, SuspectWaiting int
	SuspectWait                     time.Duration

	// PlainAppCodes takes app codes and app keys over plain HTTP as well.
	PlainAppCodes bool
	// RefuseAppKeys turns off authentication by app key alone.
	RefuseAppKeys bool
}

// Defaults returns c with every zero field filled.
func (c Config) Defaults() Config {
	c.TokenCache = cmp.Or(c.TokenCache, 16<<10)
	c.Skew = cmp.Or(c.Skew, 15*time.Minute)
	c.MaxSignedBody = cmp.Or(c.MaxSignedBody, 12<<20)
	c.LockAfter = cmp.Or(c.LockAfter, 5)
	c.LockFor = cmp.Or(c.LockFor, 5*time.Minute)
	c.LockPrefix4 = cmp.Or(c.LockPrefix4, 32)
	c.LockPrefix6 = cmp.Or(c.LockPrefix6, 64)
	c.LockEntries = cmp.Or(c.LockEntries, 8<<10)
	c.SuspectParallel = cmp.Or(c.SuspectParallel, max(1, runtime.GOMAXPROCS(0)/2))
	c.SuspectWaiting = cmp.Or(c.SuspectWaiting, 1024)
	c.SuspectWait = cmp.Or(c.SuspectWait, time.Second)

	return c
}

// Validate reports every mistake in c.
func (c Config) Validate() error {
	const maxEntries = 1 << 24

	c = c.Defaults()

	return errors.Join(
		between("token cache", c.TokenCache, 1, maxEntries),
		between("lock entries", c.LockEntries, 1, maxEntries),
		between("replay entries", c.ReplayEntries, 0, maxEntries),
		between("lock after", c.LockAfter, 1, 1_000_000),
		between("lock for", c.LockFor, time.Second, 24*time.Hour),
		between("lock prefix of IPv4", c.LockPrefix4, 1, 32),
		between("lock prefix of IPv6", c.LockPrefix6, 1, 128),
		between("suspects in parallel", c.SuspectParallel, 1, 1_000_000),
		between("suspects waiting", c.SuspectWaiting, 1, 1_000_000),
		between("wait of suspects", c.SuspectWait, 1, time.Minute),
		between("clock skew", c.Skew, time.Second, 24*time.Hour),
		between("signed body", c.MaxSignedBody, 1, 1<<32),
	)
}

func between[T int | int64 | time.Duration](name string, value, low, high T) error {
	if value < low || value > high {
		return fmt.Errorf("%s is %v, want %v to %v", name, value, low, high)
	}

	return nil
}
