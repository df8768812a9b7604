package report

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"math"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/measure"
)

//go:embed page.html
var page string

// HTML writes the report as one page with plots. It loads nothing from elsewhere.
func HTML(w io.Writer, r *Report) error {
	t, err := template.New("report").Parse(page)
	if err != nil {
		return fmt.Errorf("write HTML: %w", err)
	}

	var text, data bytes.Buffer

	if err := Text(&text, r); err != nil {
		return err
	}

	if err := JSON(&data, r); err != nil {
		return err
	}

	if err := t.Execute(w, map[string]any{
		"Title": title(r), "Target": r.Target, "Started": r.Started.Format(time.RFC1123), "Command": strings.Join(r.Command, " "),
		"Machine": thisMachine(), "Version": r.Version, "Cards": cards(r), "Plots": plots(r),
		"Text": strings.TrimLeft(text.String(), "\n"), "Data": data.String(),
	}); err != nil {
		return fmt.Errorf("write HTML: %w", err)
	}

	return nil
}

func title(r *Report) string {
	switch {
	case r.Comparison != nil:
		return "Comparison of two targets"
	case r.Search != nil:
		return "Highest rate under an SLO"
	case len(r.Levels) > 0:
		return "Sweep"
	default:
		return "Load test"
	}
}

type card struct{ Name, Value, Class string }

func cards(r *Report) []card {
	if r.Main == nil {
		return nil
	}

	m := r.Main
	list := []card{
		{"requests/s", number(m.Rate), ""},
		{"p50", short(m.Latency.Quantile(0.5)), ""},
		{"p99", short(m.Latency.Quantile(0.99)), ""},
		{"max", short(m.Latency.Max()), ""},
		{"failed", share(m.ErrorRate()), ""},
	}

	if m.Failed > 0 {
		list[len(list)-1].Class = "bad"
	}

	switch {
	case len(r.SLO) == 0:
	case r.Met():
		list = append(list, card{"SLO", "held", "good"})
	default:
		list = append(list, card{"SLO", "missed", "bad"})
	}

	if r.Search != nil && r.Search.Best != nil {
		list = append(list, card{"highest rate", number(r.Search.Best.Rate) + "/s", "good"})
	}

	return list
}

func plots(r *Report) []template.HTML {
	var out []template.HTML

	add := func(p *plot) {
		if svg := p.svg(); svg != "" {
			out = append(out, svg)
		}
	}

	if levels := levelsOf(r); len(levels) > 1 {
		add(levelPlot(levels))
	}

	add(distributionPlot(r))

	if r.Main != nil {
		add(latencyTimeline(r.Main))
		add(rateTimeline(r))
	}

	return out
}

func levelsOf(r *Report) []*loadtest.Result {
	if r.Search == nil {
		return r.Levels
	}

	var list []*loadtest.Result
	for _, t := range r.Search.Trials {
		list = append(list, t.Result)
	}

	return list
}

// levelPlot shows latency against the rate that was served.
func levelPlot(levels []*loadtest.Result) *plot {
	p := &plot{title: "Latency against rate", xName: "requests per second served", yName: "ms", logY: true}

	for _, q := range []percent{{"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}} {
		s := series{name: q.name, dots: true}

		for _, l := range levels {
			s.points = append(s.points, [2]float64{l.Rate, millis(l.Latency.Quantile(q.q))})
		}

		p.series = append(p.series, s)
	}

	return p
}

// distributionPlot has an axis on which each further nine takes the same room.
func distributionPlot(r *Report) *plot {
	p := &plot{title: "Latency by percentile", xName: "percentile", yName: "ms", logY: true}

	for i, text := range []string{"0", "90", "99", "99.9", "99.99", "99.999", "99.9999"} {
		p.xTicks = append(p.xTicks, tick{float64(i), text})
	}

	p.xTicks = append(p.xTicks, tick{math.Log10(2), "50"}, tick{math.Log10(20), "95"})

	switch {
	case r.Comparison != nil && r.Comparison.B != nil:
		p.series = []series{nines("A", r.Comparison.A.Latency), nines("B", r.Comparison.B.Latency)}
	case r.Main != nil:
		p.series = []series{nines("latency", r.Main.Latency)}

		if r.Main.Gap.Count() > 0 {
			p.series = append(p.series, nines("first event", r.Main.FirstByte), nines("between events", r.Main.Gap))
		}
	}

	return p
}

func nines(name string, h *measure.Histogram) series {
	s := series{name: name}

	for _, pt := range distribution(h) {
		if rest := 1 - pt.Percentile/100; rest > 1e-9 {
			s.points = append(s.points, [2]float64{-math.Log10(rest), pt.Millis})
		}
	}

	return s
}

func latencyTimeline(r *loadtest.Result) *plot {
	p := &plot{title: "Latency over time", xName: "seconds", yName: "ms", logY: true}
	of := []struct {
		name string
		get  func(measure.Row) time.Duration
	}{
		{"p50", func(w measure.Row) time.Duration { return w.P50 }},
		{"p90", func(w measure.Row) time.Duration { return w.P90 }},
		{"p99", func(w measure.Row) time.Duration { return w.P99 }},
		{"max", func(w measure.Row) time.Duration { return w.Max }},
	}

	for _, o := range of {
		s := series{name: o.name, dots: len(r.Rows) < 120}

		for _, w := range r.Rows {
			if w.Requests > 0 {
				s.points = append(s.points, [2]float64{float64(w.Second), millis(o.get(w))})
			}
		}

		p.series = append(p.series, s)
	}

	return p
}

func rateTimeline(r *Report) *plot {
	p := &plot{title: "Requests in each second", xName: "seconds", yName: "requests"}
	ended, failed := series{name: "ended"}, series{name: "failed"}

	for _, w := range r.Main.Rows {
		ended.points = append(ended.points, [2]float64{float64(w.Second), float64(w.Requests + w.Warm)})
		failed.points = append(failed.points, [2]float64{float64(w.Second), float64(w.Failed)})
	}

	p.series = append(p.series, ended)
	if r.Main.Failed > 0 {
		p.series = append(p.series, failed)
	}

	return p
}
