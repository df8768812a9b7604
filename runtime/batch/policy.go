package batch

import (
	"math/bits"
	"slices"
	"time"
)

// Policy decides when waiting requests become a batch. It is a pure function of what it is told.
type Policy struct {
	// MaxRows of a batch. Single means that every request runs alone.
	MaxRows int
	Single  bool
	// Preferred sizes in rows, ascending, none above MaxRows.
	Preferred []int
	// Delay is how long the oldest request may wait for company while an executor is free.
	Delay time.Duration
	// Pad fills batches up to the next preferred size or power of two.
	Pad bool
}

// Cut is a decision: take the first N requests, or none and ask again after Wait.
type Cut struct {
	N      int
	Reason string
	Wait   time.Duration
}

// Cut decides about requests of one shape while an executor is free. rows holds their sizes in
// the order in which they are served, oldest is how long the oldest of them has waited, and
// others tells whether requests of other shapes wait. It takes nothing only from an empty
// queue or when waiting may pay; it never takes more than MaxRows, except for one request that
// is larger by itself.
func (p Policy) Cut(rows []int, oldest time.Duration, others bool) Cut {
	if len(rows) == 0 {
		return Cut{}
	}

	if p.Single {
		return Cut{N: 1, Reason: ReasonSingle}
	}

	n, total, best := 0, 0, 0

	for n < len(rows) && (n == 0 || total+rows[n] <= p.MaxRows) {
		total += rows[n]
		n++

		if slices.Contains(p.Preferred, total) {
			best = n
		}
	}

	late := oldest >= p.Delay

	switch {
	case best > 0 && (p.Delay == 0 || !late || best == n):
		return Cut{N: best, Reason: ReasonPreferred}
	case n < len(rows) || total >= p.MaxRows:
		return Cut{N: n, Reason: ReasonFull}
	case !late:
		return Cut{Wait: p.Delay - oldest}
	case p.Delay > 0:
		return Cut{N: n, Reason: ReasonDelay}
	case others:
		return Cut{N: n, Reason: ReasonShape}
	default:
		return Cut{N: n, Reason: ReasonIdle}
	}
}

// Padded is the number of rows to run for a batch of rows.
func (p Policy) Padded(rows int) int {
	if !p.Pad || p.Single || rows >= p.MaxRows {
		return rows
	}

	size := min(1<<bits.Len(uint(rows-1)), p.MaxRows)

	for _, s := range p.Preferred {
		if s >= rows {
			return min(size, s)
		}
	}

	return size
}
