package publish_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-gateway/sluice/control/publish"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/spec"
)

const patience = 20 * time.Second

func start(tb testing.TB, st *store.Store) (p *publish.Publisher, stop func()) {
	tb.Helper()

	p = publish.New(publish.Config{}, st, slog.New(slog.DiscardHandler))

	return p, run(tb, p)
}

// run runs p until stop is called or the test ends.
func run(tb testing.TB, p *publish.Publisher) (stop func()) {
	tb.Helper()

	ctx, cancel := context.WithCancel(tb.Context())
	done := make(chan error, 1)

	go func() { done <- p.Run(ctx) }()

	stop = func() {
		cancel()

		if err := <-done; err != nil {
			tb.Error(err)
		}

		done <- nil
	}
	tb.Cleanup(stop)

	return stop
}

// await follows snapshots until ok accepts one.
func await(tb testing.TB, p *publish.Publisher, after int64, what string, ok func(*spec.Snapshot) bool) *spec.Snapshot {
	tb.Helper()

	ctx, cancel := context.WithTimeout(tb.Context(), patience)
	defer cancel()

	for {
		snap, err := p.Next(ctx, after)
		if err != nil {
			tb.Fatalf("%s: %v", what, err)
		}

		if snap.Revision <= after {
			tb.Fatalf("revision %d after %d", snap.Revision, after)
		}

		if ok(snap) {
			return snap
		}

		after = snap.Revision
	}
}

func must(tb testing.TB, err error) {
	tb.Helper()

	if err != nil {
		tb.Fatal(err)
	}
}

func addService(tb testing.TB, st *store.Store, id string) spec.Entry {
	tb.Helper()

	e := spec.Entry{ModelID: "m", ModelName: "digits", ModelVersion: "1.0.0", Weight: 100, InstanceCount: 1}
	must(tb, st.Services.Put(tb.Context(), id, spec.Service{
		ID: id, Name: "name of " + id, ProjectID: "p", DomainID: "d", Entries: []spec.Entry{e},
	}))

	return e
}

// putInstance adds an instance of service s.
func putInstance(t *testing.T, st *store.Store, id string, e *spec.Entry, state spec.InstanceState) {
	t.Helper()
	must(t, st.Instances.Put(t.Context(), "s/"+id, spec.Instance{
		ID: id, ServiceID: "s", ModelID: e.ModelID, Template: rollout.Template(e), State: state, Address: "127.0.0.1:1",
	}))
}

// instances lists the instances of service s.
func instances(snap *spec.Snapshot) string {
	var b strings.Builder

	for _, r := range snap.Services {
		if r.ServiceID != "s" {
			continue
		}

		for _, v := range r.Versions {
			for _, inst := range v.Instances {
				fmt.Fprintf(&b, "%s:%s ", inst.ID, inst.State)
			}
		}
	}

	return b.String()
}

func TestSnapshotHoldsWhatGatewaysNeedAndNoMore(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	ctx := t.Context()
	config := spec.PackageConfig{ModelType: "ONNX", APIs: []spec.API{{URL: "/", Method: "post"}}, Protocol: "https"}

	must(t, st.Models.Put(ctx, "m", spec.Model{ID: "m", Config: config}))
	must(t, st.Users.Put(ctx, "u", spec.User{ID: "u", Name: "admin", PasswordHash: "$argon2id$…"}))
	must(t, st.Projects.Put(ctx, "p", spec.Project{ID: "p"}))
	must(t, st.AccessKeys.Put(ctx, "AK", spec.AccessKey{AccessKey: "AK"}))
	must(t, st.Apps.Put(ctx, "a", spec.App{ID: "a"}))
	must(t, st.AppAPIs.Put(ctx, "x", spec.AppAPI{ID: "x", ServiceID: "s", AppIDs: []string{"a"}, SupportAppCode: true}))
	must(t, st.TokenKeys.Put(ctx, "k", spec.SigningKey{ID: "k", PublicKey: []byte{1}, SealedSeed: []byte{2}}))
	must(t, st.Revocations.Put(ctx, "old", spec.Revocation{TokenID: "old", ExpiresAt: 1}))
	must(t, st.Revocations.Put(ctx, "new", spec.Revocation{TokenID: "new", ExpiresAt: time.Now().Add(time.Hour).UnixMilli()}))

	e := addService(t, st, "s")
	putInstance(t, st, "s-1", &e, spec.InstanceReady)
	putInstance(t, st, "s-2", &e, spec.InstanceDraining)
	putInstance(t, st, "s-3", &e, spec.InstanceLoading)

	p, _ := start(t, st)
	snap := await(t, p, 0, "first", func(*spec.Snapshot) bool { return true })

	inst := func(id string, state spec.InstanceState) spec.Instance {
		return spec.Instance{
			ID: id, ServiceID: "s", ModelID: "m", Template: rollout.Template(&e), State: state, Address: "127.0.0.1:1",
		}
	}
	want := &spec.Snapshot{
		Schema: spec.SnapshotSchema, Revision: snap.Revision,
		Services: []spec.Route{{
			ServiceID: "s", ServiceName: "name of s", ProjectID: "p", DomainID: "d", Revision: snap.Revision, Running: true,
			AppIDs: []string{"a"}, AppCodes: true,
			Versions: []spec.Version{{
				ModelID: "m", ModelName: "digits", ModelVersion: "1.0.0", Weight: 100,
				Engine: spec.EngineONNX, Protocol: "https", APIs: config.APIs,
				Instances: []spec.Instance{inst("s-1", spec.InstanceReady), inst("s-2", spec.InstanceDraining)},
			}},
		}},
		Projects:    []spec.Project{{ID: "p"}},
		Users:       []spec.User{{ID: "u", Name: "admin"}},
		AccessKeys:  []spec.AccessKey{{AccessKey: "AK"}},
		Apps:        []spec.App{{ID: "a"}},
		TokenKeys:   []spec.TokenKey{{ID: "k", PublicKey: []byte{1}}},
		Revocations: []spec.Revocation{snap.Revocations[0]},
	}

	if snap.Revocations[0].TokenID != "new" {
		t.Errorf("revocation %+v", snap.Revocations[0])
	}

	if diff := cmp.Diff(want, snap); diff != "" {
		t.Error(diff)
	}
}

func TestChangesReachWhoeverWaits(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	must(t, st.Models.Put(t.Context(), "m", spec.Model{ID: "m"}))

	e := addService(t, st, "s")
	p, _ := start(t, st)
	snap := await(t, p, 0, "first", func(*spec.Snapshot) bool { return true })

	putInstance(t, st, "s-1", &e, spec.InstanceReady)
	snap = await(t, p, snap.Revision, "ready", func(s *spec.Snapshot) bool { return instances(s) == "s-1:ready " })

	// What is gone leaves the snapshot although its record says nothing of it.
	p.Gone("s", "s-1")
	snap = await(t, p, snap.Revision, "gone", func(s *spec.Snapshot) bool { return instances(s) == "" })

	must(t, st.Models.Put(t.Context(), "m", spec.Model{ID: "m", Config: spec.PackageConfig{Protocol: "wss"}}))
	snap = await(t, p, snap.Revision, "model", func(s *spec.Snapshot) bool { return s.Services[0].Versions[0].Protocol == "wss" })

	must(t, st.AppAPIs.Put(t.Context(), "x", spec.AppAPI{ID: "x", ServiceID: "s", AppIDs: []string{"a"}}))
	snap = await(t, p, snap.Revision, "app", func(s *spec.Snapshot) bool { return len(s.Services[0].AppIDs) == 1 })
	must(t, st.AppAPIs.Delete(t.Context(), "x"))
	snap = await(t, p, snap.Revision, "no app", func(s *spec.Snapshot) bool { return len(s.Services[0].AppIDs) == 0 })

	_, err := st.Services.Update(t.Context(), "s", func(s *spec.Service) error {
		s.Stopped = true

		return nil
	})
	must(t, err)

	snap = await(t, p, snap.Revision, "stopped", func(s *spec.Snapshot) bool { return !s.Services[0].Running })
	must(t, st.Services.Delete(t.Context(), "s"))
	await(t, p, snap.Revision, "deleted", func(s *spec.Snapshot) bool { return len(s.Services) == 0 })
}

func TestUnchangedRoutesKeepTheirRevision(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	for _, id := range []string{"a", "b", "c"} {
		addService(t, st, id)
	}

	p, _ := start(t, st)
	before := await(t, p, 0, "first", func(s *spec.Snapshot) bool { return len(s.Services) == 3 })

	addService(t, st, "bb")
	must(t, st.Services.Delete(t.Context(), "c"))

	after := await(t, p, before.Revision, "changed", func(s *spec.Snapshot) bool {
		return len(s.Services) == 3 && s.Services[2].ServiceID == "bb"
	})

	for i, id := range []string{"a", "b"} {
		if r := after.Services[i]; r.ServiceID != id || r.Revision != before.Services[i].Revision {
			t.Errorf("route %s: %+v, before %+v", id, r, before.Services[i])
		}
	}

	if len(before.Services) != 3 || before.Services[2].ServiceID != "c" {
		t.Error("a published snapshot was changed")
	}
}

func TestRevisionNeverGoesBackOverRestarts(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	e := addService(t, st, "s")
	putInstance(t, st, "s-1", &e, spec.InstanceReady)

	p, stop := start(t, st)
	snap := await(t, p, 0, "first", func(*spec.Snapshot) bool { return true })

	p.Gone("s", "s-1")
	snap = await(t, p, snap.Revision, "gone", func(s *spec.Snapshot) bool { return instances(s) == "" })
	stop()

	again, _ := start(t, st)
	await(t, again, snap.Revision, "after the restart", func(*spec.Snapshot) bool { return true })
}

func TestInstancesOfAnEarlierProcessAreNotPublished(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	e := addService(t, st, "s")

	add := func(id, node string, startedAt int64) {
		must(t, st.Instances.Put(t.Context(), "s/"+id, spec.Instance{
			ID: id, ServiceID: "s", ModelID: "m", Template: rollout.Template(&e), Node: node,
			State: spec.InstanceReady, Address: "127.0.0.1:1", StartedAt: startedAt,
		}))
	}
	add("s-1", "here", 1)
	add("s-2", "elsewhere", 1)
	add("s-3", "here", time.Now().Add(time.Hour).UnixMilli())

	p := publish.New(publish.Config{Node: "here"}, st, slog.New(slog.DiscardHandler))
	run(t, p)

	snap := await(t, p, 0, "first", func(*spec.Snapshot) bool { return true })
	if got := instances(snap); got != "s-2:ready s-3:ready " {
		t.Errorf("instances %s", got)
	}

	// A new instance counts, even if the clock was set back meanwhile.
	add("s-4", "here", 2)
	await(t, p, snap.Revision, "new", func(s *spec.Snapshot) bool { return instances(s) == "s-2:ready s-3:ready s-4:ready " })
}

func TestNextEndsWithItsContext(t *testing.T) {
	t.Parallel()

	p := publish.New(publish.Config{}, storetest.New(t), slog.New(slog.DiscardHandler))

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	if _, err := p.Next(ctx, 0); !errors.Is(err, context.Canceled) {
		t.Errorf("err = %v", err)
	}
}

func TestBurstMakesFewSnapshots(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	p, _ := start(t, st)
	snap := await(t, p, 0, "first", func(*spec.Snapshot) bool { return true })

	const services = 500

	ops := make([]store.Op, 0, services)
	for i := range services {
		id := fmt.Sprintf("s%04d", i)
		ops = append(ops, st.Services.PutOp(id, spec.Service{ID: id}))
	}

	_, err := st.Commit(t.Context(), ops...)
	must(t, err)

	made := 0

	await(t, p, snap.Revision, "burst", func(s *spec.Snapshot) bool {
		made++

		return len(s.Services) == services
	})

	if made > services/10 {
		t.Errorf("%d snapshots for one burst", made)
	}
}
