package loadtest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Result is what a run has measured. Warm-up is left out everywhere but in Rows.
type Result struct {
	Name        string
	Open        bool
	Shape       Shape
	Asked       float64 // rate of an open loop
	Concurrency int
	InFlight    int
	Begun       time.Time
	Warmup      time.Duration
	Elapsed     time.Duration // measured time
	Interrupted bool

	Requests, Failed, Bytes int64
	// Rate is in finished requests per second of the measured time, Good in successful ones.
	Rate, Good float64
	// Latency is that of all requests, from the intended start to the last byte.
	Latency *measure.Histogram
	// OK and Bad part it by success.
	OK, Bad   *measure.Histogram
	Schedule  *measure.Histogram // schedule error of this tool
	Wait      *measure.Histogram // of requests that found no free connection
	FirstByte *measure.Histogram // or the first event of a stream
	Gap       *measure.Histogram // between events of a stream
	Errors    []ErrorCount
	Targets   []TargetResult // of a mix
	Rows      []measure.Row
	Windows   []Window
	Stable    bool
	Client    Client
}

// ErrorCount is how often one error occurred.
type ErrorCount struct {
	measure.ErrorKey

	Count int64
}

// Text names the error in reports.
func (e *ErrorCount) Text() string {
	switch {
	case e.Failure != measure.None && e.Status != 0:
		return fmt.Sprintf("HTTP %d, %s", e.Status, e.Failure)
	case e.Failure != measure.None:
		return e.Failure.String()
	case e.Code != "":
		return fmt.Sprintf("HTTP %d %s", e.Status, e.Code)
	default:
		return fmt.Sprintf("HTTP %d", e.Status)
	}
}

// TargetResult is the part of one target in a mix.
type TargetResult struct {
	Name                    string
	Requests, Failed, Bytes int64
	Latency                 *measure.Histogram
}

// ErrorRate is the share of requests that failed.
func (r *Result) ErrorRate() float64 {
	if r.Requests == 0 {
		return 0
	}

	return float64(r.Failed) / float64(r.Requests)
}

func (r *runner) result(ended time.Duration) *Result {
	t, rows := r.collector.Result()
	p := &r.plan

	elapsed := min(r.collector.End(), ended) - p.Warmup

	res := &Result{
		Name: p.Name, Open: p.Rate > 0, Shape: p.Shape, Asked: p.Rate, Concurrency: p.Concurrency, InFlight: max(p.InFlight, 1),
		Begun: r.shared.Begun(), Warmup: p.Warmup, Elapsed: max(elapsed, 0),
		Requests: t.Total.Requests, Failed: t.Total.Failed, Bytes: t.Total.Bytes,
		Latency: t.Total.All(), OK: t.Total.OK, Bad: t.Total.Bad,
		Schedule: t.Schedule, Wait: t.Wait, FirstByte: t.FirstByte, Gap: t.Gap,
		Rows: rows, Windows: r.stability.last(), Stable: r.stability.settled(),
	}

	if res.Open && res.Shape == "" {
		res.Shape = Poisson
	}

	if s := res.Elapsed.Seconds(); s > 0 {
		res.Rate = float64(t.Within) / s
		res.Good = res.Rate * (1 - res.ErrorRate())
	}

	for k, n := range t.Errors {
		res.Errors = append(res.Errors, ErrorCount{k, n})
	}

	slices.SortFunc(res.Errors, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Text(), b.Text()))
	})

	for i := range t.Targets {
		c := &t.Targets[i]
		res.Targets = append(res.Targets, TargetResult{p.Targets[i], c.Requests, c.Failed, c.Bytes, c.All()})
	}

	return res
}
