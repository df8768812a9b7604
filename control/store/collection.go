package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Errors of collections.
var (
	ErrNotFound = errors.New("not found")
	ErrExists   = errors.New("exists already")
	// ErrConflict means that somebody changed the document in between.
	ErrConflict = errors.New("changed in between")
	// ErrNewerSchema means that a newer release wrote the document in a form unknown here.
	ErrNewerSchema = errors.New("written by a newer release")
)

const (
	schemaVersion = 1
	maxIDBytes    = 512
	// updateAttempts bounds the optimistic loop of Update.
	updateAttempts = 64
	listPage       = 512
)

// Item is a document with its id and the revision of its last change.
type Item[T any] struct {
	ID       string
	Value    T
	Revision int64
}

// Collection is typed access to the documents of one kind.
type Collection[T any] struct {
	cli    *clientv3.Client
	kind   string
	prefix string // ends in "/"
}

// envelope is how a document is stored. Documents of early releases have no checksum.
type envelope struct {
	Version int             `json:"v"`
	Sum     uint32          `json:"c,omitempty"` // of Data
	Data    json.RawMessage `json:"d"`
}

//nolint:gochecknoglobals // immutable
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(data []byte) uint32 { return crc32.Checksum(data, castagnoli) }

func newCollection[T any](cli *clientv3.Client, prefix, kind string) Collection[T] {
	return Collection[T]{cli: cli, kind: kind, prefix: prefix + kind + "/"}
}

// Kind is the name of the collection.
func (c Collection[T]) Kind() string { return c.kind }

// Get returns one document, or ErrNotFound.
func (c Collection[T]) Get(ctx context.Context, id string) (Item[T], error) {
	resp, err := c.cli.Get(ctx, c.key(id))
	if err != nil {
		return Item[T]{}, c.away("get", id, err)
	}

	if len(resp.Kvs) == 0 {
		return Item[T]{}, c.wrap("get", id, ErrNotFound)
	}

	return c.item(resp.Kvs[0].Key, resp.Kvs[0].Value, resp.Kvs[0].ModRevision)
}

// List returns all documents in the order of their ids, and the revision they were read at.
func (c Collection[T]) List(ctx context.Context) ([]Item[T], int64, error) {
	return c.list(ctx, "", 0)
}

// ListPrefix is List for the documents whose id starts with prefix.
func (c Collection[T]) ListPrefix(ctx context.Context, prefix string) ([]Item[T], int64, error) {
	return c.list(ctx, prefix, 0)
}

// Values is List for who needs neither ids nor revisions. rev 0 reads what is newest; the
// revision of another list reads what belonged together then.
func (c Collection[T]) Values(ctx context.Context, rev int64) ([]T, int64, error) {
	items, rev, err := c.list(ctx, "", rev)
	values := make([]T, len(items))

	for i := range items {
		values[i] = items[i].Value
	}

	return values, rev, err
}

// list reads all pages at one revision.
func (c Collection[T]) list(ctx context.Context, prefix string, rev int64) ([]Item[T], int64, error) {
	var (
		items []Item[T]
		from  = c.prefix + prefix
		end   = clientv3.GetPrefixRangeEnd(c.prefix + prefix)
	)

	for {
		resp, err := c.cli.Get(ctx, from,
			clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(rev))
		if err != nil {
			return nil, 0, c.away("list", prefix, err)
		}

		if rev == 0 {
			rev = resp.Header.Revision
		}

		for _, kv := range resp.Kvs {
			item, err := c.item(kv.Key, kv.Value, kv.ModRevision)
			if err != nil {
				return nil, 0, err
			}

			items = append(items, item)
		}

		if !resp.More {
			return items, rev, nil
		}

		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

// Put writes a document whether or not it exists.
func (c Collection[T]) Put(ctx context.Context, id string, v T) error {
	return c.run(ctx, c.PutOp(id, v))
}

// PutTTL is Put for a document that disappears by itself after ttl, rounded up to a second.
func (c Collection[T]) PutTTL(ctx context.Context, id string, v T, ttl time.Duration) error {
	seconds := int64((ttl + time.Second - 1) / time.Second)
	if seconds < 1 {
		return nil
	}

	lease, err := c.cli.Grant(ctx, seconds)
	if err != nil {
		return c.away("put", id, err)
	}

	op := c.PutOp(id, v)
	op.lease = lease.ID

	return c.run(ctx, op)
}

// Create writes a new document; ErrExists if the id is taken.
func (c Collection[T]) Create(ctx context.Context, id string, v T) error {
	return c.run(ctx, c.CreateOp(id, v))
}

// CompareAndPut writes a document that was last changed at rev; otherwise ErrConflict, or
// ErrNotFound when it is gone.
func (c Collection[T]) CompareAndPut(ctx context.Context, id string, v T, rev int64) error {
	return c.run(ctx, c.CompareOp(id, v, rev))
}

// Update reads a document, lets change edit it and writes it back, again and again until
// nobody came in between. An error of change ends it and is returned as it is.
func (c Collection[T]) Update(ctx context.Context, id string, change func(*T) error) (Item[T], error) {
	for range updateAttempts {
		item, err := c.Get(ctx, id)
		if err != nil {
			return Item[T]{}, err
		}

		if err := change(&item.Value); err != nil {
			return Item[T]{}, err
		}

		rev, err := commit(ctx, c.cli, []Op{c.CompareOp(id, item.Value, item.Revision)})
		if err == nil {
			item.Revision = rev

			return item, nil
		}

		if !errors.Is(err, ErrConflict) {
			return Item[T]{}, err
		}
	}

	return Item[T]{}, c.wrap("update", id, ErrConflict)
}

// Delete removes a document; ErrNotFound if there is none.
func (c Collection[T]) Delete(ctx context.Context, id string) error {
	resp, err := c.cli.Delete(ctx, c.key(id))
	if err != nil {
		return c.away("delete", id, err)
	}

	if resp.Deleted == 0 {
		return c.wrap("delete", id, ErrNotFound)
	}

	return nil
}

// DeletePrefix removes every document whose id starts with prefix.
func (c Collection[T]) DeletePrefix(ctx context.Context, prefix string) error {
	if _, err := c.cli.Delete(ctx, c.prefix+prefix, clientv3.WithPrefix()); err != nil {
		return c.away("delete", prefix, err)
	}

	return nil
}

func (c Collection[T]) run(ctx context.Context, op Op) error {
	_, err := commit(ctx, c.cli, []Op{op})

	return err
}

func (c Collection[T]) key(id string) string { return c.prefix + id }

func (c Collection[T]) encode(id string, v T) (string, error) {
	if id == "" || len(id) > maxIDBytes {
		return "", c.wrap("encode", id, fmt.Errorf("an id has 1 to %d bytes", maxIDBytes))
	}

	data, err := json.Marshal(v)
	if err != nil {
		return "", c.wrap("encode", id, err)
	}

	raw, err := json.Marshal(envelope{Version: schemaVersion, Sum: checksum(data), Data: data})
	if err != nil {
		return "", c.wrap("encode", id, err)
	}

	return string(raw), nil
}

func (c Collection[T]) item(key, raw []byte, rev int64) (Item[T], error) {
	item := Item[T]{ID: string(key[len(c.prefix):]), Revision: rev}

	data, err := open(raw)
	if err != nil {
		return item, c.wrap("decode", item.ID, err)
	}

	if err := json.Unmarshal(data, &item.Value); err != nil {
		return item, c.wrap("decode", item.ID, err)
	}

	return item, nil
}

// wrap says what was tried with which document.
func (c Collection[T]) wrap(op, id string, err error) error {
	return fmt.Errorf("%s %s/%s: %w", op, c.kind, id, err)
}

// away is the error of etcd itself, for users a part of the platform that is away.
func (c Collection[T]) away(op, id string, err error) error {
	return c.wrap(op, id, fault.Wrap(fault.Unavailable, err, ""))
}
