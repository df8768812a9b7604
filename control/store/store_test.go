package store_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(victimDir); dir != "" {
		victim(dir)
	}

	if os.Getenv(brokenEnv) != "" {
		os.Exit(m.Run()) //nolint:forbidigo // what a broken member leaves ends with its process
	}

	// A member that refuses its files leaves these behind; the process ends then.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/server/v3/storage/wal.(*filePipeline).run"),
		goleak.IgnoreAnyFunction("go.etcd.io/etcd/server/v3/storage/backend.(*backend).run"))
}

func TestCollectionKeepsWhatWasWritten(t *testing.T) {
	t.Parallel()

	ctx, s := t.Context(), storetest.New(t)

	if _, err := s.Models.Get(ctx, "m1"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("get of nothing: %v", err)
	}

	must(t, s.Models.Create(ctx, "m1", spec.Model{ID: "m1", Name: "digits"}))

	if err := s.Models.Create(ctx, "m1", spec.Model{}); !errors.Is(err, store.ErrExists) {
		t.Fatalf("second create: %v", err)
	}

	item, err := s.Models.Get(ctx, "m1")
	must(t, err)

	if item.ID != "m1" || item.Value.Name != "digits" || item.Revision == 0 {
		t.Fatalf("got %+v", item)
	}

	must(t, s.Models.CompareAndPut(ctx, "m1", spec.Model{ID: "m1", Name: "new"}, item.Revision))

	if err := s.Models.CompareAndPut(ctx, "m1", spec.Model{}, item.Revision); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("put at an old revision: %v", err)
	}

	must(t, s.Models.Delete(ctx, "m1"))

	if err := s.Models.Delete(ctx, "m1"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("second delete: %v", err)
	}

	if err := s.Models.CompareAndPut(ctx, "m1", spec.Model{}, item.Revision); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("put of a deleted document: %v", err)
	}

	for _, id := range []string{"", string(make([]byte, 600))} {
		if err := s.Models.Put(ctx, id, spec.Model{}); err == nil {
			t.Fatalf("id of %d bytes was taken", len(id))
		}
	}
}

func TestUpdateLosesNothing(t *testing.T) {
	t.Parallel()

	ctx, s := t.Context(), storetest.New(t)
	must(t, s.Services.Create(ctx, "s", spec.Service{}))

	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 10 {
				_, err := s.Services.Update(ctx, "s", func(v *spec.Service) error {
					v.Generation++

					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}

	wg.Wait()

	item, err := s.Services.Get(ctx, "s")
	must(t, err)

	if item.Value.Generation != 80 {
		t.Fatalf("80 increments gave %d", item.Value.Generation)
	}

	refuse := errors.New("no")
	if _, err := s.Services.Update(ctx, "s", func(*spec.Service) error { return refuse }); !errors.Is(err, refuse) {
		t.Fatalf("error of the change: %v", err)
	}

	if _, err := s.Services.Update(ctx, "x", func(*spec.Service) error { return nil }); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("update of nothing: %v", err)
	}
}

func TestListReadsAllPagesAtOneRevision(t *testing.T) {
	t.Parallel()

	ctx, s := t.Context(), storetest.New(t)

	const n = 1100
	for i := range n / 100 {
		ops := make([]store.Op, 0, 100)
		for j := range 100 {
			id := fmt.Sprintf("%05d", i*100+j)
			ops = append(ops, s.Projects.CreateOp(id, spec.Project{ID: id}))
		}

		_, err := s.Commit(ctx, ops...)
		must(t, err)
	}

	items, rev, err := s.Projects.List(ctx)
	must(t, err)

	if len(items) != n || rev == 0 {
		t.Fatalf("%d items at %d", len(items), rev)
	}

	for i, it := range items {
		if it.ID != fmt.Sprintf("%05d", i) || it.Value.ID != it.ID {
			t.Fatalf("item %d is %+v", i, it)
		}
	}
}

func TestCommitIsAllOrNothingAndNamesTheReason(t *testing.T) {
	t.Parallel()

	ctx, s := t.Context(), storetest.New(t)
	name := store.IndexKey(store.IndexModel, "p", "a/b", "1.0.0")

	create := func(id string) error {
		_, err := s.Commit(ctx, s.Index.CreateOp(name, id), s.Models.CreateOp(id, spec.Model{ID: id}))

		return err
	}

	must(t, create("m1"))

	if err := create("m2"); !errors.Is(err, store.ErrExists) {
		t.Fatalf("same name: %v", err)
	}

	if _, err := s.Models.Get(ctx, "m2"); !errors.Is(err, store.ErrNotFound) {
		t.Fatal("half of a refused transaction was applied")
	}

	if _, err := s.Commit(ctx, s.Users.ExistsOp("nobody", 0), s.Models.DeleteOp("m1", 0)); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("missing dependency: %v", err)
	}

	if _, err := s.Commit(ctx, s.Models.DeleteOp("m1", 1)); !errors.Is(err, store.ErrConflict) {
		t.Fatalf("delete at an old revision: %v", err)
	}

	_, err := s.Commit(ctx, s.Models.DeleteOp("m1", 0), s.Index.DeleteOp(name, 0))
	must(t, err)
	must(t, create("m3"))
}

func TestIndexKeyKeepsPartsApart(t *testing.T) {
	t.Parallel()

	if store.IndexKey("i", "a/b", "c") == store.IndexKey("i", "a", "b/c") ||
		store.IndexKey("i", "a%2Fb") == store.IndexKey("i", "a/b") {
		t.Fatal("different parts gave one key")
	}
}

func TestWatchDeliversEveryChangeInOrder(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	must(t, s.Apps.Create(ctx, "a", spec.App{Name: "one"}))

	changes := s.Apps.Watch(ctx, 0)

	first := <-changes
	if first.Type != store.ChangeReset || len(first.Items) != 1 || first.Items[0].Value.Name != "one" {
		t.Fatalf("first change %+v", first)
	}

	must(t, s.Apps.Put(ctx, "a", spec.App{Name: "two"}))
	must(t, s.Apps.Delete(ctx, "a"))
	must(t, s.Apps.Put(ctx, "b", spec.App{Name: "three"}))

	if c := <-changes; c.Type != store.ChangePut || c.Item.ID != "a" || c.Item.Value.Name != "two" {
		t.Fatalf("got %+v", c)
	}

	if c := <-changes; c.Type != store.ChangeDelete || c.Item.ID != "a" {
		t.Fatalf("got %+v", c)
	}

	if c := <-changes; c.Type != store.ChangePut || c.Item.ID != "b" {
		t.Fatalf("got %+v", c)
	}

	cancel()

	for range changes {
	}
}

func TestWatchListsAgainAfterCompaction(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	must(t, s.Apps.Put(ctx, "a", spec.App{}))
	_, old, err := s.Apps.List(ctx)
	must(t, err)
	must(t, s.Apps.Put(ctx, "b", spec.App{}))
	must(t, s.Apps.Delete(ctx, "a"))

	_, now, err := s.Apps.List(ctx)
	must(t, err)
	_, err = s.Client().Compact(ctx, now)
	must(t, err)

	changes := s.Apps.Watch(ctx, old)

	c := <-changes
	if c.Type != store.ChangeReset || len(c.Items) != 1 || c.Items[0].ID != "b" {
		t.Fatalf("got %+v", c)
	}

	must(t, s.Apps.Put(ctx, "c", spec.App{}))

	if c := <-changes; c.Type != store.ChangePut || c.Item.ID != "c" {
		t.Fatalf("got %+v", c)
	}

	cancel()

	for range changes {
	}
}

func TestChangedTellsOnlyOfTheKindsAskedFor(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()

	changed := s.Changed(ctx, store.KindApps)
	first := <-changed

	must(t, s.Users.Put(ctx, "u", spec.User{}))
	must(t, s.Apps.Put(ctx, "a", spec.App{}))

	item, err := s.Apps.Get(ctx, "a")
	must(t, err)

	if rev := <-changed; rev <= first || rev < item.Revision {
		t.Fatalf("told of revision %d after %d, want %d", rev, first, item.Revision)
	}

	cancel()

	for range changed {
	}
}

func TestRevocationGoesByItself(t *testing.T) {
	t.Parallel()

	s := storetest.New(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	must(t, s.Revocations.PutTTL(ctx, "gone", spec.Revocation{}, -time.Second))

	if _, err := s.Revocations.Get(ctx, "gone"); !errors.Is(err, store.ErrNotFound) {
		t.Fatalf("a revocation of an expired token was kept: %v", err)
	}

	must(t, s.Revocations.PutTTL(ctx, "t", spec.Revocation{TokenID: "t"}, time.Second))

	changes := s.Revocations.Watch(ctx, 0)
	if c := <-changes; len(c.Items) != 1 {
		t.Fatalf("got %+v", c)
	}

	if c := <-changes; c.Type != store.ChangeDelete || c.Item.ID != "t" {
		t.Fatalf("got %+v", c)
	}

	cancel()

	for range changes {
	}
}

func TestJournalKeepsTheNewest(t *testing.T) {
	t.Parallel()

	ctx, s := t.Context(), storetest.New(t)

	for i := range 1100 {
		_, err := s.Events.Append(ctx, "svc", int64(i), spec.Event{ServiceID: "svc", OccurredAt: int64(i)})
		must(t, err)
	}

	id, err := s.Events.Append(ctx, "svc2", 1, spec.Event{Info: "other"})
	must(t, err)

	items, err := s.Events.List(ctx, "svc")
	must(t, err)

	if len(items) != 1000 || items[0].Value.OccurredAt != 100 || items[999].Value.OccurredAt != 1099 {
		t.Fatalf("%d items from %d", len(items), items[0].Value.OccurredAt)
	}

	_, err = s.Events.Update(ctx, id, func(e *spec.Event) error {
		e.Info = "changed"

		return nil
	})
	must(t, err)
	must(t, s.Events.Drop(ctx, "svc"))

	if items, err = s.Events.List(ctx, "svc"); err != nil || len(items) != 0 {
		t.Fatalf("after drop: %d, %v", len(items), err)
	}

	if items, err = s.Events.List(ctx, "svc2"); err != nil || len(items) != 1 || items[0].Value.Info != "changed" {
		t.Fatalf("other owner: %+v, %v", items, err)
	}
}

func TestJournalEntriesCanBeNumbered(t *testing.T) {
	t.Parallel()

	ctx, s := t.Context(), storetest.New(t)

	must(t, s.UpdateLogs.Set(ctx, "svc", 2, spec.UpdateLog{Generation: 2, Result: spec.UpdateRunning}))
	_, err := s.Commit(ctx, s.UpdateLogs.SetOp("svc", 10, spec.UpdateLog{Generation: 10}))
	must(t, err)

	_, err = s.UpdateLogs.Update(ctx, store.EntryID("svc", 2), func(l *spec.UpdateLog) error {
		l.Result = spec.UpdateSuccess

		return nil
	})
	must(t, err)

	items, err := s.UpdateLogs.List(ctx, "svc")
	must(t, err)

	if len(items) != 2 || items[0].Value.Result != spec.UpdateSuccess || items[1].Value.Generation != 10 {
		t.Fatalf("got %+v", items)
	}
}

func TestNewerSchemaIsRefused(t *testing.T) {
	t.Parallel()

	ctx, s := t.Context(), storetest.New(t)

	_, err := s.Client().Put(ctx, store.DefaultPrefix+"models/m", `{"v":99,"d":{}}`)
	must(t, err)

	if _, err := s.Models.Get(ctx, "m"); !errors.Is(err, store.ErrNewerSchema) {
		t.Fatalf("got %v", err)
	}

	_, err = s.Client().Put(ctx, store.DefaultPrefix+"models/m", `nonsense`)
	must(t, err)

	if _, _, err := s.Models.List(ctx); err == nil {
		t.Fatal("broken document was listed")
	}
}

func TestEmbeddedFindsItsStateAgain(t *testing.T) {
	t.Parallel()

	ctx, dir := t.Context(), t.TempDir()

	for i := range 3 {
		began := time.Now()
		e := storetest.Start(t, dir)
		t.Logf("start %d took %v", i, time.Since(began))

		s := store.New(e.Client(), "")
		must(t, s.Ping(ctx))

		items, _, err := s.Domains.List(ctx)
		must(t, err)

		if len(items) != i {
			t.Fatalf("start %d found %d documents", i, len(items))
		}

		must(t, s.Domains.Create(ctx, strconv.Itoa(i), spec.Domain{}))
		e.Close()
		e.Close()
	}
}

func TestEmbeddedTellsThatTheDirectoryIsInUse(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	e := storetest.Start(t, dir)
	defer e.Close()

	_, err := store.StartEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir}, storetest.Logger())
	if !errors.Is(err, store.ErrLocked) {
		t.Fatalf("got %v", err)
	}
}

func TestEmbeddedTellsThatFilesAreDamaged(t *testing.T) {
	t.Parallel()

	for _, pattern := range []string{"member/member/wal/*.wal", "member/member/snap/db"} {
		t.Run(filepath.Base(pattern), func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			e := storetest.Start(t, dir)
			must(t, store.New(e.Client(), "").Domains.Put(t.Context(), "d", spec.Domain{}))
			e.Close()

			files, err := filepath.Glob(filepath.Join(dir, pattern))
			must(t, err)

			if len(files) == 0 {
				t.Fatalf("no file %s", pattern)
			}

			for _, f := range files {
				must(t, os.WriteFile(f, []byte("this is not what etcd wrote, by far not"), 0o600))
			}

			_, err = store.StartEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir}, storetest.Logger())
			if !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("got %v", err)
			}

			t.Log(err)
		})
	}
}

func TestLostStateIsUnavailable(t *testing.T) {
	t.Parallel()

	e := storetest.Start(t, t.TempDir())
	s := store.New(e.Client(), "")
	e.Close()

	unavailable := &fault.Error{Code: fault.Unavailable}
	_, getErr := s.Models.Get(t.Context(), "m")
	_, _, listErr := s.Models.List(t.Context())
	_, appendErr := s.Events.Append(t.Context(), "s", 1, spec.Event{})

	for name, err := range map[string]error{
		"get": getErr, "list": listErr, "append": appendErr, "put": s.Models.Put(t.Context(), "m", spec.Model{}),
		"delete": s.Models.Delete(t.Context(), "m"), "put for a time": s.Revocations.PutTTL(t.Context(), "r", spec.Revocation{}, time.Minute),
	} {
		if !errors.Is(err, unavailable) {
			t.Errorf("%s: %v", name, err)
		}
	}

	if s.Ping(t.Context()) == nil {
		t.Error("ping answers")
	}
}

func TestEmbeddedNeedsADirectory(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))

	for _, dir := range []string{"", filepath.Join(file, "sub")} {
		if _, err := store.StartEmbedded(t.Context(), store.EmbeddedConfig{Dir: dir}, storetest.Logger()); err == nil {
			t.Fatalf("started in %q", dir)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
