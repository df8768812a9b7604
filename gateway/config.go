package gateway

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/gateway/plan"
)

// Config of the corridor. Zero means the default.
type Config struct {
	// BufferBytes: a body up to this size is read before it is forwarded, so that it can be
	// sent again; default 2 MiB. A longer one is streamed and sent once.
	BufferBytes int64
	// SignedBytes a body under a signature may have; default 12 MiB. UnprovenBytes are all such
	// bodies together, larger than 64 KiB each, while their signatures are not checked yet;
	// default 512 MiB, half of it for one source; negative for no bound.
	SignedBytes, UnprovenBytes int64
	// Patience is how long a request waits for an instance of a service that was able to
	// serve within the last AbleWithin; default 3 s and 10 s. Negative for not at all.
	Patience, AbleWithin time.Duration
	// RetryRatio of the active requests may be retries at a time, but at least RetryMin;
	// default 0.2 and 3. A retry beyond that waits for RetryWait at most; default 5 s.
	RetryRatio float64
	RetryMin   int
	RetryWait  time.Duration
}

// Defaults returns c with every zero field filled.
func (c Config) Defaults() Config {
	if c.BufferBytes == 0 {
		c.BufferBytes = 2 << 20
	}

	if c.SignedBytes == 0 {
		c.SignedBytes = 12 << 20
	}

	if c.UnprovenBytes == 0 {
		c.UnprovenBytes = 512 << 20
	}

	if c.Patience == 0 {
		c.Patience = 3 * time.Second
	}

	if c.AbleWithin == 0 {
		c.AbleWithin = 10 * time.Second
	}

	if c.RetryRatio == 0 {
		c.RetryRatio = 0.2
	}

	if c.RetryMin == 0 {
		c.RetryMin = 3
	}

	if c.RetryWait == 0 {
		c.RetryWait = 5 * time.Second
	}

	return c
}

// Validate reports every mistake in c.
func (c Config) Validate() error {
	c = c.Defaults()

	var errs []error
	if c.BufferBytes < 0 {
		errs = append(errs, fmt.Errorf("buffer of %d bytes is negative", c.BufferBytes))
	}

	if c.SignedBytes < 0 {
		errs = append(errs, fmt.Errorf("signed body of %d bytes is negative", c.SignedBytes))
	}

	if c.UnprovenBytes > 0 && c.UnprovenBytes < 2*c.SignedBytes {
		errs = append(errs, fmt.Errorf("%d bytes for unproven bodies do not hold two signed bodies of %d", c.UnprovenBytes, c.SignedBytes))
	}

	if c.RetryRatio < 0 || c.RetryRatio > 1 {
		errs = append(errs, fmt.Errorf("retry ratio %v is not in 0 to 1", c.RetryRatio))
	}

	if c.RetryMin < 1 {
		errs = append(errs, fmt.Errorf("retry minimum %d is not positive", c.RetryMin))
	}

	if c.RetryWait < 0 || c.AbleWithin < 0 {
		errs = append(errs, errors.New("a wait is negative"))
	}

	return errors.Join(errs...)
}

// Hooks report what happens in the corridor; nil fields are skipped.
type Hooks struct {
	// Settled is called once per request, when its record is complete. The call is valid
	// until it returns.
	Settled func(c *Call)
	// Retried: an attempt failed with err and another one follows.
	Retried func(c *Call, err error)
	// Panicked: the corridor recovered from a broken invariant.
	Panicked func(c *Call, value any, stack []byte)
}

// Plans gives the plan in force. plan.Follower implements it.
type Plans interface {
	// Load returns nil before the first plan.
	Load() *plan.Plan
	// Changed is closed when another plan comes into force.
	Changed() <-chan struct{}
}

// Parts are the collaborators of a Gateway.
type Parts struct {
	Plans   Plans
	Limits  limit.Limiter
	Forward Forwarder
	Hooks   Hooks
	Log     *slog.Logger
}
