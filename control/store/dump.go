package store

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Record is one key of the state as it is stored.
type Record struct {
	Key     string // without the prefix of the store
	Value   []byte
	Expires time.Time // zero: never
}

const (
	// leaderKeys belong to elections: they tell of processes, not of the state.
	leaderKeys = "leader/"

	// A batch of Load fits what any etcd accepts.
	loadOps   = 64
	loadBytes = 1 << 20
)

// ErrNotEmpty means that Load found keys where it would write.
var ErrNotEmpty = errors.New("the state is not empty")

// Dump calls each for every key of the state in order, all read at the one revision returned.
// An error of each ends it.
func (s *Store) Dump(ctx context.Context, each func(Record) error) (rev int64, err error) {
	from, end := s.prefix, clientv3.GetPrefixRangeEnd(s.prefix)

	for {
		resp, err := s.cli.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(listPage), clientv3.WithRev(rev))
		if err != nil {
			return 0, fmt.Errorf("read the state: %w", err)
		}

		if rev == 0 {
			rev = resp.Header.Revision
		}

		for _, kv := range resp.Kvs {
			r := Record{Key: strings.TrimPrefix(string(kv.Key), s.prefix), Value: kv.Value}
			if strings.HasPrefix(r.Key, leaderKeys) {
				continue
			}

			if r.Key == restoreMark {
				return 0, ErrUnfinished
			}

			if kv.Lease != 0 {
				if r.Expires, err = s.expiry(ctx, clientv3.LeaseID(kv.Lease)); err != nil {
					return 0, err
				}
			}

			if err := each(r); err != nil {
				return 0, err
			}
		}

		if !resp.More {
			return rev, nil
		}

		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}

func (s *Store) expiry(ctx context.Context, id clientv3.LeaseID) (time.Time, error) {
	lease, err := s.cli.TimeToLive(ctx, id)
	if err != nil {
		return time.Time{}, fmt.Errorf("read the state: lease: %w", err)
	}

	return time.Now().Add(time.Duration(max(lease.TTL, 0)) * time.Second), nil
}

// Load writes records into a state that must be empty. Records that have expired are left
// out. After an error the state is a part of what was meant; it is not empty any more.
func (s *Store) Load(ctx context.Context, records iter.Seq2[Record, error]) (loaded int, err error) {
	there, err := s.cli.Get(ctx, s.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		return 0, fmt.Errorf("write the state: %w", err)
	}

	if there.Count > 0 {
		return 0, fmt.Errorf("write the state: %w: %d keys under %s", ErrNotEmpty, there.Count, s.prefix)
	}

	return s.put(ctx, records)
}

// put writes records in batches.
func (s *Store) put(ctx context.Context, records iter.Seq2[Record, error]) (loaded int, err error) {
	var (
		ops  []clientv3.Op
		size int
	)

	flush := func() error {
		if len(ops) == 0 {
			return nil
		}

		if _, err := s.cli.Txn(ctx).Then(ops...).Commit(); err != nil {
			return fmt.Errorf("write the state: %w", err)
		}

		loaded, ops, size = loaded+len(ops), ops[:0], 0

		return nil
	}

	for r, err := range records {
		if err != nil {
			return loaded, err
		}

		op, ok, err := s.loadOp(ctx, r)
		if err != nil {
			return loaded, err
		}

		if !ok {
			continue
		}

		if len(ops) == loadOps || size+len(r.Value) > loadBytes {
			if err := flush(); err != nil {
				return loaded, err
			}
		}

		ops, size = append(ops, op), size+len(r.Value)
	}

	return loaded, flush()
}

func (s *Store) loadOp(ctx context.Context, r Record) (op clientv3.Op, ok bool, err error) {
	if r.Expires.IsZero() {
		return clientv3.OpPut(s.prefix+r.Key, string(r.Value)), true, nil
	}

	ttl := time.Until(r.Expires)
	if ttl <= 0 {
		return op, false, nil
	}

	lease, err := s.cli.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return op, false, fmt.Errorf("write the state: %w", err)
	}

	return clientv3.OpPut(s.prefix+r.Key, string(r.Value), clientv3.WithLease(lease.ID)), true, nil
}

// CheckRecord reports whether this release can read a record: its kind, the version of its
// schema, and whether it is what was written.
func CheckRecord(r Record) error {
	kind, id, ok := strings.Cut(r.Key, "/")
	if !ok || id == "" || !slices.Contains(kinds(), kind) {
		return fmt.Errorf("%s: unknown kind of document: %w", r.Key, ErrNewerSchema)
	}

	if _, err := open(r.Value); err != nil {
		return fmt.Errorf("%s: %w", r.Key, err)
	}

	return nil
}

// Check reads every document of the state, and names the first that this release cannot
// read.
func (s *Store) Check(ctx context.Context) error {
	_, err := s.Dump(ctx, CheckRecord)

	return err
}

func kinds() []string {
	return []string{
		KindDomains, KindProjects, KindUsers, KindModels, KindServices, KindServiceStates, KindInstances, KindEvents,
		KindUpdateLogs, KindAccessKeys, KindApps, KindAppAPIs, KindTokenKeys, KindRevocations, KindIndex,
	}
}

// open takes a document out of its envelope.
func open(raw []byte) (json.RawMessage, error) {
	var e envelope
	if err := json.Unmarshal(raw, &e); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}

	switch {
	case e.Version > schemaVersion:
		return nil, fmt.Errorf("%w: it has version %d, and this one knows up to %d", ErrNewerSchema, e.Version, schemaVersion)
	case e.Version < 1 || len(e.Data) == 0:
		return nil, fmt.Errorf("%w: no version or no content", ErrDamaged)
	case e.Sum != 0 && e.Sum != checksum(e.Data):
		return nil, fmt.Errorf("%w: its checksum is another", ErrDamaged)
	default:
		return bytes.TrimSpace(e.Data), nil
	}
}

// Decode takes the document out of a record.
func Decode[T any](r Record) (v T, err error) {
	data, err := open(r.Value)
	if err == nil {
		err = json.Unmarshal(data, &v)
	}

	if err != nil {
		return v, fmt.Errorf("%s: %w", r.Key, err)
	}

	return v, nil
}
