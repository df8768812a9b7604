package report

import (
	"math"
	"runtime"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Report is everything that a load test found.
type Report struct {
	Version string
	Command []string
	Target  string
	Method  string
	Started time.Time
	// Main is the run that the report is about: the only one, the best of a search, A of a comparison.
	Main *loadtest.Result
	SLO  loadtest.SLO
	// Levels are the runs of a sweep.
	Levels []*loadtest.Result
	// Server is the part of the time that the server tells, nil if it is not known.
	Server     *Server
	Search     *loadtest.SearchResult
	Comparison *loadtest.Comparison
	// Against is the second target of a comparison.
	Against string
	// Baseline holds the run against a stored one, nil if there is none.
	Baseline *Baseline
	// Interrupted tells that the test ended before its time.
	Interrupted bool
	Notes       []string
}

// Server is how the server spent its time, for one inference on average.
type Server struct {
	Source     string        `json:"source"`
	Inferences int64         `json:"inferences"`
	Executions int64         `json:"executions"`
	Queue      time.Duration `json:"queue_ns"`
	Input      time.Duration `json:"compute_input_ns"`
	Infer      time.Duration `json:"compute_infer_ns"`
	Output     time.Duration `json:"compute_output_ns"`
}

// Batch is the average number of inferences in one execution.
func (s *Server) Batch() float64 {
	if s.Executions == 0 {
		return 0
	}

	return float64(s.Inferences) / float64(s.Executions)
}

// Met tells whether the SLO holds; true without one.
func (r *Report) Met() bool {
	switch {
	case r.Search != nil:
		return r.Search.Best != nil
	case len(r.SLO) == 0:
		return true
	case r.Main == nil:
		return false
	}

	_, met := r.SLO.Judge(r.Main)

	return met
}

type machine struct {
	OS   string `json:"os"`
	Arch string `json:"arch"`
	CPUs int    `json:"cpus"`
	Go   string `json:"go"`
}

func thisMachine() machine {
	return machine{runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), runtime.Version()}
}

// percents are the percentiles of reports.
func percents() []percent {
	return []percent{
		{"p50", 0.5}, {"p75", 0.75}, {"p90", 0.9}, {"p95", 0.95}, {"p99", 0.99}, {"p99_9", 0.999}, {"p99_99", 0.9999},
	}
}

type percent struct {
	name string
	q    float64
}

func quantiles(h *measure.Histogram) []time.Duration {
	list := percents()
	qs := make([]float64, len(list))

	for i, p := range list {
		qs[i] = p.q
	}

	return h.Quantiles(qs)
}

func millis(d time.Duration) float64 { return round(float64(d)/1e6, 6) }
func micros(d time.Duration) float64 { return round(float64(d)/1e3, 3) }

func round(f float64, digits int) float64 {
	p := math.Pow(10, float64(digits))

	return math.Round(f*p) / p
}
