package measure

import (
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Histogram counts durations from 1 ns to one hour with three significant digits. Values beyond are
// counted as the limit, and counted again in Clamped. It is not safe for concurrent use.
type Histogram struct {
	h       *hdrhistogram.Histogram
	clamped int64
	sum     float64 // exact, so that means are
}

const highest = int64(time.Hour)

// NewHistogram returns an empty Histogram.
func NewHistogram() *Histogram { return &Histogram{h: hdrhistogram.New(1, highest, 3)} }

// Record counts one duration in nanoseconds.
func (h *Histogram) Record(ns int64) {
	if ns < 0 || ns > highest {
		h.clamped++
		ns = min(max(ns, 0), highest)
	}

	h.sum += float64(ns)

	if h.h.RecordValue(ns) != nil {
		panic("BUG: a clamped value is out of range")
	}
}

// Merge adds the counts of another Histogram.
func (h *Histogram) Merge(from *Histogram) {
	if from.h.TotalCount() == 0 {
		return
	}

	h.clamped += from.clamped
	h.sum += from.sum

	if h.h.Merge(from.h) != 0 {
		panic("BUG: histograms of one geometry do not merge")
	}
}

// Reset forgets everything.
func (h *Histogram) Reset() {
	if h.h.TotalCount() == 0 {
		return
	}

	h.h.Reset()
	h.clamped, h.sum = 0, 0
}

// Count is the number of recorded values.
func (h *Histogram) Count() int64 { return h.h.TotalCount() }

// Clamped is the number of values that were out of range.
func (h *Histogram) Clamped() int64 { return h.clamped }

// Mean is the exact arithmetic mean, 0 without values.
func (h *Histogram) Mean() time.Duration {
	if h.Count() == 0 {
		return 0
	}

	return time.Duration(h.sum / float64(h.Count()))
}

// Min is the smallest value, 0 without values.
func (h *Histogram) Min() time.Duration {
	if h.Count() == 0 {
		return 0
	}

	return time.Duration(h.h.Min())
}

// Max is the largest value.
func (h *Histogram) Max() time.Duration { return time.Duration(h.h.Max()) }

// Deviation is the standard deviation.
func (h *Histogram) Deviation() time.Duration {
	if h.Count() == 0 {
		return 0
	}

	return time.Duration(h.h.StdDev())
}

// Quantile is the smallest value such that a share of q (0..1) of all values is not larger.
func (h *Histogram) Quantile(q float64) time.Duration {
	return time.Duration(h.h.ValueAtQuantile(100 * q))
}

// Quantiles is Quantile for many, in ascending order, in one pass.
func (h *Histogram) Quantiles(qs []float64) []time.Duration {
	percents := make([]float64, len(qs))
	for i, q := range qs {
		percents[i] = 100 * q
	}

	out := make([]time.Duration, len(qs))
	for i, v := range h.h.ValueAtPercentilesSlice(percents) {
		out[i] = time.Duration(v)
	}

	return out
}

// CountUpTo is the number of values that are not larger than d, to within the resolution.
func (h *Histogram) CountUpTo(d time.Duration) int64 {
	n := int64(0)

	for _, b := range h.h.Distribution() {
		if b.From > int64(d) {
			break
		}

		n += b.Count
	}

	return n
}

// Clone returns an independent copy.
func (h *Histogram) Clone() *Histogram {
	c := NewHistogram()
	c.Merge(h)

	return c
}

// Bin is how many values fell into one step of the resolution.
type Bin struct {
	Value int64 // the greatest that counts as equal
	Count int64
}

// Bins lists the steps that hold values, in ascending order.
func (h *Histogram) Bins() []Bin {
	var out []Bin

	for _, b := range h.h.Distribution() {
		if b.Count > 0 {
			out = append(out, Bin{b.To, b.Count})
		}
	}

	return out
}
