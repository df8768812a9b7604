package command

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/loadtest"
)

// levels are the steps of a sweep.
type levels struct {
	rates  bool
	values []float64
}

const maxLevels = 200

// parseLevels reads "1,2,4", "1:64:*2", "100:900:200", with "rate=" or "concurrency=" in front.
func parseLevels(text string, rates bool) (*levels, error) { //nolint:revive // the default, which the text may override
	l := &levels{rates: rates}

	if name, rest, ok := strings.Cut(text, "="); ok {
		switch name {
		case "rate":
			l.rates = true
		case "concurrency":
			l.rates = false
		default:
			return nil, fmt.Errorf("%q: want rate= or concurrency=", name)
		}

		text = rest
	}

	if err := l.read(text); err != nil {
		return nil, err
	}

	for _, v := range l.values {
		if !(v > 0) || math.IsInf(v, 0) || (!l.rates && v != math.Trunc(v)) {
			return nil, fmt.Errorf("level %v: want positive numbers, whole ones for concurrency", v)
		}
	}

	return l, nil
}

func (l *levels) read(text string) error {
	if !strings.Contains(text, ":") {
		for part := range strings.SplitSeq(text, ",") {
			v, err := strconv.ParseFloat(strings.TrimSpace(part), 64)
			if err != nil {
				return fmt.Errorf("%q is not a number", part)
			}

			l.values = append(l.values, v)
		}

		return nil
	}

	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return errors.New("want FROM:TO:STEP or FROM:TO:*FACTOR")
	}

	step, times := strings.CutPrefix(parts[2], "*")
	from, err1 := strconv.ParseFloat(parts[0], 64)
	to, err2 := strconv.ParseFloat(parts[1], 64)
	by, err3 := strconv.ParseFloat(step, 64)

	if errors.Join(err1, err2, err3) != nil || !(from > 0) || to < from || (times && by <= 1) || (!times && by <= 0) {
		return errors.New("want FROM:TO:STEP or FROM:TO:*FACTOR with positive numbers")
	}

	const slack = 1e-9

	for v := from; v <= to*(1+slack); {
		if l.values = append(l.values, v); len(l.values) > maxLevels {
			return fmt.Errorf("more than %d levels", maxLevels)
		}

		if times {
			v *= by
		} else {
			v += by
		}
	}

	return nil
}

// parseRange reads LOW or LOW:HIGH.
func parseRange(text string) (*loadtest.SearchConfig, error) {
	low, high, both := strings.Cut(text, ":")
	c := &loadtest.SearchConfig{}

	var err error
	if c.Low, err = strconv.ParseFloat(low, 64); err != nil || !(c.Low > 0) || math.IsInf(c.Low, 0) {
		return nil, errors.New("want LOW or LOW:HIGH, positive rates")
	}

	if both {
		if c.High, err = strconv.ParseFloat(high, 64); err != nil || !(c.High > c.Low) || math.IsInf(c.High, 0) {
			return nil, errors.New("want LOW:HIGH, the second rate higher than the first")
		}
	}

	return c, nil
}
