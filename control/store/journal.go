package store

import (
	"context"
	"fmt"

	"github.com/google/uuid"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Journal is a log per owner that keeps the newest entries only.
type Journal[T any] struct {
	entries Collection[T]
	keep    int
}

// trimBatch entries more than allowed may stay, so that not every Append has to trim.
const trimBatch = 32

// Append adds an entry to the log of owner. Entries are ordered by at (ms since the epoch);
// the id returned leads to the entry for Update.
func (j Journal[T]) Append(ctx context.Context, owner string, at int64, v T) (string, error) {
	suffix, err := uuid.NewV7()
	if err != nil {
		return "", fmt.Errorf("append to %s of %s: %w", j.entries.kind, owner, err)
	}

	id := EntryID(owner, at) + "-" + suffix.String()

	return id, j.put(ctx, owner, j.entries.CreateOp(id, v))
}

// Set writes the entry with a number that the caller chose, whether or not it exists. Its
// id is EntryID(owner, number).
func (j Journal[T]) Set(ctx context.Context, owner string, number int64, v T) error {
	return j.put(ctx, owner, j.SetOp(owner, number, v))
}

// SetOp is Set as a part of a transaction. It does not trim the log.
func (j Journal[T]) SetOp(owner string, number int64, v T) Op {
	return j.entries.PutOp(EntryID(owner, number), v)
}

// EntryID is the id of a numbered entry.
func EntryID(owner string, number int64) string { return fmt.Sprintf("%s/%016d", owner, number) }

func (j Journal[T]) put(ctx context.Context, owner string, op Op) error {
	if op.err != nil {
		return op.err
	}

	prefix := j.entries.key(owner + "/")

	resp, err := j.entries.cli.Txn(ctx).Then(
		clientv3.OpPut(op.key, op.value),
		clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithCountOnly()),
	).Commit()
	if err != nil {
		return j.entries.away("append", owner, err)
	}

	surplus := resp.Responses[1].GetResponseRange().GetCount() - int64(j.keep)
	if surplus >= trimBatch {
		return j.trim(ctx, prefix, surplus)
	}

	return nil
}

// List returns the newest entries of owner (at most as many as the journal keeps), oldest first.
func (j Journal[T]) List(ctx context.Context, owner string) ([]Item[T], error) {
	items, _, err := j.entries.ListPrefix(ctx, owner+"/")
	if len(items) > j.keep {
		items = items[len(items)-j.keep:]
	}

	return items, err
}

// Update changes an entry by its id.
func (j Journal[T]) Update(ctx context.Context, id string, change func(*T) error) (Item[T], error) {
	return j.entries.Update(ctx, id, change)
}

// Drop forgets the log of owner.
func (j Journal[T]) Drop(ctx context.Context, owner string) error {
	return j.entries.DeletePrefix(ctx, owner+"/")
}

func (j Journal[T]) trim(ctx context.Context, prefix string, surplus int64) error {
	oldest, err := j.entries.cli.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithKeysOnly(),
		clientv3.WithSort(clientv3.SortByKey, clientv3.SortAscend), clientv3.WithLimit(surplus))
	if err != nil {
		return fmt.Errorf("trim %s: %w", j.entries.kind, err)
	}

	if len(oldest.Kvs) == 0 {
		return nil
	}

	last := string(oldest.Kvs[len(oldest.Kvs)-1].Key)
	if _, err := j.entries.cli.Delete(ctx, prefix, clientv3.WithRange(last+"\x00")); err != nil {
		return fmt.Errorf("trim %s: %w", j.entries.kind, err)
	}

	return nil
}
