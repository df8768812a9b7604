package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// belowHalf is the part of the rate at saturation that an open loop sends.
const belowHalf = 0.45

// open is a way to an answer under an open loop: requests come at a rate, whether or not earlier ones were
// answered, and their latency counts from when they were due.
type open struct {
	name, url string
	rate      float64
	rounds    []opened
}

// opened is what one run has seen; late is how late this generator itself was, 99 times in 100 at most.
type opened struct{ p50, p99, late time.Duration }

func (w *open) middle(of func(opened) time.Duration) float64 {
	values := make([]time.Duration, 0, len(w.rounds))
	for _, r := range w.rounds {
		values = append(values, of(r))
	}

	slices.Sort(values)

	if len(values) == 0 {
		return 0
	}

	return micros(values[len(values)/2])
}

func (w *open) p50() float64  { return w.middle(func(r opened) time.Duration { return r.p50 }) }
func (w *open) p99() float64  { return w.middle(func(r opened) time.Duration { return r.p99 }) }
func (w *open) late() float64 { return w.middle(func(r opened) time.Duration { return r.late }) }

// same is a source of one request.
type same []byte

// Append implements wire.Source.
func (s same) Append([]byte, int64) (request []byte, target int) { return s, 0 }

// run sends for a while and keeps the round.
func (w *open) run(ctx context.Context, token string, o *options) error {
	u, err := url.Parse(w.url)
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}

	raw := same(fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nX-Auth-Token: %s\r\nContent-Length: %d\r\n\r\n%s",
		u.Path, u.Host, token, len(request), request))

	res, err := loadtest.Run(ctx, loadtest.Plan{
		Name: w.name, Endpoint: wire.Endpoint{Network: "tcp", Addresses: []string{u.Host}, Timeout: time.Second},
		NewSource: func(int) wire.Source { return raw }, Targets: []string{w.name},
		Rate: w.rate, Shape: loadtest.Poisson, Concurrency: o.conns, Threads: 1,
		Warmup: time.Second, Duration: o.length, Timeout: 10 * time.Second,
	})
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}

	if err := ctx.Err(); err != nil {
		return errors.New("interrupted")
	}

	if res.Failed > 0 || res.Requests == 0 {
		return fmt.Errorf("%s at %.0f requests/s: %d of %d requests failed", w.name, w.rate, res.Failed, res.Requests)
	}

	w.rounds = append(w.rounds, opened{p50: res.Latency.Quantile(0.5), p99: res.Latency.Quantile(0.99), late: res.Schedule.Quantile(0.99)})

	return nil
}

// openTurns drives all in turn.
func (b *bed) openTurns(ctx context.Context, all []*open, o *options) error {
	for range o.rounds {
		for _, w := range all {
			if err := w.run(ctx, b.token, o); err != nil {
				return err
			}
		}
	}

	return nil
}
