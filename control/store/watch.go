package store

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// ChangeType says what a Change tells.
type ChangeType uint8

// Change types.
const (
	// ChangePut: Item was created or changed.
	ChangePut ChangeType = iota
	// ChangeDelete: the document Item.ID is gone; Item.Value is zero.
	ChangeDelete
	// ChangeReset: Items is everything there is now; what is not in it is gone.
	ChangeReset
)

// Change is one step in the history of a collection.
type Change[T any] struct {
	Type     ChangeType
	Item     Item[T]
	Items    []Item[T]
	Revision int64
}

const watchRetry = 200 * time.Millisecond

// Watch follows a collection. fromRev is the revision that List returned: changes after it
// are delivered. With fromRev 0, and whenever history was lost (compaction, a long
// absence of etcd), a ChangeReset comes first. The channel is closed when ctx ends.
func (c Collection[T]) Watch(ctx context.Context, fromRev int64) <-chan Change[T] {
	out := make(chan Change[T])

	go func() {
		defer close(out)

		rev := fromRev
		for ctx.Err() == nil {
			if rev == 0 {
				rev = c.relist(ctx, out)
			}

			if rev != 0 {
				rev = c.follow(ctx, rev, out)
			}

			if rev == 0 {
				pause(ctx)
			}
		}
	}()

	return out
}

// relist sends a reset and returns its revision; 0 means try again.
func (c Collection[T]) relist(ctx context.Context, out chan<- Change[T]) int64 {
	items, rev, err := c.List(ctx)
	if err != nil {
		return 0
	}

	if !send(ctx, out, Change[T]{Type: ChangeReset, Items: items, Revision: rev}) {
		return 0
	}

	return rev
}

// follow sends changes after rev until the watch breaks. It returns the revision to go on
// from, or 0 when a reset is needed.
func (c Collection[T]) follow(ctx context.Context, rev int64, out chan<- Change[T]) int64 {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	for resp := range c.cli.Watch(ctx, c.prefix, clientv3.WithPrefix(), clientv3.WithRev(rev+1)) {
		if err := resp.Err(); err != nil {
			if errors.Is(err, rpctypes.ErrCompacted) || resp.CompactRevision > 0 {
				return 0
			}

			return rev
		}

		for _, ev := range resp.Events {
			change, err := c.change(ev)
			if err != nil {
				return 0 // a reset repeats the error to whoever lists
			}

			if !send(ctx, out, change) {
				return rev
			}
		}

		rev = max(rev, resp.Header.Revision)
	}

	return rev
}

func (c Collection[T]) change(ev *clientv3.Event) (Change[T], error) {
	if ev.Type == mvccpb.DELETE {
		id := string(ev.Kv.Key[len(c.prefix):])

		return Change[T]{
			Type:     ChangeDelete,
			Item:     Item[T]{ID: id, Revision: ev.Kv.ModRevision},
			Revision: ev.Kv.ModRevision,
		}, nil
	}

	item, err := c.item(ev.Kv.Key, ev.Kv.Value, ev.Kv.ModRevision)

	return Change[T]{Type: ChangePut, Item: item, Revision: ev.Kv.ModRevision}, err
}

// Changed receives the newest revision whenever a document of one of the kinds changes; no
// kinds means any. Revisions that nobody took yet are replaced by newer ones. The first
// value comes at once. The channel is closed when ctx ends.
func (s *Store) Changed(ctx context.Context, kinds ...string) <-chan int64 {
	out := make(chan int64, 1)

	prefixes := make([]string, 0, len(kinds))
	for _, k := range kinds {
		prefixes = append(prefixes, s.prefix+k+"/")
	}

	// A single kind is watched alone, so that nobody hears of what does not concern them.
	from := s.prefix
	if len(prefixes) == 1 {
		from = prefixes[0]
	}

	go func() {
		defer close(out)

		for ctx.Err() == nil {
			resp, err := s.cli.Get(ctx, from, clientv3.WithPrefix(), clientv3.WithCountOnly())
			if err == nil {
				offer(out, resp.Header.Revision)
				s.notify(ctx, from, resp.Header.Revision, prefixes, out)
			}

			pause(ctx)
		}
	}()

	return out
}

func (s *Store) notify(ctx context.Context, from string, rev int64, prefixes []string, out chan int64) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	for resp := range s.cli.Watch(ctx, from, clientv3.WithPrefix(), clientv3.WithRev(rev+1)) {
		if resp.Err() != nil {
			return
		}

		if concerns(resp.Events, prefixes) {
			offer(out, resp.Header.Revision)
		}
	}
}

func concerns(events []*clientv3.Event, prefixes []string) bool {
	if len(prefixes) == 0 {
		return len(events) > 0
	}

	for _, ev := range events {
		for _, p := range prefixes {
			if len(ev.Kv.Key) > len(p) && string(ev.Kv.Key[:len(p)]) == p {
				return true
			}
		}
	}

	return false
}

// offer puts rev into the one-place channel, replacing what is there. Only one goroutine sends.
func offer(out chan int64, rev int64) {
	select {
	case <-out:
	default:
	}

	out <- rev
}

func send[T any](ctx context.Context, out chan<- T, v T) bool {
	select {
	case out <- v:
		return true
	case <-ctx.Done():
		return false
	}
}

func pause(ctx context.Context) {
	timer := time.NewTimer(watchRetry)
	defer timer.Stop()

	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

// Ping tells whether the state can be read.
func (s *Store) Ping(ctx context.Context) error {
	if _, err := s.cli.Get(ctx, s.prefix+"ping"); err != nil {
		return fmt.Errorf("reach etcd: %w", err)
	}

	return nil
}
