package loadtest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// Plan describes one run.
type Plan struct {
	// Name stands in reports.
	Name     string
	Endpoint wire.Endpoint
	// NewSource makes the source of requests of one sender.
	NewSource func(sender int) wire.Source
	// Targets are the names in the mix, at least one.
	Targets []string

	// Rate is in requests per second; 0 makes the loop closed.
	Rate  float64
	Shape Shape
	From  float64 // see ArrivalsConfig
	Steps int

	// Concurrency is the number of callers of a closed loop; of an open one, the most connections.
	Concurrency int
	InFlight    int // messages on one WebSocket
	Binary      bool
	HeadOnly    bool
	Stream      bool

	Warmup, Duration time.Duration
	Timeout          time.Duration
	Requests         int64   // most requests, 0 for any number
	MaxRate          float64 // ceiling, 0 for none
	Threads          int     // 0 for as many as are needed
	// BusyWait is how long an open loop does not sleep before a request is due. It is left out where that
	// would take the last processor.
	BusyWait time.Duration
	Seed     uint64
	// UntilStable ends the run early when three windows of this length agree; 0 does not.
	UntilStable time.Duration
	// OnRow is called for each second when it is over.
	OnRow func(measure.Row)
}

// Limits of a Plan.
const (
	maxConnections = 100_000
	maxThreads     = 256
	// MaxRate is more than any machine sends. Each arrival that could not be sent is counted, which takes time.
	MaxRate = 10_000_000
)

func (p *Plan) check() error {
	switch {
	case p.Concurrency < 1 || p.Concurrency > maxConnections:
		return fmt.Errorf("concurrency %d: want 1 to %d", p.Concurrency, maxConnections)
	case p.Duration <= 0 || p.Warmup < 0 || p.Timeout <= 0:
		return errors.New("duration and time-out must be positive, the warm-up not negative")
	case p.Threads < 0 || p.Threads > maxThreads:
		return fmt.Errorf("threads %d: want 1 to %d", p.Threads, maxThreads)
	case p.Rate < 0 || math.IsNaN(p.Rate) || math.IsInf(p.Rate, 0):
		return fmt.Errorf("rate %v: must be positive", p.Rate)
	case max(p.Rate, p.From) > MaxRate:
		return fmt.Errorf("rate %v: at most %d a second", max(p.Rate, p.From), MaxRate)
	case p.MaxRate > 0 && max(p.Rate, p.From) > p.MaxRate:
		return fmt.Errorf("rate %v is above the ceiling of %v", max(p.Rate, p.From), p.MaxRate)
	case p.NewSource == nil || len(p.Targets) == 0:
		return errors.New("nothing to send")
	}

	return nil
}

func (p *Plan) threads() int {
	n := p.Threads
	if n == 0 {
		n = runtime.GOMAXPROCS(0)
		if p.Rate > 0 {
			// What one thread sends with ease; the other processors stay with the server, if it is here.
			const easy = 120_000

			n = min(n, int(p.Rate/easy)+1)
		}
	}

	n = min(n, p.Concurrency)
	if p.Requests > 0 {
		n = int(min(int64(n), p.Requests))
	}

	return n
}

// interruptGrace is how long answers may take behind an interrupt.
const interruptGrace = 2 * time.Second

// Run carries out a plan. When ctx ends, the run does so too, and what was measured until then is the result.
func Run(ctx context.Context, p Plan) (*Result, error) {
	if err := p.check(); err != nil {
		return nil, err
	}

	r := &runner{plan: p, shared: wire.NewShared(p.Warmup+p.Duration, p.Timeout, p.Requests)}

	if err := r.build(); err != nil {
		return nil, err
	}

	if err := r.prepare(ctx); err != nil {
		return nil, err
	}

	return r.run(ctx)
}

type runner struct {
	plan      Plan
	shared    *wire.Shared
	collector *measure.Collector
	loops     []*wire.Loop
	stability *stability
	stopped   atomic.Bool // by stability
}

func (r *runner) build() error {
	p := &r.plan
	n := p.threads()
	processors := runtime.GOMAXPROCS(0)

	r.stability = newStability(p.UntilStable)
	r.collector = measure.NewCollector(measure.Config{
		Workers: n, Targets: len(p.Targets), Warmup: p.Warmup, Duration: p.Duration, OnRow: r.row,
	})

	for i := range n {
		cfg := wire.Config{
			Endpoint: p.Endpoint, Connections: share(p.Concurrency, i, n), InFlight: p.InFlight, Binary: p.Binary,
			Timeout: p.Timeout, HeadOnly: p.HeadOnly, Stream: p.Stream, Seed: p.Seed + uint64(i),
		}

		if p.Rate > 0 {
			arrivals, err := NewArrivals(ArrivalsConfig{
				Shape: p.Shape, Rate: p.Rate, From: p.From, Steps: p.Steps, Duration: p.Warmup + p.Duration, Seed: p.Seed, Share: i, Of: n,
			})
			if err != nil {
				return err
			}

			cfg.Schedule = arrivals
			if n < processors {
				cfg.Spin = p.BusyWait
			}

			cfg.Initial = min(cfg.Connections, initialConnections(p.Rate/float64(n)))
		} else if p.MaxRate > 0 {
			cfg.Pace = time.Duration(float64(n) / p.MaxRate * float64(time.Second))
		}

		loop, err := wire.New(cfg, r.shared, p.NewSource(i), r.collector.Worker(i))
		if err != nil {
			r.close()

			return fmt.Errorf("load loop: %w", err)
		}

		r.loops = append(r.loops, loop)
	}

	return nil
}

// initialConnections is what answers within ten milliseconds would need; more are made when they are missed.
func initialConnections(rate float64) int {
	const least, most = 4, 64

	return int(min(max(rate/100, least), most))
}

// share deals total out to n; the first ones get one more if it does not divide.
func share(total, i, n int) int {
	s := total / n
	if i < total%n {
		s++
	}

	return s
}

func (r *runner) close() {
	for _, l := range r.loops {
		l.Close()
	}
}

// prepare makes the first connections of all loops.
func (r *runner) prepare(ctx context.Context) error {
	errs := make([]error, len(r.loops))

	var wg sync.WaitGroup

	for i, l := range r.loops {
		wg.Go(func() { errs[i] = l.Prepare(ctx) })
	}

	wg.Wait()

	if err := errors.Join(errs...); err != nil {
		r.close()

		return errs[firstError(errs)]
	}

	return nil
}

func firstError(errs []error) int {
	for i, err := range errs {
		if err != nil {
			return i
		}
	}

	return 0
}

func (r *runner) run(ctx context.Context) (*Result, error) {
	// Each loop blocks a thread in system calls; one more lets the collector and new connections run beside them.
	if want := len(r.loops) + 2; want > runtime.GOMAXPROCS(0) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(want))
	}

	before := takeUsage()
	merged := make(chan struct{})

	go func() {
		defer close(merged)
		r.collector.Run()
	}()

	r.shared.Start()

	stopWatch := context.AfterFunc(ctx, func() { r.stop(interruptGrace) })
	defer stopWatch()

	// The loops outlive ctx by the grace.
	errs := make([]error, len(r.loops))

	var wg sync.WaitGroup

	for i, l := range r.loops {
		wg.Go(func() { errs[i] = l.Run(context.WithoutCancel(ctx)) })
	}

	wg.Wait()
	<-merged

	ended := r.shared.Now()

	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("load loop: %w", err)
	}

	res := r.result(ended)
	res.Interrupted = ctx.Err() != nil
	res.Client = r.client(before, takeUsage())

	return res, nil
}

func (r *runner) stop(grace time.Duration) {
	r.shared.Stop(grace)
	r.collector.SetEnd(max(min(r.collector.End(), r.shared.Now()), r.plan.Warmup))
}

// row runs on the collector's goroutine.
func (r *runner) row(row measure.Row) {
	if r.plan.OnRow != nil {
		r.plan.OnRow(row)
	}

	// Seconds that are measured in part only would not agree with the others.
	begin := time.Duration(row.Second) * time.Second
	if begin >= r.plan.Warmup && begin+time.Second <= r.collector.End() {
		r.stability.add(row)
	}

	if r.plan.UntilStable > 0 && r.stability.settled() && r.stopped.CompareAndSwap(false, true) {
		r.stop(r.plan.Timeout)
	}
}
