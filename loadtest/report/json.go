package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// SchemaVersion is that of the JSON form. Fields are added under the same number; one that changes its meaning or
// goes away makes a new one. docs/loadtest/report.v1.json describes it.
const SchemaVersion = 1

// document is the JSON form. The fields of the main run stand at the top, beside what is common to all.
type document struct {
	Schema  int       `json:"schema_version"`
	Tool    string    `json:"tool"`
	Version string    `json:"version"`
	Command []string  `json:"command"`
	Target  string    `json:"target"`
	Method  string    `json:"method"`
	Started time.Time `json:"started"`
	Machine machine   `json:"machine"`

	*runDoc

	Interrupted bool `json:"interrupted"`

	Server     *serverDoc     `json:"server,omitempty"`
	SLO        *sloDoc        `json:"slo,omitempty"`
	Levels     []*runDoc      `json:"levels,omitempty"`
	Search     *searchDoc     `json:"search,omitempty"`
	Comparison *comparisonDoc `json:"comparison,omitempty"`
	Baseline   *Baseline      `json:"baseline,omitempty"`
	Notes      []string       `json:"notes,omitempty"`
}

type runDoc struct {
	Name            string             `json:"name"`
	Loop            string             `json:"loop"`
	Shape           string             `json:"shape,omitempty"`
	RequestedRate   float64            `json:"requested_rate,omitempty"`
	Concurrency     int                `json:"concurrency"`
	InFlight        int                `json:"in_flight_per_connection"`
	WarmupSeconds   float64            `json:"warmup_seconds"`
	DurationSeconds float64            `json:"duration_seconds"`
	Interrupted     bool               `json:"interrupted"`
	Requests        int64              `json:"requests"`
	Succeeded       int64              `json:"succeeded"`
	Failed          int64              `json:"failed"`
	ErrorRate       float64            `json:"error_rate"`
	Bytes           int64              `json:"bytes"`
	Rate            float64            `json:"rate"`
	GoodRate        float64            `json:"good_rate"`
	LatencyMS       map[string]float64 `json:"latency_ms"`
	LatencyOK       map[string]float64 `json:"latency_succeeded_ms,omitempty"`
	LatencyFailed   map[string]float64 `json:"latency_failed_ms,omitempty"`
	FirstByte       map[string]float64 `json:"first_byte_ms,omitempty"`
	Between         map[string]float64 `json:"between_events_ms,omitempty"`
	Schedule        map[string]float64 `json:"schedule_error_ms,omitempty"`
	Wait            map[string]float64 `json:"connection_wait_ms,omitempty"`
	Errors          []errorDoc         `json:"errors"`
	Targets         []targetDoc        `json:"targets,omitempty"`
	Timeline        []rowDoc           `json:"timeline"`
	Windows         []loadtest.Window  `json:"windows,omitempty"`
	Stable          bool               `json:"stable"`
	Distribution    []pointDoc         `json:"distribution"`
	Client          clientDoc          `json:"client"`
}

type errorDoc struct {
	Error  string `json:"error"`
	Status int    `json:"status,omitempty"`
	Code   string `json:"error_code,omitempty"`
	Class  string `json:"class,omitempty"`
	Count  int64  `json:"count"`
}

type targetDoc struct {
	Name     string             `json:"name"`
	Requests int64              `json:"requests"`
	Failed   int64              `json:"failed"`
	Latency  map[string]float64 `json:"latency_ms"`
}

type rowDoc struct {
	Second   int     `json:"second"`
	Warmup   int64   `json:"warmup"`
	Requests int64   `json:"requests"`
	Failed   int64   `json:"failed"`
	Bytes    int64   `json:"bytes"`
	Mean     float64 `json:"mean_ms"`
	P50      float64 `json:"p50_ms"`
	P90      float64 `json:"p90_ms"`
	P99      float64 `json:"p99_ms"`
	Max      float64 `json:"max_ms"`
}

type pointDoc struct {
	Percentile float64 `json:"percentile"`
	Millis     float64 `json:"ms"`
}

type clientDoc struct {
	Threads     int      `json:"threads"`
	CPUSeconds  float64  `json:"cpu_seconds"`
	Waiting     float64  `json:"busy_wait_seconds"`
	PerRequest  float64  `json:"cpu_us_per_request"`
	Busy        float64  `json:"busiest_thread"`
	GCs         int64    `json:"garbage_collections"`
	GCPause     float64  `json:"gc_pause_ms"`
	Connections int      `json:"connections"`
	Dials       int64    `json:"connections_made"`
	DialErrors  int64    `json:"connections_failed"`
	Starved     int64    `json:"waited_for_connection"`
	Cut         int64    `json:"cut_off"`
	Clamped     int64    `json:"clamped_samples"`
	Warnings    []string `json:"warnings"`
}

type serverDoc struct {
	Server

	Batch float64 `json:"average_batch"`
}

type sloDoc struct {
	Met    bool       `json:"met"`
	Bounds []boundDoc `json:"bounds"`
}

type boundDoc struct {
	Metric string   `json:"metric"`
	Bound  string   `json:"bound"`
	Limit  float64  `json:"limit"`
	Got    *float64 `json:"got"` // null when the percentile is among failed requests
	Met    bool     `json:"met"`
}

type searchDoc struct {
	Rate   float64    `json:"highest_rate"` // 0 if no rate holds the SLO
	Miss   float64    `json:"lowest_missed_rate"`
	Trials []trialDoc `json:"trials"`
}

type trialDoc struct {
	Rate float64 `json:"rate"`
	Met  bool    `json:"met"`
	Run  *runDoc `json:"run"`
}

type comparisonDoc struct {
	Against string     `json:"against"`
	Rounds  int        `json:"rounds"`
	Ratios  []ratioDoc `json:"ratios"`
	A       *runDoc    `json:"a"`
	B       *runDoc    `json:"b,omitempty"`
}

type ratioDoc struct {
	Metric string  `json:"metric"`
	A      float64 `json:"a"`
	B      float64 `json:"b"`
	Ratio  float64 `json:"ratio_b_to_a"`
	Low    float64 `json:"low95"`
	High   float64 `json:"high95"`
	// BootLow and BootHigh are 0 for metrics that are no percentiles, and with fewer than three rounds.
	BootLow  float64 `json:"bootstrap_low95"`
	BootHigh float64 `json:"bootstrap_high95"`
	Better   string  `json:"better"`
}

// JSON writes the report as one JSON document.
func JSON(w io.Writer, r *Report) error {
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)

	if err := enc.Encode(documentOf(r)); err != nil {
		return fmt.Errorf("write JSON: %w", err)
	}

	return nil
}

func documentOf(r *Report) *document {
	d := &document{
		Schema: SchemaVersion, Tool: "sluice loadtest", Version: r.Version, Command: r.Command, Target: r.Target, Method: r.Method,
		Started: r.Started, Machine: thisMachine(), Notes: r.Notes,
	}

	if r.Main != nil {
		d.runDoc = runOf(r.Main)
		d.SLO = sloOf(r)
	}

	d.Interrupted = r.Interrupted || (r.Main != nil && r.Main.Interrupted)
	d.Baseline = r.Baseline

	for _, l := range r.Levels {
		d.Levels = append(d.Levels, runOf(l))
	}

	if r.Server != nil {
		d.Server = &serverDoc{*r.Server, r.Server.Batch()}
	}

	if s := r.Search; s != nil {
		d.Search = &searchDoc{Miss: s.Miss}
		if s.Best != nil {
			d.Search.Rate = s.Best.Rate
		}

		for _, t := range s.Trials {
			d.Search.Trials = append(d.Search.Trials, trialDoc{t.Rate, t.Met, runOf(t.Result)})
		}
	}

	if c := r.Comparison; c != nil {
		d.Comparison = comparisonOf(r.Against, c)
	}

	return d
}

func sloOf(r *Report) *sloDoc {
	if len(r.SLO) == 0 {
		return nil
	}

	verdicts, _ := r.SLO.Judge(r.Main)
	d := &sloDoc{Met: r.Met()}

	for i := range verdicts {
		v := &verdicts[i]
		b := boundDoc{Metric: v.Metric, Bound: v.String(), Limit: inUnits(v, v.Limit), Met: v.Met}

		if got := inUnits(v, v.Got); !math.IsInf(got, 0) {
			b.Got = &got
		}

		d.Bounds = append(d.Bounds, b)
	}

	return d
}

// inUnits gives latencies in milliseconds and leaves shares and rates as they are.
func inUnits(v *loadtest.Verdict, f float64) float64 {
	if v.Metric == "error" || v.Metric == "rate" {
		return f
	}

	return f / 1e6
}

func comparisonOf(against string, c *loadtest.Comparison) *comparisonDoc {
	d := &comparisonDoc{Against: against, Rounds: len(c.Rounds), A: runOf(c.A)}
	if c.B != nil {
		d.B = runOf(c.B)
	}

	for _, r := range c.Ratios {
		unit := 1e6
		if r.Metric == "rate" {
			unit = 1
		}

		d.Ratios = append(d.Ratios, ratioDoc{r.Metric, r.A / unit, r.B / unit, r.Ratio, r.Low, r.High, r.BootLow, r.BootHigh, r.Better})
	}

	return d
}

func runOf(r *loadtest.Result) *runDoc {
	d := &runDoc{
		Name: r.Name, Loop: "closed", Concurrency: r.Concurrency, InFlight: r.InFlight, WarmupSeconds: r.Warmup.Seconds(),
		DurationSeconds: round(r.Elapsed.Seconds(), 6), Interrupted: r.Interrupted,
		Requests: r.Requests, Succeeded: r.Requests - r.Failed, Failed: r.Failed, ErrorRate: r.ErrorRate(), Bytes: r.Bytes,
		Rate: round(r.Rate, 3), GoodRate: round(r.Good, 3), LatencyMS: latencies(r.Latency),
		FirstByte: latencies(r.FirstByte), Between: latencies(r.Gap),
		Errors: []errorDoc{}, Timeline: []rowDoc{}, Windows: r.Windows, Stable: r.Stable,
		Distribution: distribution(r.Latency), Client: clientOf(r),
	}

	if r.Open {
		d.Loop, d.Shape, d.RequestedRate = "open", string(r.Shape), r.Asked
		d.Schedule, d.Wait = latencies(r.Schedule), latencies(r.Wait)
	}

	if r.Failed > 0 {
		d.LatencyOK, d.LatencyFailed = latencies(r.OK), latencies(r.Bad)
	}

	for i := range r.Errors {
		e := &r.Errors[i]
		d.Errors = append(d.Errors, errorDoc{e.Text(), e.Status, e.Code, e.Failure.String(), e.Count})
	}

	for _, t := range r.Targets {
		d.Targets = append(d.Targets, targetDoc{t.Name, t.Requests, t.Failed, latencies(t.Latency)})
	}

	for _, w := range r.Rows {
		d.Timeline = append(d.Timeline, rowDoc{
			w.Second, w.Warm, w.Requests, w.Failed, w.Bytes, millis(w.Mean), millis(w.P50), millis(w.P90), millis(w.P99), millis(w.Max),
		})
	}

	return d
}

func clientOf(r *loadtest.Result) clientDoc {
	c := &r.Client
	d := clientDoc{
		Threads: c.Threads, CPUSeconds: round(c.CPU.Seconds(), 6), Waiting: round(c.Waiting.Seconds(), 6), PerRequest: micros(c.PerRequest), Busy: round(c.Busy, 4),
		GCs: c.GCs, GCPause: millis(c.GCPause), Connections: c.Connections, Dials: c.Dials, DialErrors: c.DialErrors,
		Starved: c.Starved, Cut: c.Cut, Clamped: r.Latency.Clamped(), Warnings: c.Warnings,
	}

	if d.Warnings == nil {
		d.Warnings = []string{}
	}

	return d
}

// latencies is a histogram in milliseconds, nil without samples.
func latencies(h *measure.Histogram) map[string]float64 {
	if h.Count() == 0 {
		return nil
	}

	m := map[string]float64{
		"count": float64(h.Count()), "min": millis(h.Min()), "mean": millis(h.Mean()), "stddev": millis(h.Deviation()), "max": millis(h.Max()),
	}

	for i, v := range quantiles(h) {
		m[percents()[i].name] = millis(v)
	}

	return m
}

// distribution gives the points of a percentile plot: finer and finer towards 100 %.
func distribution(h *measure.Histogram) []pointDoc {
	out := []pointDoc{}
	if h.Count() == 0 {
		return out
	}

	const stepsPerHalving = 8

	var qs []float64

	for rest, n := 1.0, float64(h.Count()); rest*n >= 0.5 && len(qs) < 25*stepsPerHalving; rest /= 2 {
		for i := range stepsPerHalving {
			qs = append(qs, 1-rest*(1-float64(i)/(2*stepsPerHalving)))
		}
	}

	qs = append(qs, 1)
	for i, v := range h.Quantiles(qs) {
		out = append(out, pointDoc{round(100*qs[i], 8), millis(v)})
	}

	return out
}
