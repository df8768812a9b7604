package loadtest

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Shape says how the rate of an open loop develops.
type Shape string

// Shapes.
const (
	Constant Shape = "constant" // evenly spaced
	Poisson  Shape = "poisson"  // independent arrivals, exponential gaps
	Ramp     Shape = "ramp"     // evenly spaced, rate grows linearly from From to Rate
	Step     Shape = "step"     // Poisson arrivals, rate grows in Steps equal steps from From to Rate
)

// Arrivals gives the moments at which requests are meant to start, as offsets from the beginning.
// It is not safe for concurrent use.
type Arrivals struct {
	shape    Shape
	from, to float64 // per second
	duration time.Duration
	steps    int
	rng      *rand.Rand
	n, every int64
	last     float64 // seconds, for shapes that accumulate
}

// ArrivalsConfig describes a schedule. Rates are in requests per second.
type ArrivalsConfig struct {
	Shape    Shape
	Rate     float64
	From     float64 // Ramp and Step; 0 means Rate/10
	Steps    int     // Step; 0 means 5
	Duration time.Duration
	Seed     uint64
	// Share and Of split one schedule over several senders: this one is number Share of Of. Evenly
	// spaced arrivals are dealt out in turn; of independent ones, each sender makes its part of the rate.
	Share, Of int
}

// NewArrivals checks the configuration.
func NewArrivals(c ArrivalsConfig) (*Arrivals, error) {
	switch {
	case c.Rate <= 0 || math.IsInf(c.Rate, 0) || math.IsNaN(c.Rate):
		return nil, fmt.Errorf("rate %v: must be positive", c.Rate)
	case c.From < 0 || c.Steps < 0:
		return nil, fmt.Errorf("from %v, steps %d: must not be negative", c.From, c.Steps)
	case c.Share < 0 || c.Of < 0 || c.Share >= max(c.Of, 1):
		return nil, fmt.Errorf("share %d of %d: there is no such share", c.Share, c.Of)
	case c.Duration <= 0:
		return nil, fmt.Errorf("duration %v: must be positive", c.Duration)
	}

	switch c.Shape {
	case "":
		c.Shape = Poisson
	case Constant, Poisson, Ramp, Step:
	default:
		return nil, fmt.Errorf("shape %q: want constant, poisson, ramp or step", c.Shape)
	}

	if c.From == 0 {
		c.From = c.Rate / 10
	}

	if c.Steps == 0 {
		c.Steps = 5
	}

	a := &Arrivals{
		shape: c.Shape, from: c.From, to: c.Rate, duration: c.Duration, steps: c.Steps, n: int64(c.Share), every: int64(max(c.Of, 1)),
		rng: rand.New(rand.NewPCG(c.Seed, 0x9e3779b97f4a7c15+uint64(c.Share))), //nolint:gosec // arrivals need no secrecy
	}

	if c.Shape == Poisson || c.Shape == Step {
		a.from /= float64(a.every)
		a.to /= float64(a.every)
	}

	return a, nil
}

// Next returns the offset of the next arrival; false when the schedule is over.
func (a *Arrivals) Next() (time.Duration, bool) {
	var at float64

	switch a.shape {
	case Constant:
		at = float64(a.n) / a.to
	case Ramp:
		at = a.rampAt(float64(a.n))
	case Poisson:
		a.last += a.rng.ExpFloat64() / a.to
		at = a.last
	case Step:
		a.last += a.rng.ExpFloat64() / a.stepRate(a.last)
		at = a.last
	}

	a.n += a.every

	d := time.Duration(at * float64(time.Second))
	if d >= a.duration || d < 0 {
		return 0, false
	}

	return d, true
}

// rampAt inverts the number of arrivals until t, which is from*t + (to-from)*t²/(2*duration).
func (a *Arrivals) rampAt(n float64) float64 {
	slope := (a.to - a.from) / a.duration.Seconds()
	if math.Abs(slope) < 1e-9 {
		return n / a.to
	}

	root := a.from*a.from + 2*slope*n
	if root < 0 {
		return math.Inf(1) // a falling ramp that has reached zero
	}

	return (math.Sqrt(root) - a.from) / slope
}

func (a *Arrivals) stepRate(at float64) float64 {
	step := min(int(at/a.duration.Seconds()*float64(a.steps)), a.steps-1)
	if a.steps == 1 {
		return a.to
	}

	return a.from + (a.to-a.from)*float64(step)/float64(a.steps-1)
}
