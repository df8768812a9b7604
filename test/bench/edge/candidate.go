package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// candidate is one way to an answer.
type candidate struct {
	name string
	url  string
	// proxy is what stands in the middle; its children belong to it unless they are engines.
	proxy *process
	// engine is what answers, nil if the children of proxy do.
	engine *process
	// engines is true if the children of proxy are the engines.
	engines bool
	rounds  []round
}

// round is one run against a candidate.
type round struct {
	load

	proxy, engine time.Duration // CPU time per request
}

// cpu reads the CPU time of both sides.
func (c *candidate) cpu() (proxy, engine time.Duration, err error) {
	own, rest, err := cpuOf(c.proxy)
	if err != nil {
		return 0, 0, err
	}

	if c.engines {
		return own, rest, nil
	}

	proxy = own
	if c.engine != nil {
		var children time.Duration
		if own, children, err = cpuOf(c.engine); err != nil {
			return 0, 0, err
		}

		engine = own + children
	}

	// What Sluice's other services do meanwhile is no part of this way.
	if c.proxy.name != "sluice" {
		proxy += rest
	}

	return proxy, engine, nil
}

// run drives the candidate once and keeps the round.
func (c *candidate) run(ctx context.Context, script string, conns int, length time.Duration) error {
	proxy, engine, err := c.cpu()
	if err != nil {
		return err
	}

	l, err := drive(ctx, script, c.url, conns, length)
	if err != nil {
		return fmt.Errorf("%s: %w", c.name, err)
	}

	if l.failed > 0 {
		return fmt.Errorf("%s: %d of %d requests failed", c.name, l.failed, l.requests)
	}

	proxyAfter, engineAfter, err := c.cpu()
	if err != nil {
		return err
	}

	n := time.Duration(l.requests)
	c.rounds = append(c.rounds, round{load: l, proxy: (proxyAfter - proxy) / n, engine: (engineAfter - engine) / n})

	return nil
}

// summary is the median of each number over the rounds.
func (c *candidate) summary() summary {
	return summary{
		rate:   middle(c.rounds, func(r round) float64 { return r.rate() }),
		p50:    middle(c.rounds, func(r round) float64 { return micros(r.p50) }),
		p99:    middle(c.rounds, func(r round) float64 { return micros(r.p99) }),
		proxy:  middle(c.rounds, func(r round) float64 { return micros(r.proxy) }),
		engine: middle(c.rounds, func(r round) float64 { return micros(r.engine) }),
		whole:  middle(c.rounds, func(r round) float64 { return micros(r.proxy + r.engine) }),
	}
}

// summary is in requests per second and microseconds.
type summary struct{ rate, p50, p99, proxy, engine, whole float64 }

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func middle(rounds []round, of func(round) float64) float64 {
	if len(rounds) == 0 {
		return 0
	}

	values := make([]float64, len(rounds))
	for i, r := range rounds {
		values[i] = of(r)
	}

	slices.Sort(values)

	if n := len(values); n%2 == 0 {
		return (values[n/2-1] + values[n/2]) / 2
	}

	return values[len(values)/2]
}

// turns drives all candidates in turn, A B C A B C, so that a slow minute of the machine hits all.
func turns(ctx context.Context, all []*candidate, script string, conns int, o *options) error {
	for _, c := range all {
		// The first second is not measured: connections, pools and caches fill.
		if _, err := drive(ctx, script, c.url, conns, time.Second); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}

	for range o.rounds {
		for _, c := range all {
			if err := ctx.Err(); err != nil {
				return errors.New("interrupted")
			}

			if err := c.run(ctx, script, conns, o.length); err != nil {
				return err
			}
		}
	}

	return nil
}
