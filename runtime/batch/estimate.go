package batch

import "time"

// estimate predicts how long a batch takes from how much it holds: it fits
// time = fixed + rate × cost to the runs seen, the recent ones weighing most.
// Cost is the size of the inputs in bytes.
type estimate struct {
	n, x, y, xx, xy float64 // decayed sums
}

// memoryOfRuns is how much the past weighs after one more run.
const memoryOfRuns = 0.95

func (e *estimate) observe(cost int64, d time.Duration) {
	x, y := float64(cost), float64(d)
	e.n = e.n*memoryOfRuns + 1
	e.x = e.x*memoryOfRuns + x
	e.y = e.y*memoryOfRuns + y
	e.xx = e.xx*memoryOfRuns + x*x
	e.xy = e.xy*memoryOfRuns + x*y
}

// line gives the fitted fixed part and rate. Without spread in the costs all is fixed.
func (e *estimate) line() (fixed, rate float64) {
	if e.n == 0 {
		return 0, 0
	}

	meanX, meanY := e.x/e.n, e.y/e.n

	spread := e.xx/e.n - meanX*meanX
	if spread <= meanX*meanX*1e-4 {
		return meanY, 0
	}

	rate = max(0, (e.xy/e.n-meanX*meanY)/spread)
	if fixed = meanY - rate*meanX; fixed < 0 {
		return 0, meanY / meanX
	}

	return fixed, rate
}

// predict how long that many batches take that hold cost together; 0 means unknown.
func (e *estimate) predict(batches int, cost int64) time.Duration {
	fixed, rate := e.line()

	return time.Duration(fixed*float64(batches) + rate*float64(cost))
}
