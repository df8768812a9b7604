package pool

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Picker is a way of choosing among instances.
type Picker uint8

// Pickers.
const (
	// PowerOfTwo compares in-flight requests times latency of two random instances.
	PowerOfTwo Picker = iota
	// LeastRequest takes the instance with the fewest requests in flight.
	LeastRequest
	// RoundRobin takes one after the other, in proportion to their weights.
	RoundRobin
	// ConsistentHash sends equal keys to the same instance unless it has too much to do.
	ConsistentHash
	// SourceIP is ConsistentHash by the client's address.
	SourceIP
	numPickers
)

//nolint:gochecknoglobals // constant table
var pickerNames = [numPickers]string{"P2C", "LEAST_REQUEST", "ROUND_ROBIN", "CONSISTENT_HASH", "SOURCE_IP"}

// String is the picker's name in policies.
func (p Picker) String() string {
	if p < numPickers {
		return pickerNames[p]
	}

	return "unknown"
}

// ParsePicker reads the name of a picker, or a load_balancer_policy of the v1 API.
// The empty name means PowerOfTwo.
func ParsePicker(name string) (Picker, error) {
	switch strings.ToUpper(strings.ReplaceAll(name, "-", "_")) {
	case "", "P2C", "POWER_OF_TWO":
		return PowerOfTwo, nil
	case "LEAST_REQUEST", "LEAST_CONNECTIONS":
		return LeastRequest, nil
	case "ROUND_ROBIN":
		return RoundRobin, nil
	case "CONSISTENT_HASH":
		return ConsistentHash, nil
	case "SOURCE_IP":
		return SourceIP, nil
	default:
		return 0, fmt.Errorf("balancer %q is not known", name)
	}
}

// Config bounds a pool. The zero value of a field means its default.
type Config struct {
	// MaxInFlight requests per instance; default 1024.
	MaxInFlight int
	// MaxQueue requests may wait for an instance with room; default 1024, negative for none.
	MaxQueue int
	// QueueWait is how long one may wait; default 2 s.
	QueueWait time.Duration
	// SlowStart is how long a new instance takes to its full share; default 10 s, negative for none.
	SlowStart time.Duration
	// BoundedLoad is how far above the average an instance may be loaded by ConsistentHash
	// and SourceIP; default 1.25.
	BoundedLoad float64
	// Node is the machine of this gateway; instances on it are preferred. Empty: no preference.
	Node string
	// SpillFactor is how much more loaded (in-flight per instance) the near instances may be
	// than the far ones before requests go far; default 2.
	SpillFactor float64

	Ejection Ejection
	Breaker  Breaker
	Hooks    Hooks
}

// Ejection takes an instance out for a while when requests show that it is ill.
type Ejection struct {
	Disabled bool
	// Consecutive failures (5xx, broken, unreachable, timeout) eject; default 5.
	Consecutive int
	// ConsecutiveConnect failures to connect eject; default 2.
	ConsecutiveConnect int
	// Base is the first ejection's length, doubled each time up to Max; default 2 s and 60 s.
	Base, Max time.Duration
	// Interval between looks at success rate and latency; default 5 s.
	Interval time.Duration
	// MinRequests in an interval before an instance is compared; default 20.
	MinRequests int
	// SuccessRate: ejected when the instance's success rate is this far below the mean of
	// all; default 0.3.
	SuccessRate float64
	// Latency: ejected when the instance's latency is this many times the median of the
	// others, and above LatencyFloor; default 5 and 20 ms. Negative for never.
	Latency      float64
	LatencyFloor time.Duration
	// MaxFraction of the instances may be ejected at a time; default 0.5.
	MaxFraction float64
}

// Breaker cuts an instance off that fails on the transport level.
type Breaker struct {
	Disabled bool
	// Consecutive failures that open it; default 5.
	Consecutive int
	// Ratio of failures among at least MinRequests of the last Interval that opens it;
	// default 0.5 of 20 in 10 s.
	Ratio       float64
	MinRequests int
	Interval    time.Duration
	// Open is how long it stays open before one probe goes through; default 5 s.
	Open time.Duration
}

// Hooks report what happens; nil fields are skipped. They must not block.
type Hooks struct {
	// Ejected: an instance was taken out for a while.
	Ejected func(instance, reason string, d time.Duration)
	// BreakerChanged: state is closed, half-open or open.
	BreakerChanged func(instance, state string)
	// Panic: so many instances are out that all of them are used again.
	Panic func(pool string)
	// Queued: a request had to wait for capacity; n is how many wait now.
	Queued func(pool string, n int)
}

// Defaults returns c with every zero field filled.
func (c Config) Defaults() Config {
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 1024)
	c.MaxQueue = cmp.Or(c.MaxQueue, 1024)
	c.QueueWait = cmp.Or(c.QueueWait, 2*time.Second)
	c.SlowStart = cmp.Or(c.SlowStart, 10*time.Second)
	c.BoundedLoad = cmp.Or(c.BoundedLoad, 1.25)
	c.SpillFactor = cmp.Or(c.SpillFactor, 2)

	e := &c.Ejection
	e.Consecutive = cmp.Or(e.Consecutive, 5)
	e.ConsecutiveConnect = cmp.Or(e.ConsecutiveConnect, 2)
	e.Base = cmp.Or(e.Base, 2*time.Second)
	e.Max = cmp.Or(e.Max, time.Minute)
	e.Interval = cmp.Or(e.Interval, 5*time.Second)
	e.MinRequests = cmp.Or(e.MinRequests, 20)
	e.SuccessRate = cmp.Or(e.SuccessRate, 0.3)
	e.Latency = cmp.Or(e.Latency, 5)
	e.LatencyFloor = cmp.Or(e.LatencyFloor, 20*time.Millisecond)
	e.MaxFraction = cmp.Or(e.MaxFraction, 0.5)

	b := &c.Breaker
	b.Consecutive = cmp.Or(b.Consecutive, 5)
	b.Ratio = cmp.Or(b.Ratio, 0.5)
	b.MinRequests = cmp.Or(b.MinRequests, 20)
	b.Interval = cmp.Or(b.Interval, 10*time.Second)
	b.Open = cmp.Or(b.Open, 5*time.Second)

	return c
}

// Validate reports every mistake in c.
func (c Config) Validate() error {
	c = c.Defaults()

	var errs []error

	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(c.MaxInFlight > 0, "max_in_flight %d is not positive", c.MaxInFlight)
	check(c.QueueWait > 0, "queue_wait %v is not positive", c.QueueWait)
	check(c.BoundedLoad > 1, "bounded_load %v is not above 1", c.BoundedLoad)
	check(c.SpillFactor >= 1, "spill_factor %v is below 1", c.SpillFactor)
	check(c.Ejection.Consecutive > 0, "ejection.consecutive %d is not positive", c.Ejection.Consecutive)
	check(c.Ejection.ConsecutiveConnect > 0, "ejection.consecutive_connect %d is not positive", c.Ejection.ConsecutiveConnect)
	check(c.Ejection.Base > 0 && c.Ejection.Max >= c.Ejection.Base, "ejection.base %v and max %v do not fit", c.Ejection.Base, c.Ejection.Max)
	check(c.Ejection.Interval > 0, "ejection.interval %v is not positive", c.Ejection.Interval)
	check(c.Ejection.MaxFraction > 0 && c.Ejection.MaxFraction <= 1, "ejection.max_fraction %v is not in (0, 1]", c.Ejection.MaxFraction)
	check(c.Breaker.Consecutive > 0, "breaker.consecutive %d is not positive", c.Breaker.Consecutive)
	check(c.Breaker.Ratio > 0 && c.Breaker.Ratio <= 1, "breaker.ratio %v is not in (0, 1]", c.Breaker.Ratio)
	check(c.Breaker.Open > 0, "breaker.open %v is not positive", c.Breaker.Open)

	return errors.Join(errs...)
}
