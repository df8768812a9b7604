package backup_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/control/backup"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
)

func records(t *testing.T, st *store.Store) int {
	t.Helper()

	n := 0
	if _, err := st.Dump(t.Context(), func(store.Record) error {
		n++

		return nil
	}); err != nil {
		t.Fatal(err)
	}

	return n
}

func missing(t *testing.T, path string) {
	t.Helper()

	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", path, err)
	}
}

func TestRestoreIntoAnEtcdBeside(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	raw, st := w.archive(t), storetest.New(t)
	dir := filepath.Join(t.TempDir(), "new")

	if _, err := backup.RestoreShared(t.Context(), bytes.NewReader(raw), dir, st, false); err != nil {
		t.Fatal(err)
	}

	want := dump(t, w.src.Store)
	for key := range want {
		if _, ok := dump(t, st)[key]; !ok && key[:9] != "instances" {
			t.Errorf("%s is missing", key)
		}
	}

	if n := records(t, st); n != len(want)-1 { // the instance
		t.Errorf("%d records, want %d", n, len(want)-1)
	}

	if err := st.Unfinished(t.Context()); err != nil {
		t.Error(err)
	}

	if _, err := os.Stat(filepath.Join(dir, "packages")); err != nil {
		t.Error(err)
	}

	missing(t, filepath.Join(dir, "etcd"))
	missing(t, filepath.Join(dir, "state.jsonl"))

	// Nothing is ever written over something else.
	other := filepath.Join(t.TempDir(), "other")
	if _, err := backup.RestoreShared(t.Context(), bytes.NewReader(raw), other, st, true); !errors.Is(err, store.ErrNotEmpty) {
		t.Errorf("a second time: %v", err)
	}

	missing(t, other)

	if n := records(t, st); n != len(want)-1 {
		t.Errorf("%d records after it was refused, want %d", n, len(want)-1)
	}
}

// TestRestoreIntoAnEtcdBesideIsAllOrNothing breaks it at several places.
func TestRestoreIntoAnEtcdBesideIsAllOrNothing(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	raw := w.archive(t)

	for name, tc := range map[string]struct {
		in  func(st *store.Store, dir string) io.Reader
		err error
	}{
		"the archive is cut off": {func(*store.Store, string) io.Reader { return bytes.NewReader(raw[:len(raw)-100]) }, backup.ErrDamaged},
		"somebody else writes": {func(st *store.Store, _ string) io.Reader {
			return &hook{Reader: bytes.NewReader(raw), at: func() { _ = st.Index.Put(t.Context(), "somebody", "x") }}
		}, store.ErrNotEmpty},
		"the directory is taken meanwhile": {func(_ *store.Store, dir string) io.Reader {
			return &hook{Reader: bytes.NewReader(raw), at: func() {
				if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o700); err != nil {
					t.Error(err)
				}
			}}
		}, os.ErrExist},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			st := storetest.New(t)
			parent := t.TempDir()
			dir := filepath.Join(parent, "new")

			if _, err := backup.RestoreShared(t.Context(), tc.in(st, dir), dir, st, false); !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}

			if n := records(t, st); n > 1 { // what somebody else wrote
				t.Errorf("%d records are left", n)
			}

			if err := st.Unfinished(t.Context()); err != nil {
				t.Error(err)
			}

			if left, err := filepath.Glob(filepath.Join(parent, ".new*")); err != nil || len(left) > 0 {
				t.Errorf("left: %v %v", left, err)
			}
		})
	}
}

// hook does something when the archive is first read.
type hook struct {
	io.Reader

	at func()
}

func (h *hook) Read(p []byte) (int, error) {
	if h.at != nil {
		h.at()
		h.at = nil
	}

	return h.Reader.Read(p)
}

// TestUnfinishedRestoreIsBegunAgain leaves the state as a restore does that is killed.
func TestUnfinishedRestoreIsBegunAgain(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	raw, st := w.archive(t), storetest.New(t)
	dir := filepath.Join(t.TempDir(), "new")

	// The process ends while it writes: nothing of it undoes what it did.
	killed, kill := context.WithCancel(t.Context())
	reached, ended := make(chan struct{}), make(chan struct{})

	go func() {
		defer close(ended)
		defer func() { _ = recover() }() // the iterator ends the goroutine below Restore

		_, _ = st.Restore(killed, func(yield func(store.Record, error) bool) {
			for key, value := range dump(t, w.src.Store) {
				if !yield(store.Record{Key: key, Value: []byte(value)}, nil) {
					return
				}
			}

			close(reached)
			<-killed.Done()
			panic("killed")
		}, func() error { return nil }, false)
	}()
	<-reached
	kill()
	<-ended

	if err := st.Unfinished(t.Context()); !errors.Is(err, store.ErrUnfinished) {
		t.Fatalf("in the middle: %v", err)
	}

	if _, err := backup.Write(t.Context(), io.Discard, backup.Source{Store: st, Packages: w.src.Packages}); !errors.Is(err, store.ErrUnfinished) {
		t.Errorf("backup: %v", err)
	}

	if _, err := backup.RestoreShared(t.Context(), bytes.NewReader(raw), dir, st, false); !errors.Is(err, store.ErrUnfinished) {
		t.Errorf("restore: %v", err)
	}

	missing(t, dir)

	if _, err := backup.RestoreShared(t.Context(), bytes.NewReader(raw), dir, st, true); err != nil {
		t.Fatal(err)
	}

	if got, want := records(t, st), len(dump(t, w.src.Store))-1; got != want {
		t.Errorf("%d records, want %d", got, want)
	}
}
