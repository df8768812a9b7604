package store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// ErrUnfinished means that a restore into this state has not come to its end.
var ErrUnfinished = errors.New("a restore into this state is not finished")

// restoreMark stands under the prefix while a restore writes below it.
const restoreMark = "restoring"

// undoTimeout bounds how long a restore that failed takes back what it wrote.
const undoTimeout = 10 * time.Second

// Restore writes records below the prefix, where nothing else may be, calls place, and only then lets
// anybody use them: all of that, or nothing. With again it first removes what a restore has left that did not come
// to its end.
func (s *Store) Restore(ctx context.Context, records iter.Seq2[Record, error], place func() error, again bool) (loaded int, err error) {
	if again {
		if err := s.clearUnfinished(ctx); err != nil {
			return 0, err
		}
	}

	mark, err := s.mark(ctx)
	if err != nil {
		return 0, err
	}

	loaded, err = s.put(ctx, records)
	if err == nil {
		err = s.untouched(ctx, loaded)
	}

	if err == nil {
		err = place()
	}

	if err == nil {
		err = s.finish(ctx, mark)
	}

	if err == nil {
		return loaded, nil
	}

	finished, uerr := s.undo(ctx, mark)

	switch {
	case uerr != nil:
		return 0, errors.Join(err, fmt.Errorf("%w: %w: what it wrote under %s could not be removed", ErrUnfinished, uerr, s.prefix))
	case finished: // only the answer was lost
		return loaded, nil
	default:
		return 0, err
	}
}

// Unfinished returns ErrUnfinished if a restore writes this state, or gave up without taking back what it wrote.
func (s *Store) Unfinished(ctx context.Context) error {
	resp, err := s.cli.Get(ctx, s.prefix+restoreMark)
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}

	if len(resp.Kvs) > 0 {
		return fmt.Errorf("%w: it began at %s, under %s", ErrUnfinished, resp.Kvs[0].Value, s.prefix)
	}

	return nil
}

// mark takes the prefix, if nothing is there. It returns the revision that tells our mark from others.
func (s *Store) mark(ctx context.Context) (int64, error) {
	resp, err := s.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(s.prefix), "=", 0).WithPrefix()).
		Then(clientv3.OpPut(s.prefix+restoreMark, time.Now().UTC().Format(time.RFC3339))).
		Commit()
	if err != nil {
		return 0, fmt.Errorf("write the state: %w", err)
	}

	if resp.Succeeded {
		return resp.Header.Revision, nil
	}

	if err := s.Unfinished(ctx); err != nil {
		return 0, err
	}

	there, err := s.cli.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("write the state: %w", err)
	}

	return 0, fmt.Errorf("write the state: %w: %d keys under %s", ErrNotEmpty, there.Count, s.prefix)
}

func (s *Store) marked(mark int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(s.prefix+restoreMark), "=", mark)
}

// untouched makes sure that nobody else wrote meanwhile.
func (s *Store) untouched(ctx context.Context, loaded int) error {
	resp, err := s.cli.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}

	if want := int64(loaded) + 1; resp.Count != want {
		return fmt.Errorf("write the state: %w: %d keys under %s, %d were written; another process uses it", ErrNotEmpty, resp.Count, s.prefix, want)
	}

	return nil
}

func (s *Store) finish(ctx context.Context, mark int64) error {
	resp, err := s.cli.Txn(ctx).If(s.marked(mark)).Then(clientv3.OpDelete(s.prefix + restoreMark)).Commit()
	if err == nil && !resp.Succeeded {
		err = errors.New("somebody removed what was written")
	}

	if err != nil {
		return fmt.Errorf("finish the restore: %w", err)
	}

	return nil
}

// undo removes everything in one transaction, unless the restore came to its end after all.
func (s *Store) undo(ctx context.Context, mark int64) (finished bool, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()

	resp, err := s.cli.Txn(ctx).If(s.marked(mark)).
		Then(clientv3.OpDelete(s.prefix, clientv3.WithPrefix())).
		Else(clientv3.OpGet(s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())).
		Commit()
	if err != nil {
		return false, fmt.Errorf("remove what was written: %w", err)
	}

	return !resp.Succeeded && resp.Responses[0].GetResponseRange().Count > 0, nil
}

// clearUnfinished removes what another restore has left.
func (s *Store) clearUnfinished(ctx context.Context) error {
	_, err := s.cli.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(s.prefix+restoreMark), ">", 0)).
		Then(clientv3.OpDelete(s.prefix, clientv3.WithPrefix())).
		Commit()
	if err != nil {
		return fmt.Errorf("remove what an unfinished restore left: %w", err)
	}

	return nil
}
