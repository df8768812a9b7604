package loadtest

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// SLO is a list of bounds, all of which must hold.
type SLO []Bound

// Bound is one bound of an SLO.
type Bound struct {
	// Metric is "p50" … "p99.99", "mean", "max", "error" or "rate".
	Metric   string
	quantile float64
	// Limit is in nanoseconds, a share for "error", and requests per second for "rate", which is a least value.
	Limit float64
}

// Verdict tells whether a bound holds.
type Verdict struct {
	Bound

	Got float64 // infinite if the quantile is among failed requests
	Met bool
}

// ParseSLO reads "p99=20ms,error=0.1%".
func ParseSLO(text string) (SLO, error) {
	var s SLO

	for part := range strings.SplitSeq(text, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return nil, fmt.Errorf("%q: want bounds such as p99=20ms,error=0.1%%", part)
		}

		b, err := parseBound(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", part, err)
		}

		s = append(s, b)
	}

	return s, nil
}

func parseBound(name, value string) (Bound, error) {
	b := Bound{Metric: name}

	switch {
	case name == "error" || name == "errors":
		b.Metric = "error"

		return b, b.share(value)
	case name == "rate":
		n, err := strconv.ParseFloat(value, 64)
		if err != nil || !(n > 0) || math.IsInf(n, 0) {
			return b, errors.New("want a positive number of requests per second")
		}

		b.Limit = n

		return b, nil
	case name == "mean" || name == "avg":
		b.Metric = "mean"
	case name == "max":
		b.quantile = 1
	case strings.HasPrefix(name, "p"):
		p, err := strconv.ParseFloat(name[1:], 64)
		if err != nil || !(p > 0 && p <= 100) {
			return b, errors.New("want a percentile from p0.1 to p100")
		}

		b.quantile = p / 100
	default:
		return b, errors.New("want p50, p99.9 and the like, mean, max, error or rate")
	}

	d, err := time.ParseDuration(value)
	if err != nil || d <= 0 {
		return b, errors.New("want a positive duration such as 20ms")
	}

	b.Limit = float64(d)

	return b, nil
}

// share reads "0.1%" or "0.001".
func (b *Bound) share(value string) error {
	number, percent := strings.CutSuffix(value, "%")

	n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if percent {
		n /= 100
	}

	if err != nil || !(n >= 0 && n <= 1) {
		return errors.New("want a share such as 0.1%")
	}

	b.Limit = n

	return nil
}

// String is the bound as it is written.
func (b *Bound) String() string {
	switch b.Metric {
	case "error":
		return "error=" + strconv.FormatFloat(b.Limit*100, 'g', -1, 64) + "%"
	case "rate":
		return "rate=" + strconv.FormatFloat(b.Limit, 'g', -1, 64)
	default:
		return b.Metric + "=" + time.Duration(b.Limit).String()
	}
}

// Judge compares a result with the bounds. A failed request counts as slower than any bound on a percentile.
func (s SLO) Judge(r *Result) (verdicts []Verdict, met bool) {
	met = true

	for _, b := range s {
		v := Verdict{Bound: b, Got: b.got(r)}

		v.Met = v.Got <= b.Limit
		if b.Metric == "rate" {
			v.Met = v.Got >= b.Limit
		}

		v.Met = v.Met && r.Requests > 0
		met = met && v.Met
		verdicts = append(verdicts, v)
	}

	return verdicts, met
}

func (b *Bound) got(r *Result) float64 {
	switch b.Metric {
	case "error":
		return r.ErrorRate()
	case "rate":
		return r.Good
	case "mean":
		if r.OK.Count() == 0 {
			return math.Inf(1)
		}

		return float64(r.OK.Mean())
	}

	rank := math.Ceil(b.quantile*float64(r.Requests) - 1e-9)
	ok := float64(r.OK.Count())

	if rank > ok || ok == 0 {
		return math.Inf(1)
	}

	return float64(r.OK.Quantile(rank / ok))
}
