package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

// Baseline is the comparison of a run with a stored one.
type Baseline struct {
	File      string          `json:"file"`
	Started   time.Time       `json:"started"`
	Tolerance float64         `json:"tolerance"`
	Worse     bool            `json:"worse"`
	Metrics   []BaselineRatio `json:"metrics"`
}

// BaselineRatio compares one metric. Latencies are in milliseconds.
type BaselineRatio struct {
	Metric string  `json:"metric"`
	Stored float64 `json:"stored"`
	Now    float64 `json:"now"`
	Ratio  float64 `json:"ratio"` // now / stored; 0 if nothing was stored
	Worse  bool    `json:"worse"`
}

// Stored is a run that was written by JSON.
type Stored struct {
	File string
	doc  document
}

// mostStored bounds the size of a stored run.
const mostStored = 256 << 20

// ReadStored reads what JSON wrote.
func ReadStored(name string, in io.Reader) (*Stored, error) {
	s := &Stored{File: name}
	s.doc.runDoc = &runDoc{}

	if err := json.NewDecoder(io.LimitReader(in, mostStored)).Decode(&s.doc); err != nil {
		return nil, fmt.Errorf("%s is no report of this tool: %w", name, err)
	}

	switch d := &s.doc; {
	case d.Tool != "sluice loadtest" || d.Schema == 0:
		return nil, fmt.Errorf("%s is no report of this tool with a schema version", name)
	case d.Schema > SchemaVersion:
		return nil, fmt.Errorf("%s has schema version %d; this tool knows %d", name, d.Schema, SchemaVersion)
	case d.Requests == 0 || d.Interrupted || len(d.LatencyMS) == 0:
		return nil, fmt.Errorf("%s holds no run that was complete", name)
	}

	return s, nil
}

// Fits tells whether a plan asks for the same load as the stored run.
func (s *Stored) Fits(p *loadtest.Plan) error {
	d := s.doc.runDoc

	switch {
	case (d.Loop == "open") != (p.Rate > 0):
		return fmt.Errorf("the run in %s was made with the %s loop, this one is not", s.File, d.Loop)
	case p.Rate > 0 && math.Abs(d.RequestedRate-p.Rate) > 1e-6*p.Rate:
		return fmt.Errorf("the run in %s asked for %v requests/s, this one for %v", s.File, d.RequestedRate, p.Rate)
	case p.Rate == 0 && (d.Concurrency != p.Concurrency || d.InFlight != max(p.InFlight, 1)):
		return fmt.Errorf("the run in %s had %d callers, this one %d", s.File, d.Concurrency*d.InFlight, p.Concurrency*max(p.InFlight, 1))
	}

	return nil
}

var errNothing = errors.New("nothing was measured")

// Compare holds a run against the stored one. tolerance is the share by which a metric may be worse.
func (s *Stored) Compare(r *loadtest.Result, tolerance float64) (*Baseline, error) {
	if r.Requests == 0 {
		return nil, errNothing
	}

	was, now := s.doc.runDoc, runOf(r)
	b := &Baseline{File: s.File, Started: s.doc.Started, Tolerance: tolerance}

	b.add("rate", was.GoodRate, now.GoodRate, now.GoodRate < was.GoodRate*(1-tolerance))

	for _, m := range []string{"mean", "p50", "p90", "p99"} {
		b.add(m, was.LatencyMS[m], now.LatencyMS[m], now.LatencyMS[m] > was.LatencyMS[m]*(1+tolerance))
	}

	// A single failed request more among thousands is no regression; one in a thousand is.
	const slack = 0.001

	b.add("error", was.ErrorRate, now.ErrorRate, now.ErrorRate > was.ErrorRate*(1+tolerance)+slack)

	return b, nil
}

func (b *Baseline) add(metric string, stored, now float64, worse bool) {
	m := BaselineRatio{Metric: metric, Stored: stored, Now: now, Worse: worse}
	if stored > 0 {
		m.Ratio = round(now/stored, 4)
	}

	b.Metrics = append(b.Metrics, m)
	b.Worse = b.Worse || worse
}

func (p *printer) baseline(b *Baseline) {
	if b == nil {
		return
	}

	p.line("")
	p.line("against %s of %s", b.File, b.Started.Format(time.RFC3339))
	p.line("metric\tstored\tnow\tratio\t%s allowed", share(b.Tolerance))

	for i := range b.Metrics {
		m := &b.Metrics[i]
		stored, now, ratio, word := short(ms(m.Stored)), short(ms(m.Now)), "–", "fine"

		switch m.Metric {
		case "rate":
			stored, now = number(m.Stored)+"/s", number(m.Now)+"/s"
		case "error":
			stored, now = share(m.Stored), share(m.Now)
		}

		if m.Ratio > 0 {
			ratio = fmt.Sprintf("%.3f", m.Ratio)
		}

		if m.Worse {
			word = "WORSE"
		}

		p.line("%s\t%s\t%s\t%s\t%s", m.Metric, stored, now, ratio, word)
	}
}

func ms(f float64) time.Duration { return time.Duration(f * 1e6) }
