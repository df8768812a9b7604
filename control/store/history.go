package store

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// History tells one state from another.
type History struct {
	Cluster  uint64
	Revision int64
	// Began is the revision at which the oldest user was made; 0 if nobody has set up a platform.
	Began int64
	// Instances is how many instances are recorded.
	Instances int64
	// Restoring is true while a restore is writing it.
	Restoring bool
}

// History asks for what tells the state from another one in its place.
func (s *Store) History(ctx context.Context) (History, error) {
	resp, err := s.cli.Txn(ctx).Then(
		clientv3.OpGet(s.prefix+KindUsers+"/", clientv3.WithPrefix(), clientv3.WithLimit(1), clientv3.WithKeysOnly(),
			clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)),
		clientv3.OpGet(s.prefix+KindInstances+"/", clientv3.WithPrefix(), clientv3.WithCountOnly()),
		clientv3.OpGet(s.prefix+restoreMark, clientv3.WithCountOnly()),
	).Commit()
	if err != nil {
		return History{}, fmt.Errorf("read the state: %w", err)
	}

	users := resp.Responses[0].GetResponseRange().Kvs
	h := History{
		Cluster: resp.Header.ClusterId, Revision: resp.Header.Revision,
		Instances: resp.Responses[1].GetResponseRange().Count,
		Restoring: resp.Responses[2].GetResponseRange().Count > 0,
	}

	if len(users) > 0 {
		h.Began = users[0].CreateRevision
	}

	return h, nil
}

// Continues reports whether h is what became of an earlier state. It may deny it when the oldest user was
// deleted; reading everything anew does no harm.
func (h History) Continues(earlier History) bool {
	return h.Cluster == earlier.Cluster && h.Revision >= earlier.Revision && h.Began == earlier.Began
}
