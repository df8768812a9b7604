package runner_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/sluice-gateway/sluice/control/rollout/runner"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/spec"
)

// member is a control process that takes part in elections.
type member struct {
	*control

	replaced chan string
	leads    chan struct{}
	ended    chan error
	leave    context.CancelFunc
}

func startMember(t *testing.T, st *store.Store, id string) *member {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	m := &member{
		control: newControl(t, st, id), replaced: make(chan string, 9), leads: make(chan struct{}, 9),
		ended: make(chan error, 1), leave: cancel,
	}
	e := runner.Election{ID: id, TTL: 2 * time.Second, Replaced: func(leader string) {
		m.runner.Release()
		m.replaced <- leader
	}}

	go func() {
		m.ended <- e.Lead(ctx, st.Client(), slog.New(slog.DiscardHandler), func(ctx context.Context) error {
			m.leads <- struct{}{}

			return m.runner.Run(ctx)
		})
	}()

	t.Cleanup(func() {
		cancel()

		if err := <-m.ended; err != nil {
			t.Error(err)
		}

		_ = m.launcher.Close()
	})

	return m
}

func wait[T any](t *testing.T, what string, ch <-chan T) T {
	t.Helper()

	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("%s: never", what)

		panic("BUG: unreachable")
	}
}

func on(node string, n int) func(spec.ServiceState, []spec.Instance) bool {
	return func(state spec.ServiceState, list []spec.Instance) bool {
		for _, inst := range list {
			if inst.Node != node {
				return false
			}
		}

		return running(n)(state, list)
	}
}

func TestAnotherControlTakesOverAndNothingRunsTwice(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "m", "")
	addService(t, st, "s", entry("m", 2))

	a := startMember(t, st, "a")
	wait(t, "a leads", a.leads)
	await(t, st, "s", "deployed by a", on("a", 2))

	b := startMember(t, st, "b")

	// a goes silent: its lease ends, as after a partition.
	dropLeader(t, st)
	wait(t, "b leads", b.leads)
	await(t, st, "s", "taken over by b", on("b", 2))

	if leader := wait(t, "a hears of it", a.replaced); leader != "b" {
		t.Errorf("replaced by %q", leader)
	}

	eventually(t, "a's processes end", func() bool { return a.launcher.Count() == 0 })

	if n := b.launcher.Count(); n != 2 {
		t.Errorf("b runs %d processes", n)
	}

	// And back: a can lead once more.
	dropLeader(t, st)
	wait(t, "a leads again", a.leads)
	await(t, st, "s", "taken over by a", on("a", 2))
}

func TestLeaderThatFindsItselfAgainKeepsItsProcesses(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	addModel(t, st, "m", "")
	addService(t, st, "s", entry("m", 1))

	a := startMember(t, st, "a")
	wait(t, "a leads", a.leads)
	before := await(t, st, "s", "deployed", on("a", 1))

	dropLeader(t, st)
	wait(t, "a leads again", a.leads)

	update(t, st, func(s *spec.Service) { s.Entries[0].InstanceCount = 2 })

	after := await(t, st, "s", "scaled", on("a", 2))
	if after[0].ID != before[0].ID || after[0].PID != before[0].PID {
		t.Errorf("instance %+v became %+v", before[0], after[0])
	}
}

func TestErrorOfTheLeaderEndsLead(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	boom := errors.New("boom")

	err := runner.Election{ID: "a"}.Lead(t.Context(), st.Client(), slog.New(slog.DiscardHandler),
		func(context.Context) error { return boom })
	if !errors.Is(err, boom) {
		t.Errorf("err = %v", err)
	}
}

// dropLeader revokes the lease of the leader.
func dropLeader(t *testing.T, st *store.Store) {
	t.Helper()

	cli := st.Client()

	resp, err := cli.Get(t.Context(), "/sluice/v1/leader/rollout", clientv3.WithPrefix(),
		clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
	if err != nil || len(resp.Kvs) == 0 {
		t.Fatalf("leader: %v, %v", resp, err)
	}

	if _, err := cli.Revoke(t.Context(), clientv3.LeaseID(resp.Kvs[0].Lease)); err != nil && !strings.Contains(err.Error(), "not found") {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()

	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("%s: never", what)
		}

		<-time.After(10 * time.Millisecond) // real processes know no virtual time
	}
}
