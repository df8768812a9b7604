package main

import (
	"crypto/tls"
	"fmt"
	"maps"
	"math"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/request"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// target is one of several that are measured in turn.
type target struct {
	name   string
	url    string
	method string
	body   []byte
	fields []request.Field
	// server is whose processor time is read; nil for none.
	server      *process
	concurrency int // 0 means 32
	item        func(*request.Item)
}

// measured is what came out for one target.
type measured struct {
	name        string
	rates, cpus []float64 // of each round; cpus in µs for one request
	p50, p99    []float64 // µs
	failed      int64
	errors      map[string]int64
}

// turns runs all targets, round after round.
func (b *bench) turns(targets ...target) ([]measured, error) {
	out := make([]measured, len(targets))

	for round := range b.rounds + 1 {
		for i := range targets {
			t := &targets[i]

			plan, err := t.plan(b.duration / time.Duration(b.rounds))
			if err != nil {
				return nil, err
			}

			if round == 0 { // everybody warms up
				plan.Duration = min(plan.Duration, time.Second)
			}

			before := t.cpu()

			res, err := loadtest.Run(b.ctx, plan)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", t.name, err)
			}

			if res.Interrupted {
				return nil, b.ctx.Err() //nolint:wrapcheck // interrupted
			}

			if round > 0 {
				out[i].add(t, res, t.cpu()-before)
			}
		}
	}

	return out, nil
}

func (t *target) cpu() time.Duration {
	if t.server == nil {
		return 0
	}

	return t.server.cpu()
}

func (m *measured) add(t *target, r *loadtest.Result, cpu time.Duration) {
	m.name = t.name
	m.failed += r.Failed

	for i := range r.Errors {
		if m.errors == nil {
			m.errors = map[string]int64{}
		}

		m.errors[r.Errors[i].Text()] += r.Errors[i].Count
	}

	m.rates = append(m.rates, r.Good)
	m.p50 = append(m.p50, float64(r.Latency.Quantile(0.5))/1e3)
	m.p99 = append(m.p99, float64(r.Latency.Quantile(0.99))/1e3)
	m.cpus = append(m.cpus, float64(cpu)/1e3/float64(max(r.Requests, 1)))
}

// plan makes a closed loop against the target.
func (t *target) plan(d time.Duration) (loadtest.Plan, error) {
	const (
		callers = 32
		timeout = 10 * time.Second

		busyWait = 200 * time.Microsecond // as in the tool
	)

	u, err := url.Parse(t.url)
	if err != nil {
		return loadtest.Plan{}, fmt.Errorf("%s: %w", t.name, err)
	}

	item := request.Item{Name: t.name, Method: firstOf(t.method, "POST"), Target: firstOf(u.RequestURI(), "/"), Host: u.Host, Fields: t.fields, Body: t.body, Binary: true}
	if t.item != nil {
		t.item(&item)
	}

	mix, err := request.NewMix([]request.Item{item})
	if err != nil {
		return loadtest.Plan{}, fmt.Errorf("%s: %w", t.name, err)
	}

	p := loadtest.Plan{
		Name: t.name, Endpoint: endpoint(u), Targets: mix.Names(), BusyWait: busyWait,
		NewSource: func(i int) wire.Source { return mix.Source(i, 1) }, Concurrency: t.concurrency, Duration: d, Timeout: timeout,
	}
	if p.Concurrency == 0 {
		p.Concurrency = callers
	}

	return p, nil
}

// endpoint is where a URL leads. The certificates are those of a system that the suite itself has started.
func endpoint(u *url.URL) wire.Endpoint {
	e := wire.Endpoint{Network: "tcp", Addresses: []string{u.Host}}
	if u.Scheme == "https" {
		e.TLS = &tls.Config{InsecureSkipVerify: true} //nolint:gosec // see above
	}

	return e
}

// comparison writes a table in which the first target is what the others are held against.
func (b *bench) comparison(list []measured) {
	rows := make([][]string, 0, len(list))

	for i := range list {
		m := &list[i]
		rows = append(rows, []string{
			m.name, number(mean(m.rates)), ratio(m.rates, list[0].rates), micros(mean(m.p50)), micros(mean(m.p99)),
			micros(mean(m.cpus)), ratio(m.cpus, list[0].cpus), strconv.FormatInt(m.failed, 10),
		})
	}

	b.report.table([]string{"target", "requests/s", "ratio", "p50", "p99", "CPU a request", "ratio", "failed"}, rows)
	b.failures(list...)
}

// failures names what failed, if anything did.
func (b *bench) failures(list ...measured) {
	for i := range list {
		for _, text := range slices.Sorted(maps.Keys(list[i].errors)) {
			b.report.text("Failed at %s: %d × %s.", list[i].name, list[i].errors[text], text)
		}
	}
}

// ratio is the geometric mean of the rounds' ratios, with the least and the greatest.
func ratio(of, to []float64) string {
	rs := make([]float64, 0, len(of))
	sum := 0.0

	for i := range of {
		if to[i] <= 0 || of[i] <= 0 {
			return "–"
		}

		r := of[i] / to[i]
		rs = append(rs, r)
		sum += math.Log(r)
	}

	if len(rs) == 0 {
		return "–"
	}

	return fmt.Sprintf("%.2f (%.2f–%.2f)", math.Exp(sum/float64(len(rs))), slices.Min(rs), slices.Max(rs))
}

func mean(list []float64) float64 {
	sum := 0.0
	for _, v := range list {
		sum += v
	}

	return sum / float64(max(len(list), 1))
}

func number(f float64) string {
	switch {
	case f >= 100:
		return strconv.FormatFloat(f, 'f', 0, 64)
	default:
		return strconv.FormatFloat(f, 'g', 3, 64)
	}
}

func micros(f float64) string {
	if f == 0 {
		return "–"
	}

	return number(f) + " µs"
}
