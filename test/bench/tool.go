package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

// generator is another load tool: what it is called with, and how what it prints is read. A pattern has
// one group; one that a tool has no figure for is empty.
type generator struct {
	command, install string
	args             func(b *bench, url string, seconds int) []string

	rate, p50, p99, done, failed string
}

// generators of the comparison, all with 64 connections and, where they can be told, two threads.
func generators() []generator {
	return []generator{
		{
			command: "wrk", install: "apt-get install wrk",
			args: func(_ *bench, url string, n int) []string {
				return []string{"-t2", "-c64", "--latency", fmt.Sprintf("-d%ds", n), url}
			},
			rate: `Requests/sec:\s+([0-9.]+)`, p50: `50%\s+([0-9.]+[a-z]+)`, p99: `99%\s+([0-9.]+[a-z]+)`, done: `([0-9]+) requests in`,
		},
		{
			command: "h2load", install: "apt-get install nghttp2-client",
			args: func(_ *bench, url string, n int) []string {
				return []string{"--h1", "-t2", "-c64", fmt.Sprintf("-D%d", n), url}
			},
			rate: `finished in [0-9.]+s, ([0-9.]+) req/s`, done: `requests: \d+ total, \d+ started, (\d+) done`, failed: `(\d+) failed, \d+ errored`,
		},
		{
			command: "hey", install: "go install github.com/rakyll/hey@latest",
			args: func(_ *bench, url string, n int) []string {
				return []string{"-z", fmt.Sprintf("%ds", n), "-c", "64", url}
			},
			rate: `Requests/sec:\s+([0-9.]+)`, p50: `50%+ in ([0-9.]+ s)ecs`, p99: `99%+ in ([0-9.]+ s)ecs`, done: `\[200\]\s+(\d+) responses`,
		},
		{
			command: "k6", install: "go install go.k6.io/k6@v1.4.0",
			args: func(b *bench, url string, n int) []string {
				return []string{
					"run", "--quiet", "--no-color", "--no-usage-report", "--summary-trend-stats", "med,p(99)",
					"--vus", "64", "--duration", fmt.Sprintf("%ds", n), "-e", "URL=" + url, "test/bench/servers/k6.js",
				}
			},
			rate: `http_reqs[. ]*: \d+\s+([0-9.]+)/s`, p50: `http_req_duration[. ]*: med=([0-9.]+[a-zµ]+)`, p99: `http_req_duration[. ]*: \S+\s+p\(99\)=([0-9.]+[a-zµ]+)`,
			done: `http_reqs[. ]*: (\d+)`, failed: `http_req_failed[. ]*: [0-9.]+%\s+(\d+) out of`,
		},
	}
}

// tool compares the load tool with others on the same server, in turn.
func (b *bench) tool() error {
	var others []generator

	for _, g := range generators() {
		if _, err := exec.LookPath(g.command); err != nil {
			b.report.text("Left out: %s is not installed (%s).", g.command, g.install)

			continue
		}

		others = append(others, g)
	}

	if len(others) == 0 || others[0].command != "wrk" {
		return skip("wrk, which all are compared with, is not installed")
	}

	n, err := b.nginx("")
	if err != nil {
		return err
	}
	defer n.close()

	t := target{name: "sluice loadtest", url: n.url, method: "GET", concurrency: 64}
	list := make([]measured, len(others)+1)
	each := max(b.duration/time.Duration(b.rounds), time.Second).Round(time.Second)
	ours := &list[len(others)]
	ours.name = t.name

	for range b.rounds {
		plan, err := t.plan(each)
		if err != nil {
			return err
		}

		res, err := loadtest.Run(b.ctx, plan)
		if err != nil {
			return fmt.Errorf("%s: %w", t.name, err)
		}

		ours.add(&t, res, res.Client.CPU)

		for i := range others {
			if err := list[i].generated(b, &others[i], n.url, int(each.Seconds())); err != nil {
				return err
			}
		}
	}

	b.comparison(list)
	b.report.text("The same nginx with a constant answer, 64 connections, two threads. The CPU is that of the tool itself.")

	b.report.hold("load tool: requests/s / wrk's", mean(ours.rates)/mean(list[0].rates), 0.8, true)
	b.report.hold("load tool: thousand requests/s on two processors", mean(ours.rates)/1e3, 100, true)

	// What the tool must hold at least, and what it does itself here.
	for _, rate := range []float64{floor, mean(ours.rates) / 2} {
		if err := b.schedule(&t, rate); err != nil {
			return err
		}
	}

	return nil
}

// generated adds what another tool measures.
func (m *measured) generated(b *bench, g *generator, url string, seconds int) error {
	args := g.args(b, url, seconds)
	m.name = g.command

	cmd := exec.CommandContext(b.ctx, g.command, args...) //nolint:gosec // our own URL

	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", g.command, err, tail(out))
	}

	figures, err := g.read(out)
	if err != nil {
		return err
	}

	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()

	m.rates = append(m.rates, figures[g.rate])
	m.cpus = append(m.cpus, float64(used)/1e3/max(figures[g.done], 1))
	m.failed += int64(figures[g.failed])

	if g.p50 != "" {
		m.p50 = append(m.p50, figures[g.p50])
		m.p99 = append(m.p99, figures[g.p99])
	}

	return nil
}

// read finds the figure of each pattern; times are in microseconds.
func (g *generator) read(out []byte) (map[string]float64, error) {
	figures := map[string]float64{}

	for _, pattern := range []string{g.rate, g.p50, g.p99, g.done, g.failed} {
		if pattern == "" {
			continue
		}

		found := regexp.MustCompile(pattern).FindSubmatch(out)
		if found == nil {
			return nil, fmt.Errorf("%s prints nothing like %q: %s", g.command, pattern, tail(out))
		}

		text := strings.ReplaceAll(string(found[1]), " ", "")

		if d, err := time.ParseDuration(text); err == nil {
			figures[pattern] = float64(d) / 1e3

			continue
		}

		v, err := strconv.ParseFloat(text, 64)
		if err != nil {
			return nil, fmt.Errorf("%s: %q: %w", g.command, text, err)
		}

		figures[pattern] = v
	}

	return figures, nil
}

// floor is a rate at which the open loop has to be in time.
const floor = 50_000

// schedule tells how well the open loop holds its schedule at half of the closed loop's rate.
func (b *bench) schedule(t *target, rate float64) error {
	plan, err := t.plan(b.duration)
	if err != nil {
		return err
	}

	plan.Rate, plan.Concurrency, plan.Warmup = rate, 1000, time.Second/2

	res, err := loadtest.Run(b.ctx, plan)
	if err != nil {
		return fmt.Errorf("open loop: %w", err)
	}

	const late = 100 // µs

	q := res.Schedule.Quantiles([]float64{0.5, 0.99})
	if rate == floor {
		b.report.hold("load tool: µs behind its schedule at p99, at 50,000 requests/s", float64(q[1])/1e3, late, false)
	}

	b.report.text("Open loop at %.0f requests/s (Poisson): they started %v late in the median and %v at p99, making the request included; %d of %d found no free connection. "+
		"CPU of the tool: %s a request, and %.2f s of %.1f s for waiting without sleep.", rate, q[0].Round(time.Microsecond), q[1].Round(time.Microsecond),
		res.Wait.Count(), res.Requests, micros(float64(res.Client.PerRequest)/1e3), res.Client.Waiting.Seconds(), res.Elapsed.Seconds())

	return nil
}
