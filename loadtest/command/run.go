package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-gateway/sluice/loadtest"
	"github.com/sluice-gateway/sluice/loadtest/report"
	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// session is one call of the command.
type session struct {
	flags    *flags
	parsed   *parsed
	resolver *resolver
	target   *target
	stdout   io.Writer
	stderr   io.Writer
	report   *report.Report
	pooled   bool // --concurrency was given
}

func (f *flags) run(cmd *cobra.Command, version string) error {
	p, err := f.parse(cmd)
	if err != nil {
		return err
	}

	s := &session{flags: f, parsed: p, stdout: cmd.OutOrStdout(), stderr: cmd.ErrOrStderr(), pooled: cmd.Flags().Changed("concurrency")}

	files, err := s.create()
	if err != nil {
		return err
	}

	if s.resolver, err = newResolver(f, cmd.InOrStdin()); err != nil {
		return errors.Join(err, files.discard())
	}

	// The first signal ends the run with a report, the second one ends the process.
	ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	defer context.AfterFunc(ctx, stop)()

	s.report = &report.Report{Version: version, Command: append([]string{"sluice"}, os.Args[1:]...), Started: time.Now().Round(time.Millisecond), SLO: p.slo}
	hideSecrets(s.report.Command)

	err = s.do(ctx)

	// What an interrupt cuts short is no mistake of the target.
	if s.report.Interrupted = ctx.Err() != nil; err != nil && s.report.Interrupted {
		err = errEarly
	} else if err != nil {
		return errors.Join(err, files.discard())
	}

	if werr := s.write(files); werr != nil {
		return errors.Join(werr, err)
	}

	switch b := s.report.Baseline; {
	case err != nil:
		return err
	case !s.report.Met():
		return ErrMissed
	case b != nil && b.Worse:
		return ErrWorse
	default:
		return nil
	}
}

// do looks at the target and runs the load.
func (s *session) do(ctx context.Context) error {
	var err error
	if s.target, err = s.resolver.resolve(ctx); err != nil {
		return err
	}

	s.report.Target = s.target.name
	s.report.Method = s.target.items[0].Method

	if err := s.look(ctx, s.target); err != nil {
		return err
	}

	var before []modelStats
	if s.speaksV2() {
		before = s.resolver.stats(ctx, s.target)
	}

	defer loadtest.Calm()()

	if err := s.mode(ctx); err != nil {
		return err
	}

	if before != nil && s.report.Comparison == nil {
		// The run may have been interrupted; the reading is short all the same.
		after := s.resolver.stats(context.WithoutCancel(ctx), s.target)
		s.report.Server = split(before, after, "V2 statistics, one instance")
	}

	return nil
}

// speaksV2 tells whether the target may be asked for statistics: no other server gets requests that nobody asked for.
func (s *session) speaksV2() bool {
	path := s.target.url.Path

	return len(s.flags.services) > 0 || s.flags.mix != "" || s.flags.v2 != "" || strings.HasPrefix(path, "/v1/infers/") || strings.Contains(path, "/v2/")
}

// look sends the first request.
func (s *session) look(ctx context.Context, t *target) error {
	if s.flags.noPreflight {
		return nil
	}

	notes, err := s.flags.preflight(ctx, t)
	s.report.Notes = append(s.report.Notes, notes...)

	for _, n := range notes {
		fmt.Fprintln(s.stderr, "sluice loadtest: note:", n) //nolint:errcheck // progress that nobody reads is no reason to end a run
	}

	return err
}

func (s *session) mode(ctx context.Context) error {
	switch {
	case s.parsed.levels != nil:
		return s.sweep(ctx)
	case s.parsed.search != nil:
		return s.search(ctx)
	case s.flags.compare != "":
		return s.compare(ctx)
	}

	p := s.plan(s.target)
	stored := s.parsed.stored

	if stored != nil {
		if err := stored.Fits(&p); err != nil {
			return usage("--baseline: %w", err)
		}
	}

	res, err := s.single(ctx, p)
	s.report.Main = res

	if err == nil && stored != nil {
		s.report.Baseline, err = stored.Compare(res, s.parsed.tolerance)
	}

	return err
}

// plan is the run that the flags ask for.
func (s *session) plan(t *target) loadtest.Plan {
	f := s.flags
	p := loadtest.Plan{
		Name: t.name, Endpoint: t.endpoint, Targets: t.mix.Names(), Rate: f.rate, Shape: loadtest.Shape(f.shape), From: f.from, Steps: f.steps,
		InFlight: 1, Binary: f.binaryMessages, HeadOnly: t.items[0].Method == http.MethodHead, Stream: f.stream,
		Warmup: f.warmup, Duration: f.duration, Timeout: f.timeout, Requests: f.requests, MaxRate: f.maxRate,
		Threads: f.threads, BusyWait: f.busyWait, Seed: f.seed, UntilStable: f.untilStable,
	}

	p.NewSource = func(sender int) wire.Source { return t.mix.Source(sender, f.seed) }
	if t.socket {
		p.InFlight = f.inFlight
		p.NewSource = func(sender int) wire.Source { return t.mix.Messages(sender, f.seed) }
	}

	s.setConcurrency(&p, t.socket)

	return p
}

// setConcurrency decides on the number of connections.
func (s *session) setConcurrency(p *loadtest.Plan, socket bool) {
	const most = 1000

	f := s.flags
	p.Concurrency = f.concurrency

	switch {
	case f.connections > 0:
		p.Concurrency = f.connections
	case socket && p.Rate == 0:
		// So many messages under way in all, over as few sockets as hold them.
		if !s.pooled {
			p.Concurrency = 1
		} else {
			p.Concurrency = max(f.concurrency/f.inFlight, 1)
		}
	case p.Rate > 0 && !s.pooled:
		p.Concurrency = most
	}
}

func (s *session) single(ctx context.Context, p loadtest.Plan) (*loadtest.Result, error) {
	if !s.flags.quiet {
		live := report.NewLive(s.stderr, isTerminal(s.stderr), p.Warmup, p.Duration)
		p.OnRow = live.Row

		defer live.Close()
	}

	res, err := loadtest.Run(ctx, p)
	if err != nil {
		return nil, explain(s.target, err)
	}

	return res, nil
}

func (s *session) sweep(ctx context.Context) error {
	for _, v := range s.parsed.levels.values {
		p := s.plan(s.target)

		if s.parsed.levels.rates {
			p.Rate = v
			s.setConcurrency(&p, s.target.socket)
		} else {
			p.Rate, p.Concurrency = 0, int(v)
		}

		res, err := s.single(ctx, p)
		if err != nil && ctx.Err() != nil && s.report.Main != nil {
			return nil
		}

		if err != nil {
			return err
		}

		s.report.Levels = append(s.report.Levels, res)

		if s.report.Main == nil || better(s.parsed.slo, res, s.report.Main) {
			s.report.Main = res
		}

		if res.Interrupted {
			break
		}
	}

	return nil
}

// better tells whether a level is the one to report on: it holds the SLO, and its rate is higher.
func better(slo loadtest.SLO, a, b *loadtest.Result) bool {
	_, ma := slo.Judge(a)
	_, mb := slo.Judge(b)

	if ma != mb {
		return ma
	}

	return a.Good > b.Good
}

func (s *session) search(ctx context.Context) error {
	cfg := *s.parsed.search
	cfg.OnTrial = func(t loadtest.SearchStep) {
		word := "missed"
		if t.Met {
			word = "held"
		}

		fmt.Fprintf(s.stderr, "%.4g/s: %s\n", t.Rate, word) //nolint:errcheck // progress that nobody reads is no reason to end a run
	}

	if s.flags.maxRate > 0 && (cfg.High == 0 || cfg.High > s.flags.maxRate) {
		cfg.High = s.flags.maxRate
	}

	res, err := loadtest.Search(ctx, cfg, s.parsed.slo, func(ctx context.Context, rate float64) (*loadtest.Result, error) {
		p := s.plan(s.target)
		p.Rate = rate
		s.setConcurrency(&p, s.target.socket)

		return s.single(ctx, p)
	})
	if err != nil {
		return err //nolint:wrapcheck // it tells the rate
	}

	s.report.Search = res

	switch {
	case res.Best != nil:
		s.report.Main = res.Best.Result
	case res.Cut != nil:
		s.report.Main = res.Cut
	case len(res.Trials) > 0:
		s.report.Main = res.Trials[len(res.Trials)-1].Result
	}

	return nil
}

func (s *session) compare(ctx context.Context) error {
	other, err := s.resolver.other(ctx, s.target)
	if err != nil {
		return err
	}

	if err := s.look(ctx, other); err != nil {
		return err
	}

	a, b := s.plan(s.target), s.plan(other)

	for _, p := range []*loadtest.Plan{&a, &b} {
		p.Duration /= time.Duration(s.flags.rounds)

		if !s.flags.quiet {
			live := report.NewLive(s.stderr, isTerminal(s.stderr), p.Warmup, p.Duration)
			p.OnRow = live.Row

			defer live.Close()
		}
	}

	c, err := loadtest.Compare(ctx, a, b, s.flags.rounds)
	if err != nil {
		return explain(s.target, err)
	}

	s.report.Comparison, s.report.Against, s.report.Main = c, other.name, c.A

	return nil
}
