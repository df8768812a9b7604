package loadtest

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Comparison is the outcome of two plans that were run in turn.
type Comparison struct {
	A, B   *Result // all rounds together
	Rounds [][2]*Result
	Ratios []Ratio
}

// Ratio compares one metric: B divided by A, with the interval that holds the true ratio with 95 %
// confidence, from the ratios of the rounds.
type Ratio struct {
	Metric    string
	A, B      float64 // geometric means of the rounds
	Ratio     float64
	Low, High float64 // both 0 with fewer than two rounds
	// BootLow and BootHigh are the same for percentiles, from rounds drawn again and again and taken
	// together. Both are 0 for other metrics and with fewer than three rounds.
	BootLow, BootHigh float64
	// Better is "A", "B", or "" if one of the intervals holds 1.
	Better string
}

// Compare runs two plans in turn, A B A B, so that whatever else happens on the machine meets both.
func Compare(ctx context.Context, a, b Plan, rounds int) (*Comparison, error) {
	if rounds < 1 {
		return nil, errors.New("compare: want at least one round")
	}

	c := &Comparison{}

	for range rounds {
		ra, err := Run(ctx, a)
		if err != nil && ctx.Err() != nil && c.A != nil {
			break // interrupted before its first request; what the other rounds found stays
		}

		if err != nil {
			return nil, err
		}

		if ra.Interrupted {
			c.keep(ra, nil)

			break
		}

		rb, err := Run(ctx, b)
		if err != nil && ctx.Err() != nil {
			c.keep(ra, nil)

			break
		}

		if err != nil {
			return nil, err
		}

		c.keep(ra, rb)

		if rb.Interrupted {
			break
		}
	}

	c.judge()

	return c, nil
}

func (c *Comparison) keep(a, b *Result) {
	c.A = join(c.A, a)

	if b != nil {
		c.B = join(c.B, b)
		c.Rounds = append(c.Rounds, [2]*Result{a, b})
	}
}

func (c *Comparison) judge() {
	for _, m := range []struct {
		name   string
		higher bool // is better
		of     func(*Result) float64
		q      float64 // of a percentile
	}{
		{"rate", true, func(r *Result) float64 { return r.Good }, 0},
		{"mean", false, func(r *Result) float64 { return float64(r.Latency.Mean()) }, 0},
		{"p50", false, func(r *Result) float64 { return float64(r.Latency.Quantile(0.5)) }, 0.5},
		{"p90", false, func(r *Result) float64 { return float64(r.Latency.Quantile(0.9)) }, 0.9},
		{"p99", false, func(r *Result) float64 { return float64(r.Latency.Quantile(0.99)) }, 0.99},
	} {
		as, bs := make([]float64, 0, len(c.Rounds)), make([]float64, 0, len(c.Rounds))
		ha, hb := make([]*measure.Histogram, 0, len(c.Rounds)), make([]*measure.Histogram, 0, len(c.Rounds))

		for _, round := range c.Rounds {
			as, bs = append(as, m.of(round[0])), append(bs, m.of(round[1]))
			ha, hb = append(ha, round[0].Latency), append(hb, round[1].Latency)
		}

		if r, ok := ratioOf(as, bs); ok {
			r.Metric = m.name
			if m.q > 0 {
				r.BootLow, r.BootHigh = bootstrap(m.q, ha, hb)
			}

			r.judge(m.higher)
			c.Ratios = append(c.Ratios, r)
		}
	}
}

// judge claims a difference only if no interval holds 1.
func (r *Ratio) judge(higher bool) {
	low, high := r.Low, r.High
	if low == 0 && high == 0 {
		return
	}

	if r.BootHigh > 0 {
		low, high = min(low, r.BootLow), max(high, r.BootHigh)
	}

	switch {
	case low > 1 && higher, high < 1 && !higher:
		r.Better = "B"
	case high < 1, low > 1:
		r.Better = "A"
	}
}

// ratioOf works on logarithms, so that A against B is the inverse of B against A.
func ratioOf(as, bs []float64) (Ratio, bool) {
	n := float64(len(as))
	if n == 0 {
		return Ratio{}, false
	}

	var sumA, sumB, sum, sq float64

	for i := range as {
		if as[i] <= 0 || bs[i] <= 0 {
			return Ratio{}, false
		}

		d := math.Log(bs[i] / as[i])
		sumA += math.Log(as[i])
		sumB += math.Log(bs[i])
		sum += d
		sq += d * d
	}

	mean := sum / n
	r := Ratio{A: math.Exp(sumA / n), B: math.Exp(sumB / n), Ratio: math.Exp(mean)}

	if n > 1 {
		variance := max(sq-n*mean*mean, 0) / (n - 1)
		half := student(len(as)-1) * math.Sqrt(variance/n)
		r.Low, r.High = math.Exp(mean-half), math.Exp(mean+half)
	}

	return r, true
}

// student is the two-sided 95 % quantile of Student's t distribution.
func student(freedom int) float64 {
	table := []float64{12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131}
	if freedom <= len(table) {
		return table[freedom-1]
	}

	// Close to the normal quantile, with the first term of the expansion: an error below 0.3 %.
	const z = 1.959964

	return z + (z*z*z+z)/(4*float64(freedom))
}

// join adds a result to those of earlier rounds.
func join(sum, r *Result) *Result {
	if sum == nil {
		c := *r
		c.Errors, c.Rows, c.Client.Warnings = slices.Clone(r.Errors), slices.Clone(r.Rows), slices.Clone(r.Client.Warnings)

		for _, h := range []**measure.Histogram{&c.Latency, &c.OK, &c.Bad, &c.Schedule, &c.Wait, &c.FirstByte, &c.Gap} {
			*h = (*h).Clone()
		}

		return &c
	}

	before, all := sum.Elapsed, sum.Elapsed+r.Elapsed
	weigh := func(a, b float64) float64 {
		if all == 0 {
			return 0
		}

		return (a*before.Seconds() + b*r.Elapsed.Seconds()) / all.Seconds()
	}

	sum.Rate, sum.Good = weigh(sum.Rate, r.Rate), weigh(sum.Good, r.Good)
	sum.Elapsed = all
	sum.Requests += r.Requests
	sum.Failed += r.Failed
	sum.Bytes += r.Bytes
	sum.Interrupted = sum.Interrupted || r.Interrupted

	sum.Latency.Merge(r.Latency)
	sum.OK.Merge(r.OK)
	sum.Bad.Merge(r.Bad)
	sum.Schedule.Merge(r.Schedule)
	sum.Wait.Merge(r.Wait)
	sum.FirstByte.Merge(r.FirstByte)
	sum.Gap.Merge(r.Gap)
	sum.joinRows(r, before)
	sum.joinErrors(r)

	return sum
}

func (r *Result) joinRows(from *Result, before time.Duration) {
	for _, row := range from.Rows {
		row.Second += int(before.Seconds())
		r.Rows = append(r.Rows, row)
	}
}

func (r *Result) joinErrors(from *Result) {
	for _, e := range from.Errors {
		found := false

		for i := range r.Errors {
			if r.Errors[i].ErrorKey == e.ErrorKey {
				r.Errors[i].Count += e.Count
				found = true
			}
		}

		if !found {
			r.Errors = append(r.Errors, e)
		}
	}

	r.Client.CPU += from.Client.CPU
	r.Client.Warnings = append(r.Client.Warnings, from.Client.Warnings...)
}
