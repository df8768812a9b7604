package backup_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/control/backup"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is a small platform with one model.
type world struct {
	src     backup.Source
	ref     spec.PackageRef
	packets string
}

func newWorld(t *testing.T) *world {
	t.Helper()

	dir, ctx := t.TempDir(), t.Context()
	st := storetest.New(t)

	source := filepath.Join(dir, "source")
	write(t, filepath.Join(source, "model.onnx"), strings.Repeat("not really ", 1000))
	write(t, filepath.Join(source, "sub", "run.sh"), "#!/bin/sh\n")

	if err := os.Chmod(filepath.Join(source, "sub", "run.sh"), 0o755); err != nil {
		t.Fatal(err)
	}

	pkgs, err := pkgstore.New(pkgstore.Config{Dir: filepath.Join(dir, "packages")})
	if err != nil {
		t.Fatal(err)
	}

	ref, err := pkgs.Import(ctx, source, nil)
	if err != nil {
		t.Fatal(err)
	}

	// What an engine writes beside its files is no part of the package.
	write(t, filepath.Join(ref.Dir, "sub", "__pycache__", "x"), "junk")

	keep := func(err error) {
		t.Helper()

		if err != nil {
			t.Fatal(err)
		}
	}
	keep(st.Models.Create(ctx, "m1", spec.Model{ID: "m1", Name: "a<b>&\u2028ü", Status: spec.ModelPublished, Package: ref}))
	keep(st.Models.Create(ctx, "m2", spec.Model{ID: "m2", Status: spec.ModelFailed}))
	keep(st.Instances.Create(ctx, "s1/i1", spec.Instance{}))
	keep(st.Index.Create(ctx, store.IndexKey("model", "p", "a/b"), "m1"))
	keep(st.Revocations.PutTTL(ctx, "r1", spec.Revocation{}, time.Hour))

	for i := range 700 { // more than a page and more than a transaction
		keep(st.Events.Set(ctx, "s1", int64(i), spec.Event{}))
	}

	write(t, filepath.Join(dir, "keyring"), "a key")

	return &world{
		src: backup.Source{Store: st, Packages: pkgs, Keyring: filepath.Join(dir, "keyring"), Bootstrap: filepath.Join(dir, "none")},
		ref: ref, packets: filepath.Join(dir, "packages"),
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()

	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (w *world) archive(t *testing.T) []byte {
	t.Helper()

	var buf bytes.Buffer
	if _, err := backup.Write(t.Context(), &buf, w.src); err != nil {
		t.Fatal(err)
	}

	return buf.Bytes()
}

func dump(t *testing.T, st *store.Store) map[string]string {
	t.Helper()

	out := map[string]string{}

	if _, err := st.Dump(t.Context(), func(r store.Record) error {
		out[r.Key] = string(r.Value)

		return nil
	}); err != nil {
		t.Fatal(err)
	}

	return out
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	data := w.archive(t)
	dir := filepath.Join(t.TempDir(), "deep", "new")

	m, err := backup.Restore(t.Context(), bytes.NewReader(data), dir, storetest.Logger())
	if err != nil {
		t.Fatal(err)
	}

	if m.Models != 1 || m.Records < 700 || !m.HasKeyring() || m.Revision == 0 || m.Bytes() < 10_000 {
		t.Errorf("manifest %+v", m)
	}

	for name, mode := range map[string]os.FileMode{
		"keyring": 0o600, "packages/sha256/" + w.ref.TreeSHA256 + "/model.onnx": 0o444, "packages/sha256/" + w.ref.TreeSHA256 + "/sub/run.sh": 0o555,
	} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}

	pkgs, err := pkgstore.New(pkgstore.Config{Dir: filepath.Join(dir, "packages")})
	if err != nil {
		t.Fatal(err)
	}

	if err := pkgs.Verify(t.Context(), w.ref); err != nil {
		t.Error(err)
	}

	e := storetest.Start(t, filepath.Join(dir, "etcd"))
	defer e.Close()

	st := store.New(e.Client(), "")
	before, after := dump(t, w.src.Store), dump(t, st)

	delete(before, "instances/s1/i1") // belongs to the machine of before

	if len(before) != len(after) {
		t.Errorf("%d keys, want %d", len(after), len(before))
	}

	for k, v := range before {
		if after[k] != v {
			t.Errorf("%s: %q, want %q", k, after[k], v)
		}
	}

	if left, _ := os.ReadDir(filepath.Join(w.packets, "tmp")); len(left) > 0 {
		t.Errorf("the backup left %v", left)
	}
}

func TestRestoreRefusesWhatIsThere(t *testing.T) {
	t.Parallel()

	data, dir := newWorld(t).archive(t), t.TempDir()
	write(t, filepath.Join(dir, "precious"), "x")

	_, err := backup.Restore(t.Context(), bytes.NewReader(data), dir, storetest.Logger())
	if err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("error %v", err)
	}
}

// entries are the files of an archive, to be changed and packed again.
type entries []struct {
	tar.Header

	data []byte
}

func open(t *testing.T, data []byte) (list entries) {
	t.Helper()

	z, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		t.Fatal(err)
	}

	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return list
		}

		if err != nil {
			t.Fatal(err)
		}

		body, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}

		list = append(list, struct {
			tar.Header

			data []byte
		}{*h, body})
	}
}

func (l entries) pack(t *testing.T) []byte {
	t.Helper()

	var buf bytes.Buffer

	z := gzip.NewWriter(&buf)
	w := tar.NewWriter(z)

	for i := range l {
		h := l[i].Header
		h.Size = int64(len(l[i].data))

		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}

		if _, err := w.Write(l[i].data); err != nil {
			t.Fatal(err)
		}
	}

	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}

	return buf.Bytes()
}

func TestDamagedArchives(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	good := w.archive(t)

	edit := func(change func(entries) entries) []byte { return change(open(t, good)).pack(t) }
	manifest := func(from, to string) []byte {
		return edit(func(l entries) entries {
			l[0].data = bytes.Replace(l[0].data, []byte(from), []byte(to), 1)

			return l
		})
	}

	for _, tc := range []struct {
		name string
		data []byte
		want string
		is   error
	}{
		{"empty", nil, "no backup", backup.ErrDamaged},
		{"text", []byte("hello, this is text and no archive"), "no backup", backup.ErrDamaged},
		{"truncated early", good[:20], "manifest.json", backup.ErrDamaged},
		{"truncated at the end", good[:len(good)-4], "end of the archive", backup.ErrDamaged},
		{"junk behind", append(bytes.Clone(good), "junk"...), "end of the archive", backup.ErrDamaged},
		{"state line lost", edit(func(l entries) entries {
			l[1].data = l[1].data[:bytes.LastIndexByte(l[1].data[:len(l[1].data)-1], '\n')+1]

			return l
		}), "state.jsonl", backup.ErrDamaged},
		{"byte of the state", edit(func(l entries) entries {
			l[1].data[len(l[1].data)/2] ^= 1

			return l
		}), "state.jsonl", backup.ErrDamaged},
		{"byte of a package", edit(func(l entries) entries {
			l[2].data[7] ^= 1

			return l
		}), "model.onnx", backup.ErrDamaged},
		{"file lost", edit(func(l entries) entries { return append(l[:2], l[3:]...) }), "model.onnx", backup.ErrDamaged},
		{"last file lost", edit(func(l entries) entries { return l[:len(l)-1] }), "keyring", backup.ErrDamaged},
		{"file added", edit(func(l entries) entries {
			h := l[2]
			h.Name = "packages/more"

			return append(l, h)
		}), "packages/more", backup.ErrDamaged},
		{"path leaves", manifest(`"packages/sha256/`, `"packages/sha256/../../../`), "cannot be in a backup", backup.ErrDamaged},
		{"newer", manifest(`"format": 1`, `"format": 2`), "format 2", backup.ErrNewer},
		{"other archive", edit(func(l entries) entries { return l[1:] }), "no backup", backup.ErrDamaged},
	} {
		dir := filepath.Join(t.TempDir(), "new")

		_, err := backup.Restore(t.Context(), bytes.NewReader(tc.data), dir, storetest.Logger())
		if !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.want)
		}

		if left, _ := os.ReadDir(filepath.Dir(dir)); len(left) > 0 {
			t.Errorf("%s: %v is left", tc.name, left)
		}

		if _, verr := backup.Verify(t.Context(), bytes.NewReader(tc.data)); !errors.Is(verr, tc.is) {
			t.Errorf("%s: Verify says %v", tc.name, verr)
		}
	}
}

// FuzzVerify holds that no archive does more than fail.
func FuzzVerify(f *testing.F) {
	f.Add([]byte("\x1f\x8b\x08\x00"))
	f.Fuzz(func(_ *testing.T, data []byte) {
		_, _ = backup.Verify(context.Background(), bytes.NewReader(data))
	})
}

func TestDamagedPackageEndsTheBackup(t *testing.T) {
	t.Parallel()

	w := newWorld(t)
	path := filepath.Join(w.ref.Dir, "model.onnx")

	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	data[3] ^= 1
	write(t, path, string(data))

	if _, err := backup.Write(t.Context(), io.Discard, w.src); err == nil || !strings.Contains(err.Error(), "model.onnx") {
		t.Errorf("error %v", err)
	}

	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}

	if _, err := backup.Write(t.Context(), io.Discard, w.src); err == nil || !strings.Contains(err.Error(), "model.onnx") {
		t.Errorf("error %v", err)
	}
}

func TestDamagedState(t *testing.T) {
	t.Parallel()

	for name, value := range map[string]string{
		"newer":    `{"v":2,"d":{}}`,
		"checksum": `{"v":1,"c":7,"d":{}}`,
		"garbage":  "\xff\x00",
		"empty":    `{}`,
	} {
		w := newWorld(t)
		if _, err := w.src.Store.Client().Put(t.Context(), store.DefaultPrefix+"services/s9", value); err != nil {
			t.Fatal(err)
		}

		want := store.ErrDamaged
		if name == "newer" {
			want = store.ErrNewerSchema
		}

		if err := w.src.Store.Check(t.Context()); !errors.Is(err, want) || !strings.Contains(err.Error(), "services/s9") {
			t.Errorf("%s: %v", name, err)
		}

		if _, err := backup.Write(t.Context(), io.Discard, w.src); !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
