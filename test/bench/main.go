package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/loadtest"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	if err := run(ctx, os.Args[1:], os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1) //nolint:gocritic,forbidigo // this is func main, and nothing is left to be undone
	}
}

type options struct {
	out, only string
	duration  time.Duration
	rounds    int
	quick     bool
	gpu       gpuOptions
}

// bench is one run of the suite.
type bench struct {
	options

	ctx context.Context //nolint:containedctx // lives as long as the one run of this command
	log io.Writer
	dir string
	// runtime and loop are built beforehand, or "" for the usual ones.
	runtime, loop string

	report *report
	sluice *system
	echo   *upstream
}

// part is one section of the report.
type part struct {
	name, title string
	run         func(*bench) error
}

func parts() []part {
	return []part{
		{"tool", "The load tool against wrk", (*bench).tool},
		{"edge", "Edge against nginx and HAProxy", (*bench).edge},
		{"doors", "The edge's own suite", (*bench).doors},
		{"worker", "Worker against a bare ONNX Runtime loop", (*bench).worker},
		{"saturation", "Worker at saturation against a bare ONNX Runtime loop", (*bench).saturation},
		{"gpu", "Worker on a GPU against a bare ONNX Runtime loop", (*bench).onDevice},
		{"overload", "Worker at three times its capacity", (*bench).overload},
		{"reload", "Memory over 1,000 loads", (*bench).reload},
		{"rivals", "Worker against Flask and Node servers with onnxruntime", (*bench).rivals},
		{"batching", "Batching curve", (*bench).batching},
		{"auth", "Cost of authenticating", (*bench).auth},
		{"payload", "Growth with the payload", (*bench).payload},
		{"memory", "Memory of connections", (*bench).memory},
		{"services", "Growth with services", (*bench).services},
		{"keys", "Growth with keys and app codes", (*bench).keys},
		{"upgrade", "Upgrade under load", (*bench).upgrade},
		{"start", "Cold start and reload", (*bench).start},
	}
}

// skipError is the reason why a part was not measured.
type skipError struct{ reason string }

// Error implements error.
func (e *skipError) Error() string { return e.reason }

func skip(format string, args ...any) error { return &skipError{fmt.Sprintf(format, args...)} }

func run(ctx context.Context, args []string, log io.Writer) (err error) {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	fs.SetOutput(log)

	b := &bench{ctx: ctx, log: log, report: &report{}}

	const (
		duration = 6 * time.Second
		rounds   = 3
	)

	fs.StringVar(&b.out, "out", filepath.Join("docs", "benchmarks", time.Now().Format(time.DateOnly)+".md"), "report to write")
	fs.StringVar(&b.only, "only", "", "parts to run, with commas (default: all)")
	fs.DurationVar(&b.duration, "duration", duration, "time for each target in a comparison, in all rounds")
	fs.IntVar(&b.rounds, "rounds", rounds, "rounds A B A B of a comparison")

	b.gpu.flags(fs)
	fs.BoolVar(&b.quick, "quick", false, "short rounds: the whole suite in some minutes, with wide ranges")

	if err := fs.Parse(args); err != nil {
		return err //nolint:wrapcheck // the flag package has told everything
	}

	if b.quick {
		b.duration, b.rounds = time.Second, 2
	}

	if b.duration <= 0 || b.rounds < 1 || fs.NArg() > 0 {
		return errors.New("want a positive -duration, at least one of -rounds, and no arguments")
	}

	if err := errors.Join(b.known(), b.gpu.check()); err != nil {
		return err
	}

	if b.only == "gpu" {
		if why := b.gpu.missing(here()); why != "" {
			b.say("bench: gpu: skipped: %s\n", why)

			return nil
		}
	}

	defer loadtest.Calm()()

	if b.dir, err = os.MkdirTemp("", "sluice-bench-"); err != nil {
		return fmt.Errorf("temporary directory: %w", err)
	}

	defer func() { err = errors.Join(err, os.RemoveAll(b.dir)) }()

	if b.echo, err = startUpstream(); err != nil {
		return err
	}
	defer b.echo.close()

	defer func() {
		if b.sluice != nil {
			b.sluice.close()
		}
	}()

	for _, p := range parts() {
		if !b.wanted(p.name) {
			continue
		}

		if ctx.Err() != nil {
			return ctx.Err() //nolint:wrapcheck // interrupted
		}

		b.one(p)
	}

	b.report.verdict()

	return b.report.write(b.out, args)
}

// wanted reports whether a part is to be run. The one that needs a GPU is left out where there is none, unless it is asked for.
func (b *bench) wanted(name string) bool {
	if b.only == "" {
		return name != "gpu" || b.gpu.missing(here()) == ""
	}

	return strings.Contains(","+b.only+",", ","+name+",")
}

// known finds names in -only that no part has.
func (b *bench) known() error {
	names := make([]string, 0, len(parts()))
	for _, p := range parts() {
		names = append(names, p.name)
	}

	for name := range strings.SplitSeq(b.only, ",") {
		if name != "" && !slices.Contains(names, name) {
			return fmt.Errorf("-only %s: there is no such part; there are %s", name, strings.Join(names, ", "))
		}
	}

	return nil
}

// one runs a part. What goes wrong stands in the report, and the others are measured all the same.
func (b *bench) one(p part) {
	b.say("== %s\n", p.title)
	b.report.section(p.title)
	b.report.text("`make bench BENCHFLAGS='-only %s'`", p.name)

	err := p.run(b)

	var skipped *skipError

	switch {
	case errors.As(err, &skipped):
		b.report.text("Skipped: %s.", skipped.reason)
	case err != nil:
		b.report.text("**Failed:** %v", err)
	}

	if err != nil {
		b.say("   %v\n", err)
	}
}

// say tells the progress; that nobody may be listening does not matter.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(b.log, format, args...) //nolint:errcheck // see above
}

// system returns the Sluice under test, started when it is first needed.
func (b *bench) system() (*system, error) {
	if b.sluice != nil {
		return b.sluice, nil
	}

	s, err := startSystem(b.ctx, filepath.Join(b.dir, "data"))
	if err != nil {
		return nil, err
	}

	b.sluice = s

	return s, nil
}
