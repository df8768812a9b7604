package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-gateway/sluice/internal/fault"
)

type condition uint8

const (
	always condition = iota
	absent
	present
	unchanged
)

// Op is one part of a transaction: a condition on a key and a change of it.
type Op struct {
	label  string
	key    string
	value  string
	lease  clientv3.LeaseID
	when   condition
	rev    int64
	remove bool
	check  bool // only a condition
	err    error
}

// PutOp writes a document in any case.
func (c Collection[T]) PutOp(id string, v T) Op {
	return c.op(id, v, always, 0)
}

// CreateOp writes a document that must not exist.
func (c Collection[T]) CreateOp(id string, v T) Op {
	return c.op(id, v, absent, 0)
}

// CompareOp writes a document that was last changed at rev.
func (c Collection[T]) CompareOp(id string, v T, rev int64) Op {
	return c.op(id, v, unchanged, rev)
}

// DeleteOp removes a document that was last changed at rev; rev 0 means in any case.
func (c Collection[T]) DeleteOp(id string, rev int64) Op {
	op := Op{label: c.kind + "/" + id, key: c.key(id), remove: true, rev: rev}
	if rev != 0 {
		op.when = unchanged
	}

	return op
}

// ExistsOp makes the transaction depend on a document, and on its revision unless rev is 0.
func (c Collection[T]) ExistsOp(id string, rev int64) Op {
	op := Op{label: c.kind + "/" + id, key: c.key(id), check: true, when: present, rev: rev}
	if rev != 0 {
		op.when = unchanged
	}

	return op
}

func (c Collection[T]) op(id string, v T, when condition, rev int64) Op {
	value, err := c.encode(id, v)

	return Op{label: c.kind + "/" + id, key: c.key(id), value: value, when: when, rev: rev, err: err}
}

// Commit applies all ops or none. The error tells the first condition that did not hold:
// ErrExists, ErrNotFound or ErrConflict.
func (s *Store) Commit(ctx context.Context, ops ...Op) (int64, error) {
	return commit(ctx, s.cli, ops)
}

func commit(ctx context.Context, cli *clientv3.Client, ops []Op) (int64, error) {
	var (
		conditions []clientv3.Cmp
		changes    []clientv3.Op
		lookups    []clientv3.Op
	)

	for _, op := range ops {
		if op.err != nil {
			return 0, op.err
		}

		lookups = append(lookups, clientv3.OpGet(op.key, clientv3.WithKeysOnly()))

		switch op.when {
		case absent:
			conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(op.key), "=", 0))
		case present:
			conditions = append(conditions, clientv3.Compare(clientv3.CreateRevision(op.key), ">", 0))
		case unchanged:
			conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(op.key), "=", op.rev))
		case always:
		}

		switch {
		case op.check:
		case op.remove:
			changes = append(changes, clientv3.OpDelete(op.key))
		default:
			changes = append(changes, clientv3.OpPut(op.key, op.value, clientv3.WithLease(op.lease)))
		}
	}

	resp, err := cli.Txn(ctx).If(conditions...).Then(changes...).Else(lookups...).Commit()
	if err != nil {
		return 0, fmt.Errorf("commit %s: %w", ops[0].label, fault.Wrap(fault.Unavailable, err, ""))
	}

	if resp.Succeeded {
		return resp.Header.Revision, nil
	}

	return 0, explain(ops, resp)
}

// explain finds the first condition that did not hold.
func explain(ops []Op, resp *clientv3.TxnResponse) error {
	for i, op := range ops {
		kvs := resp.Responses[i].GetResponseRange().GetKvs()

		switch {
		case op.when == absent && len(kvs) > 0:
			return fmt.Errorf("%s: %w", op.label, ErrExists)
		case (op.when == present || op.when == unchanged) && len(kvs) == 0:
			return fmt.Errorf("%s: %w", op.label, ErrNotFound)
		case op.when == unchanged && kvs[0].ModRevision != op.rev:
			return fmt.Errorf("%s: %w", op.label, ErrConflict)
		}
	}

	return fmt.Errorf("%s: %w", ops[0].label, ErrConflict)
}
