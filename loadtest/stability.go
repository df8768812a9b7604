package loadtest

import (
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// stability judges whether the last three windows agree to within ten percent, in rate and in latency.
type stability struct {
	window int // rows; 0 divides what there is by three
	rows   []measure.Row
}

const (
	windows   = 3
	tolerance = 1.10
)

func newStability(window time.Duration) *stability {
	return &stability{window: int((window + time.Second - 1) / time.Second)}
}

func (s *stability) add(r measure.Row) { s.rows = append(s.rows, r) }

// Window is one of the windows that stability is judged by.
type Window struct {
	Seconds int           `json:"seconds"`
	Rate    float64       `json:"rate"`
	Mean    time.Duration `json:"mean_ns"`
}

// last returns the last three windows, nil if there is too little.
func (s *stability) last() []Window {
	size := s.window
	if size == 0 {
		size = len(s.rows) / windows
	}

	if size == 0 || len(s.rows) < windows*size {
		return nil
	}

	out := make([]Window, windows)
	rows := s.rows[len(s.rows)-windows*size:]

	for i := range out {
		n, sum := int64(0), 0.0

		for _, r := range rows[i*size : (i+1)*size] {
			n += r.Requests
			sum += float64(r.Requests) * float64(r.Mean)
		}

		out[i] = Window{Seconds: size, Rate: float64(n) / float64(size)}
		if n > 0 {
			out[i].Mean = time.Duration(sum / float64(n))
		}
	}

	return out
}

func (s *stability) settled() bool { return agree(s.last()) }

func agree(list []Window) bool {
	if len(list) == 0 {
		return false
	}

	low, high := list[0], list[0]

	for _, w := range list[1:] {
		low.Rate, high.Rate = min(low.Rate, w.Rate), max(high.Rate, w.Rate)
		low.Mean, high.Mean = min(low.Mean, w.Mean), max(high.Mean, w.Mean)
	}

	return low.Rate > 0 && high.Rate <= low.Rate*tolerance && float64(high.Mean) <= float64(low.Mean)*tolerance
}
