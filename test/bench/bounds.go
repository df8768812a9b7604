package main

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strconv"
)

// bound is a number that the project wants to hold.
type bound struct {
	what  string
	got   float64
	limit float64
	least bool // got must not be below limit, instead of above it
}

// miss is how many times the number is off: 1 at the limit, more beyond it.
func (o bound) miss() float64 {
	if o.least {
		return o.limit / max(o.got, 1e-9)
	}

	return o.got / o.limit
}

// hold notes a number for the last section.
func (r *report) hold(what string, got, limit float64, least bool) {
	r.bounds = append(r.bounds, bound{what: what, got: got, limit: limit, least: least})
}

var doorTarget = regexp.MustCompile(`^\| ([^|]+) \| ([0-9.]+)[^|]* \| ([≤≥]) ([0-9.]+)[^|]* \| (?:met|missed) \|$`)

// holdDoors notes what the edge's own suite holds against its targets.
func (r *report) holdDoors(text []byte) error {
	before := len(r.bounds)

	for s := bufio.NewScanner(bytes.NewReader(text)); s.Scan(); {
		m := doorTarget.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}

		got, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			return fmt.Errorf("the edge's suite: %w", err)
		}

		limit, err := strconv.ParseFloat(m[4], 64)
		if err != nil {
			return fmt.Errorf("the edge's suite: %w", err)
		}

		r.hold(m[1], got, limit, m[3] == "≥")
	}

	if len(r.bounds) == before {
		return fmt.Errorf("the edge's suite tells no targets: %s", tail(text))
	}

	return nil
}

// verdict is the last section: every bound, and the weakest number with the reason for it.
func (r *report) verdict() {
	if len(r.bounds) == 0 {
		return
	}

	worst := r.bounds[0]

	var rows [][]string

	for _, o := range r.bounds {
		sign, verdict := "≤", "held"
		if o.least {
			sign = "≥"
		}

		if o.miss() > 1 {
			verdict = "missed"
		}

		rows = append(rows, []string{o.what, fmt.Sprintf("%.2f", o.got), fmt.Sprintf("%s %g", sign, o.limit), verdict})

		if o.miss() > worst.miss() {
			worst = o
		}
	}

	r.section("Bounds, and the weakest number")
	r.table([]string{"number", "measured", "bound", ""}, rows)

	off := "It is the closest to its bound, and holds it."
	if worst.miss() > 1 {
		off = fmt.Sprintf("It is %.2f times off.", worst.miss())
	}

	r.text("The weakest is *%s*: %.2f. %s %s", worst.what, worst.got, off, "See [why](README.md#the-weakest-numbers).")
}
