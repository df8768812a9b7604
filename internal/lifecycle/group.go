// Package lifecycle runs the parts of a process: all start together, the first failure stops all
// and says who it was, and they stop one after the other in a fixed order.
//
// A Group is filled and run once, by one goroutine. It owns the goroutines of its parts; when Run
// returns, all of them have ended, unless the grace period ran out, in which case Run says which did not.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
)

// Group is an ordered list of parts.
type Group struct {
	log   *slog.Logger
	grace time.Duration
	parts []*part
}

type part struct {
	name   string
	run    func(ctx context.Context) error
	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
}

// New returns an empty group. grace bounds the whole stop, from the first signal to the end of the
// last part; it must be positive.
func New(log *slog.Logger, grace time.Duration) *Group {
	return &Group{log: log, grace: grace}
}

// Add appends a part. Parts stop in reverse order: what is added last, usually what faces
// clients, stops first and has ended before the one added before it is told to stop.
// run must return soon after its context ends.
func (g *Group) Add(name string, run func(ctx context.Context) error) {
	g.parts = append(g.parts, &part{name: name, run: run, done: make(chan struct{})})
}

// Run starts every part and returns when all have ended. It stops them when ctx ends, or when one
// of them returns: with an error, or without one before it was asked to stop.
func (g *Group) Run(ctx context.Context) error {
	// Parts outlive ctx: they are cancelled one by one.
	base := context.WithoutCancel(ctx)
	ended := make(chan *part, len(g.parts))

	for _, p := range g.parts {
		inner, cancel := context.WithCancel(base)
		p.cancel = cancel

		go func() {
			defer cancel()

			p.err = p.guarded(inner)
			close(p.done)
			ended <- p
		}()
	}

	var first error

	select {
	case <-ctx.Done():
	case p := <-ended:
		first = fmt.Errorf("%s: %w", p.name, p.failure())
		g.log.Error("a part of the process ended", slog.String("part", p.name), slog.String("err", p.failure().Error()))
	}

	return errors.Join(first, g.stop(first))
}

var (
	errEnded = errors.New("ended without being asked to")
	errStuck = errors.New("did not stop in time")
)

func (p *part) failure() error {
	if p.err != nil {
		return p.err
	}

	return errEnded
}

func (p *part) guarded(ctx context.Context) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("panic: %v", v)
		}
	}()

	return p.run(ctx)
}

// stop ends the parts in reverse order and collects what went wrong meanwhile. first was reported already.
func (g *Group) stop(first error) error {
	limit := time.NewTimer(g.grace)
	defer limit.Stop()

	var errs []error

	late := false

	for _, p := range slices.Backward(g.parts) {
		p.cancel()

		if !late {
			select {
			case <-p.done:
			case <-limit.C:
				late = true
			}
		}

		select {
		case <-p.done:
			if p.err != nil && !errors.Is(p.err, context.Canceled) && !errors.Is(first, p.err) {
				errs = append(errs, fmt.Errorf("%s: %w", p.name, p.err))
			}
		default:
			errs = append(errs, fmt.Errorf("%s: %w", p.name, errStuck))
		}
	}

	return errors.Join(errs...)
}
