package report

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Text writes the report for a terminal.
func Text(w io.Writer, r *Report) error {
	tw := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	p := &printer{w: tw}

	switch {
	case r.Comparison != nil:
		p.comparison(r)
	case r.Search != nil:
		p.search(r)
	case len(r.Levels) > 0:
		p.levels(r.Levels)
	}

	if r.Main != nil && r.Comparison == nil {
		p.run(r.Main)
		p.server(r.Server)
		p.slo(r)
	}

	p.baseline(r.Baseline)

	if r.Interrupted && (r.Main == nil || !r.Main.Interrupted) {
		p.line("interrupted\tthe test ended before its time")
	}

	for _, n := range r.Notes {
		p.line("note\t%s", n)
	}

	if err := tw.Flush(); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}

	return nil
}

type printer struct{ w io.Writer }

// line writes to a tabwriter over memory or a terminal; Flush reports errors.
func (p *printer) line(format string, args ...any) { fmt.Fprintf(p.w, format+"\n", args...) } //nolint:errcheck // see above

func (p *printer) run(r *loadtest.Result) {
	p.line("")

	how := fmt.Sprintf("closed loop, %d at a time", r.Concurrency*r.InFlight)
	if r.Open {
		how = fmt.Sprintf("open loop, %s, %s requests/s asked for", r.Shape, number(r.Asked))
	}

	p.line("%s\t%s, %s measured", r.Name, how, short(r.Elapsed))

	if r.Interrupted {
		p.line("interrupted\tthe run ended before its time")
	}

	p.line("requests\t%d (%d failed, %s)", r.Requests, r.Failed, share(r.ErrorRate()))
	p.line("rate\t%s requests/s, %s/s received", number(r.Rate), size(float64(r.Bytes)/max(r.Elapsed.Seconds(), 1e-9)))
	p.line("stable\t%s", stable(r))
	p.line("")
	p.line("\tmean\tp50\tp90\tp95\tp99\tp99.9\tmax")
	p.latency("latency", r.Latency)

	if r.Failed > 0 && r.Failed < r.Requests {
		p.latency("  succeeded", r.OK)
		p.latency("  failed", r.Bad)
	}

	if r.Gap.Count() > 0 {
		p.latency("first event", r.FirstByte)
		p.latency("between events", r.Gap)
	}

	if r.Open {
		p.latency("schedule error", r.Schedule)
		p.latency("connection wait", r.Wait)
	}

	for _, t := range r.Targets {
		p.latency(fmt.Sprintf("%s (%d, %d failed)", t.Name, t.Requests, t.Failed), t.Latency)
	}

	p.errors(r)
	p.client(&r.Client)
}

func stable(r *loadtest.Result) string {
	switch {
	case len(r.Windows) == 0:
		return "too short to tell"
	case r.Stable:
		return "yes, the last three windows agree to within 10 %"
	default:
		return "no, the last three windows differ by more than 10 %"
	}
}

func (p *printer) latency(name string, h *measure.Histogram) {
	if h.Count() == 0 {
		return
	}

	q := h.Quantiles([]float64{0.5, 0.9, 0.95, 0.99, 0.999})
	p.line("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s", name, short(h.Mean()), short(q[0]), short(q[1]), short(q[2]), short(q[3]), short(q[4]), short(h.Max()))
}

func (p *printer) errors(r *loadtest.Result) {
	const most = 20

	for i := range r.Errors {
		if i == most {
			p.line("\t… and %d other kinds", len(r.Errors)-most)

			break
		}

		title := ""
		if i == 0 {
			p.line("")

			title = "errors"
		}

		p.line("%s\t%d × %s", title, r.Errors[i].Count, r.Errors[i].Text())
	}
}

func (p *printer) client(c *loadtest.Client) {
	p.line("")
	waited := ""
	if c.Waiting > 0 {
		waited = fmt.Sprintf(", %s of waiting without sleep beside it", short(c.Waiting))
	}

	p.line("this tool\t%s of CPU a request, busiest thread %.0f %%, %d connections%s", short(c.PerRequest), 100*c.Busy, c.Connections, waited)

	for _, w := range c.Warnings {
		p.line("WARNING\t%s", w)
	}
}

func (p *printer) server(s *Server) {
	if s == nil {
		return
	}

	p.line("server\tqueue %s, input %s, compute %s, output %s; %.2f inferences a batch", short(s.Queue), short(s.Input), short(s.Infer), short(s.Output), s.Batch())
}

func (p *printer) slo(r *Report) {
	if len(r.SLO) == 0 {
		return
	}

	verdicts, _ := r.SLO.Judge(r.Main)

	for i := range verdicts {
		v := &verdicts[i]
		word := "held"

		if !v.Met {
			word = "MISSED"
		}

		p.line("slo %s\t%s: %s", v.String(), word, Got(v))
	}
}

// Got is the measured value of a bound, as text.
func Got(v *loadtest.Verdict) string {
	switch {
	case v.Metric == "error":
		return share(v.Got)
	case v.Metric == "rate":
		return number(v.Got) + "/s"
	case v.Got > 1e15:
		return "among failed requests"
	default:
		return short(time.Duration(v.Got))
	}
}

func (p *printer) levels(list []*loadtest.Result) {
	p.line("")
	p.line("level\trate/s\tfailed\tmean\tp50\tp90\tp99\tmax\tstable")

	for _, r := range list {
		level := strconv.Itoa(r.Concurrency)
		if r.Open {
			level = number(r.Asked) + "/s"
		}

		q := r.Latency.Quantiles([]float64{0.5, 0.9, 0.99})
		p.line("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%v", level, number(r.Rate), share(r.ErrorRate()), short(r.Latency.Mean()),
			short(q[0]), short(q[1]), short(q[2]), short(r.Latency.Max()), r.Stable)
	}
}

func (p *printer) search(r *Report) {
	p.line("")
	p.line("asked\tserved/s\tfailed\tp50\tp99\tSLO")

	for _, t := range r.Search.Trials {
		word := "missed"
		if t.Met {
			word = "held"
		}

		p.line("%s/s\t%s\t%s\t%s\t%s\t%s", number(t.Rate), number(t.Result.Rate), share(t.Result.ErrorRate()),
			short(t.Result.Latency.Quantile(0.5)), short(t.Result.Latency.Quantile(0.99)), word)
	}

	if best := r.Search.Best; best != nil {
		p.line("highest rate\t%s requests/s hold the SLO", number(best.Rate))
	} else {
		p.line("highest rate\tno rate that was tried holds the SLO")
	}
}

func (p *printer) comparison(r *Report) {
	c := r.Comparison
	p.line("")
	p.line("A\t%s", r.Target)
	p.line("B\t%s", r.Against)
	p.line("")
	p.line("metric\tA\tB\tratio B/A\t95 %% interval\tby bootstrap\t")

	for _, m := range c.Ratios {
		a, b := short(time.Duration(m.A)), short(time.Duration(m.B))
		if m.Metric == "rate" {
			a, b = number(m.A)+"/s", number(m.B)+"/s"
		}

		interval := "one round: none"
		if m.High > 0 {
			interval = fmt.Sprintf("%.3f to %.3f", m.Low, m.High)
		}

		boot := "–"
		if m.BootHigh > 0 {
			boot = fmt.Sprintf("%.3f to %.3f", m.BootLow, m.BootHigh)
		}

		word := "no difference shown"
		if m.Better != "" {
			word = m.Better + " is better"
		}

		p.line("%s\t%s\t%s\t%.3f\t%s\t%s\t%s", m.Metric, a, b, m.Ratio, interval, boot, word)
	}

	p.run(c.A)

	if c.B != nil {
		p.run(c.B)
	}

	p.slo(r)
}

// short rounds a duration to what is worth reading.
func short(d time.Duration) string {
	switch {
	case d == 0:
		return "0"
	case d < 10*time.Microsecond:
		return d.Round(10 * time.Nanosecond).String()
	case d < time.Millisecond:
		return d.Round(100 * time.Nanosecond).String()
	case d < time.Second:
		return d.Round(10 * time.Microsecond).String()
	default:
		return d.Round(time.Millisecond).String()
	}
}

func number(f float64) string {
	switch {
	case f >= 1000:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", f), ".0")
	default:
		return fmt.Sprintf("%.3g", f)
	}
}

func share(f float64) string { return fmt.Sprintf("%.4g %%", 100*f) }

func size(f float64) string {
	for _, unit := range []string{"byte", "KiB", "MiB"} {
		if f < 1024 {
			return fmt.Sprintf("%.4g %s", f, unit)
		}

		f /= 1024
	}

	return fmt.Sprintf("%.4g GiB", f)
}
