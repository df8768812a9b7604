package loadtest

import (
	"context"
	"errors"
	"fmt"
)

// Trial runs the load at one rate.
type Trial func(ctx context.Context, rate float64) (*Result, error)

// SearchConfig says where the highest rate under an SLO is looked for.
type SearchConfig struct {
	Low  float64 // first rate to try
	High float64 // 0: doubles from Low until the SLO is missed
	// Precision ends the search when the rates that hold and miss are this close; 0 means 0.05.
	Precision float64
	// Trials bounds the search; 0 means 24.
	Trials int
	// OnTrial is called behind each trial.
	OnTrial func(SearchStep)
}

// SearchStep is one trial of a search.
type SearchStep struct {
	Rate   float64
	Met    bool
	Result *Result
}

// SearchResult is the outcome of a search.
type SearchResult struct {
	// Best is the trial with the highest rate that holds the SLO, nil if none does.
	Best *SearchStep
	// Miss is the lowest rate that misses it, 0 if none did.
	Miss   float64
	Trials []SearchStep
	// Cut is the trial that an interrupt ended, nil if there was none. It is not judged.
	Cut *Result
}

// keepsUp tells whether the server was not falling behind when the time was over: one that does so
// without end would otherwise pass an SLO without a bound on latency. What any server would still have been
// busy with at that moment is allowed for by the latency that nine in ten requests exceed.
func (r *Result) keepsUp() bool {
	const least = 0.95

	inTime := r.Rate * r.Elapsed.Seconds()
	busy := r.OK.Quantile(0.1).Seconds() / max(r.Elapsed.Seconds(), 1e-9) * float64(r.Requests)

	return inTime+busy >= least*float64(r.Requests)
}

// Search looks for the highest rate that holds an SLO, by doubling and then halving the distance.
func Search(ctx context.Context, cfg SearchConfig, slo SLO, trial Trial) (*SearchResult, error) {
	if !(cfg.Low > 0) || (cfg.High != 0 && cfg.High <= cfg.Low) || len(slo) == 0 {
		return nil, errors.New("search: want an SLO and a range of rates, the first one positive and lower")
	}

	if cfg.Precision == 0 {
		cfg.Precision = 0.05
	}

	if cfg.Trials == 0 {
		cfg.Trials = 24
	}

	s := &search{cfg: cfg, slo: slo, trial: trial, res: &SearchResult{}}

	return s.res, s.run(ctx)
}

type search struct {
	cfg       SearchConfig
	slo       SLO
	trial     Trial
	res       *SearchResult
	low, high float64 // the highest rate that holds and the lowest one that misses; 0: not known
}

func (s *search) run(ctx context.Context) error {
	for rate := s.cfg.Low; rate > 0 && len(s.res.Trials) < s.cfg.Trials; rate = s.next() {
		r, err := s.trial(ctx, rate)
		if err != nil && ctx.Err() != nil && len(s.res.Trials) > 0 {
			return nil
		}

		if err != nil {
			return fmt.Errorf("search at %.4g/s: %w", rate, err)
		}

		if r.Interrupted {
			s.res.Cut = r

			return nil // what is known is the result
		}

		_, met := s.slo.Judge(r)
		met = met && r.keepsUp()
		step := SearchStep{Rate: rate, Met: met, Result: r}
		s.res.Trials = append(s.res.Trials, step)

		if met {
			s.low = rate
			s.res.Best = &step
		} else {
			s.high = rate
			s.res.Miss = rate
		}

		if s.cfg.OnTrial != nil {
			s.cfg.OnTrial(step)
		}

		if ctx.Err() != nil {
			return nil //nolint:nilerr // an interrupt ends the search with what is known
		}
	}

	return nil
}

// next is the rate to try, 0 when the search is over.
func (s *search) next() float64 {
	const lowest = 1.0 / 1024 // of the first rate

	switch {
	case s.high == 0: // everything held so far
		if s.cfg.High > 0 {
			if s.low >= s.cfg.High {
				return 0
			}

			return s.cfg.High
		}

		return 2 * s.low
	case s.low == 0: // nothing held so far
		if s.high < lowest*s.cfg.Low {
			return 0
		}

		return s.high / 2
	case s.high <= s.low*(1+s.cfg.Precision):
		return 0
	default:
		return (s.low + s.high) / 2
	}
}
