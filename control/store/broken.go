package store

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"google.golang.org/grpc"
)

// newClient returns a client that calls the member directly, and that does not wait for one
// that broke: a member that cannot write its database stops with its locks held, whatever the
// context of those who wait for them.
func newClient(server *etcdserver.EtcdServer, guard *guard) *clientv3.Client {
	c := v3client.New(server)
	c.KV = clientv3.NewKVFromKVClient(calls{adapter.KvServerToKvClient(v3rpc.NewQuotaKVServer(server)), guard}, c)
	c.Lease = clientv3.NewLeaseFromLeaseClient(
		leases{adapter.LeaseServerToLeaseClient(v3rpc.NewQuotaLeaseServer(server)), guard}, c, leaseFirstKeepAlive)
	c.Watcher = watches{c.Watcher, guard}

	return c
}

// leaseFirstKeepAlive is how long the first renewal of a lease may take.
const leaseFirstKeepAlive = time.Second

// calls is a pb.KVClient.
type calls struct {
	pb.KVClient

	guard *guard
}

// Range implements pb.KVClient.
func (c calls) Range(ctx context.Context, in *pb.RangeRequest, opts ...grpc.CallOption) (*pb.RangeResponse, error) {
	return unlessBroken(ctx, c.guard, c.KVClient.Range, in, opts)
}

// Put implements pb.KVClient.
func (c calls) Put(ctx context.Context, in *pb.PutRequest, opts ...grpc.CallOption) (*pb.PutResponse, error) {
	return unlessBroken(ctx, c.guard, c.KVClient.Put, in, opts)
}

// DeleteRange implements pb.KVClient.
func (c calls) DeleteRange(ctx context.Context, in *pb.DeleteRangeRequest, opts ...grpc.CallOption) (*pb.DeleteRangeResponse, error) {
	return unlessBroken(ctx, c.guard, c.KVClient.DeleteRange, in, opts)
}

// Txn implements pb.KVClient.
func (c calls) Txn(ctx context.Context, in *pb.TxnRequest, opts ...grpc.CallOption) (*pb.TxnResponse, error) {
	return unlessBroken(ctx, c.guard, c.KVClient.Txn, in, opts)
}

// leases is a pb.LeaseClient.
type leases struct {
	pb.LeaseClient

	guard *guard
}

// LeaseGrant implements pb.LeaseClient.
func (l leases) LeaseGrant(ctx context.Context, in *pb.LeaseGrantRequest, opts ...grpc.CallOption) (*pb.LeaseGrantResponse, error) {
	return unlessBroken(ctx, l.guard, l.LeaseClient.LeaseGrant, in, opts)
}

// LeaseTimeToLive implements pb.LeaseClient.
func (l leases) LeaseTimeToLive(ctx context.Context, in *pb.LeaseTimeToLiveRequest, opts ...grpc.CallOption) (*pb.LeaseTimeToLiveResponse, error) {
	return unlessBroken(ctx, l.guard, l.LeaseClient.LeaseTimeToLive, in, opts)
}

// watches is a clientv3.Watcher.
type watches struct {
	clientv3.Watcher

	guard *guard
}

// Watch implements clientv3.Watcher. The channel of a member that broke says nothing more, and is
// closed when ctx ends.
func (w watches) Watch(ctx context.Context, key string, opts ...clientv3.OpOption) clientv3.WatchChan {
	in, out := make(chan clientv3.WatchResponse), make(chan clientv3.WatchResponse)

	go func() {
		defer close(in)

		for r := range w.Watcher.Watch(ctx, key, opts...) {
			select {
			case in <- r:
			case <-ctx.Done(): // it is closed soon
			}
		}
	}()

	go func() {
		defer close(out)

		for {
			select {
			case r, ok := <-in:
				if !ok {
					return
				}

				select {
				case out <- r:
				case <-ctx.Done():
				}
			case <-ctx.Done():
				select {
				case <-in:
				case <-w.guard.broken:
				}

				return
			}
		}
	}()

	return out
}

// unlessBroken makes one call. Of a member that breaks meanwhile nobody will ever hear whether
// the call was carried out; the goroutine that asked stays with it.
func unlessBroken[In, Out any](
	ctx context.Context, g *guard, call func(context.Context, In, ...grpc.CallOption) (Out, error), in In, opts []grpc.CallOption,
) (Out, error) {
	type result struct {
		out Out
		err error
	}

	var none Out

	select {
	case <-g.broken:
		return none, g.err()
	default:
	}

	done := make(chan result, 1)

	go func() {
		out, err := call(ctx, in, opts...)
		done <- result{out, err}
	}()

	select {
	case r := <-done:
		return r.out, r.err
	case <-g.broken:
		return none, g.err()
	}
}
