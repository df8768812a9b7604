package main

import (
	"fmt"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

// tool compares the load tool with wrk on the same server, in turn.
func (b *bench) tool() error {
	if _, err := exec.LookPath("wrk"); err != nil {
		return skip("wrk is not installed (apt-get install wrk)")
	}

	n, err := b.nginx("")
	if err != nil {
		return err
	}
	defer n.close()

	const callers = 64

	t := target{name: "sluice loadtest", url: n.url, method: "GET", concurrency: callers}
	ours, theirs, h2load := measured{name: t.name}, measured{name: "wrk -t2 -c64"}, measured{name: "h2load --h1 -t2 -c64"}
	_, without := exec.LookPath("h2load")
	each := max(b.duration/time.Duration(b.rounds), time.Second).Round(time.Second)

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

		if err := theirs.wrk(b, n.url, each); err != nil {
			return err
		}

		if without == nil {
			if err := h2load.h2load(b, n.url, each); err != nil {
				return err
			}
		}
	}

	list := []measured{theirs, ours}
	if without == nil {
		list = append(list, h2load)
	}

	b.comparison(list)

	if without != nil {
		b.report.text("h2load is not installed (apt-get install nghttp2-client).")
	}

	b.report.text("The same nginx with a constant answer, 64 connections, two threads. The CPU is that of the tool itself.")

	// What the tool must hold at least, and what it does itself here.
	const floor = 50_000

	for _, rate := range []float64{floor, mean(ours.rates) / 2} {
		if err := b.schedule(&t, rate); err != nil {
			return err
		}
	}

	return nil
}

func (m *measured) wrk(b *bench, url string, d time.Duration) error {
	cmd := exec.CommandContext(b.ctx, "wrk", "-t2", "-c64", "--latency", "-d"+strconv.Itoa(int(d.Seconds()))+"s", url) //nolint:gosec // our own URL

	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("wrk: %w", err)
	}

	find := func(pattern string) float64 {
		f := regexp.MustCompile(pattern).FindSubmatch(out)
		if f == nil {
			return 0
		}

		if d, err := time.ParseDuration(string(f[1])); err == nil {
			return float64(d) / 1e3
		}

		v, err := strconv.ParseFloat(string(f[1]), 64)
		if err != nil {
			return 0
		}

		return v
	}

	m.rates = append(m.rates, find(`Requests/sec:\s+([0-9.]+)`))
	m.p50 = append(m.p50, find(`50%\s+([0-9.]+[a-z]+)`))
	m.p99 = append(m.p99, find(`99%\s+([0-9.]+[a-z]+)`))

	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	m.cpus = append(m.cpus, float64(used)/1e3/max(find(`([0-9]+) requests in`), 1))

	return nil
}

// h2load tells no percentiles but the mean.
func (m *measured) h2load(b *bench, url string, d time.Duration) error {
	cmd := exec.CommandContext(b.ctx, "h2load", "--h1", "-t2", "-c64", "-D"+strconv.Itoa(int(d.Seconds())), url) //nolint:gosec // our own URL

	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("h2load: %w", err)
	}

	f := regexp.MustCompile(`finished in [0-9.]+s, ([0-9.]+) req/s(?s:.*)requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed`).FindSubmatch(out)
	if f == nil {
		return fmt.Errorf("h2load tells no rate: %s", tail(out))
	}

	value := func(i int) float64 {
		v, err := strconv.ParseFloat(string(f[i]), 64)
		if err != nil {
			return 0
		}

		return v
	}

	used := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()

	m.rates = append(m.rates, value(1))
	m.cpus = append(m.cpus, float64(used)/1e3/max(value(2), 1))
	m.failed += int64(value(3))

	return nil
}

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

	q := res.Schedule.Quantiles([]float64{0.5, 0.99})
	b.report.text("Open loop at %.0f requests/s (Poisson): they started %v late in the median and %v at p99, making the request included; %d of %d found no free connection. "+
		"CPU of the tool: %s a request, and %.2f s of %.1f s for waiting without sleep.", rate, q[0].Round(time.Microsecond), q[1].Round(time.Microsecond),
		res.Wait.Count(), res.Requests, micros(float64(res.Client.PerRequest)/1e3), res.Client.Waiting.Seconds(), res.Elapsed.Seconds())

	return nil
}
