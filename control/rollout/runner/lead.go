package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Election decides which of several control processes acts. There is nothing to decide for
// a process with an etcd of its own.
type Election struct {
	// Key in etcd that the processes compete for. Default /sluice/v1/leader/rollout.
	Key string
	// ID of this process among them.
	ID string
	// TTL after which a silent leader is replaced. Default 5 s.
	TTL time.Duration
	// Joined is called whenever this process begins to take part: from then on others see it.
	Joined func()
	// Replaced is called when another process has become leader after this one was.
	Replaced func(leader string)
}

// electRetry is the wait after an election that could not be held.
const electRetry = 250 * time.Millisecond

// Lead runs run whenever this process is the leader, with a context that ends when it is no
// longer sure to be. An error of run ends Lead. It returns nil when ctx ends.
func (e Election) Lead(ctx context.Context, cli *clientv3.Client, log *slog.Logger, run func(context.Context) error) error {
	if e.Key == "" {
		e.Key = "/sluice/v1/leader/rollout"
	}

	if e.TTL <= 0 {
		e.TTL = 5 * time.Second
	}

	led := false // Replaced is of interest only then

	for ctx.Err() == nil {
		err := e.term(ctx, cli, log, &led, run)

		var fatal runError
		if errors.As(err, &fatal) {
			return fatal.error
		}

		if err != nil && ctx.Err() == nil {
			log.Warn("leader election failed", slog.Any("error", err))

			select {
			case <-ctx.Done():
			case <-time.After(electRetry):
			}
		}
	}

	return nil
}

// runError is an error of what the leader runs.
type runError struct{ error }

func (e runError) Unwrap() error { return e.error }

// term takes part in one election and leads if it is won.
func (e Election) term(
	ctx context.Context, cli *clientv3.Client, log *slog.Logger, led *bool, run func(context.Context) error,
) error {
	session, err := concurrency.NewSession(cli,
		concurrency.WithTTL(max(1, int(e.TTL/time.Second))), concurrency.WithContext(ctx))
	if err != nil {
		return fmt.Errorf("open a session: %w", err)
	}

	defer leave(ctx, cli, session)

	election := concurrency.NewElection(session, e.Key)

	replaced := e.Replaced
	if !*led {
		replaced = nil
	}

	if e.Joined != nil {
		joining, stop := context.WithCancel(ctx)
		defer stop()

		go e.announce(joining, cli, session.Lease())
	}

	if err := e.campaign(ctx, election, session, replaced); err != nil {
		return err
	}

	*led = true

	log.Info("leads the rollout", slog.String("id", e.ID))

	leading, stop := context.WithCancel(ctx)
	defer stop()

	go func() {
		defer stop()

		select {
		case <-session.Done():
		case <-leading.Done():
		}
	}()

	if err := run(leading); err != nil {
		// Without etcd there is nothing to lead; it may come back.
		if leading.Err() != nil || errors.Is(err, &fault.Error{Code: fault.Unavailable}) {
			return err
		}

		return runError{err}
	}

	if ctx.Err() == nil {
		log.Warn("lost the lead", slog.String("id", e.ID))
	}

	return nil
}

// leaveTimeout bounds the good-bye.
const leaveTimeout = time.Second

// leave ends the lease, and with it the part in the election, also when ctx has ended: who stops must
// not stand in the way of others, nor seem to be there for them.
func leave(ctx context.Context, cli *clientv3.Client, session *concurrency.Session) {
	session.Orphan()

	bye, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()

	_, _ = cli.Revoke(bye, session.Lease()) // the lease runs out by itself
}

// joinedPoll is how often a process looks whether its part in the election is written.
const joinedPoll = 10 * time.Millisecond

// announce waits until the part in the election is written, and tells it.
func (e Election) announce(ctx context.Context, cli *clientv3.Client, lease clientv3.LeaseID) {
	tick := time.NewTicker(joinedPoll)
	defer tick.Stop()

	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}

		resp, err := cli.Get(ctx, fmt.Sprintf("%s/%x", e.Key, lease), clientv3.WithCountOnly())
		if err == nil && resp.Count > 0 {
			e.Joined()

			return
		}
	}
}

// Others are the IDs of the other processes that lead or would.
func (e Election) Others(ctx context.Context, cli *clientv3.Client) ([]string, error) {
	resp, err := cli.Get(ctx, e.Key+"/", clientv3.WithPrefix())
	if err != nil {
		return nil, fmt.Errorf("look for other control processes: %w", err)
	}

	var out []string

	for _, kv := range resp.Kvs {
		if id := string(kv.Value); id != e.ID {
			out = append(out, id)
		}
	}

	return out, nil
}

// campaign waits until the election is won. replaced, if any, hears of another winner meanwhile.
func (e Election) campaign(
	ctx context.Context, election *concurrency.Election, session *concurrency.Session, replaced func(leader string),
) error {
	ctx, cancel := context.WithCancel(ctx)

	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()

	wg.Go(func() {
		select {
		case <-session.Done():
			cancel()
		case <-ctx.Done():
		}
	})

	if replaced != nil {
		wg.Go(func() {
			for resp := range election.Observe(ctx) {
				if id := string(resp.Kvs[0].Value); id != e.ID {
					replaced(id)

					return
				}
			}
		})
	}

	if err := election.Campaign(ctx, e.ID); err != nil {
		return fmt.Errorf("campaign: %w", err)
	}

	return nil
}
