package publish

import (
	"context"
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/control/store"
)

// Behind is how long ago the state answered last: what changed since then is not in the snapshot.
func (p *Publisher) Behind() time.Duration { return time.Since(*p.answered.Load()) }

func (p *Publisher) answer() { p.answered.Store(new(time.Now())) }

// look asks the state again and again, until ctx ends or the state is another one: etcd was restored, or
// replaced. Who goes on to watch would wait for revisions that come much later, and miss all before. A
// state without instances is not taken over: what is known serves better until control has started some.
func (p *Publisher) look(ctx context.Context) {
	tick := time.NewTicker(p.cfg.Look)
	defer tick.Stop()

	known, err := p.history(ctx)

	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}

		now, aerr := p.history(ctx)

		switch {
		case aerr != nil:
			continue // Behind tells
		case err != nil:
			known, err = now, nil
		}

		p.answer()

		if now.Continues(known) {
			known = now

			continue
		}

		if now.Restoring || now.Began == 0 || now.Instances == 0 {
			continue
		}

		p.log.Warn("the state was replaced by another one; reading all of it anew",
			slog.Int64("revision", now.Revision), slog.Int64("before", known.Revision))

		return
	}
}

// history asks for no longer than until it would ask again.
func (p *Publisher) history(ctx context.Context) (store.History, error) {
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Look)
	defer cancel()

	return p.store.History(ctx) //nolint:wrapcheck // it says what it did
}
