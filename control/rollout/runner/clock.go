package runner

import "time"

// reading is the time of day, and a point on the clock that nobody sets.
type reading struct{ wall, steady time.Time }

func readClock(wall func() time.Time) reading {
	return reading{wall: wall().Round(0), steady: time.Now()}
}

// ahead is how far the time of day was set forward since last, or back if it is negative. It is 0
// for what a clock that is kept in time does, and if there was no last reading.
func (r reading) ahead(last reading) time.Duration {
	const tolerance = time.Second

	if last.steady.IsZero() {
		return 0
	}

	ahead := r.wall.Sub(last.wall) - r.steady.Sub(last.steady)
	if ahead.Abs() <= tolerance {
		return 0
	}

	return ahead
}
