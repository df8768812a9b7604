package pkgstore_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/spec"
)

func TestImportCopiesAndHashes(t *testing.T) {
	t.Parallel()

	s := open(t, pkgstore.Config{})
	src := tree(t, map[string]string{"config.json": "{}", "model.onnx": "weights", "sub/dir/run.sh": "#!/bin/sh"})
	must(t, os.Chmod(filepath.Join(src, "sub/dir/run.sh"), 0o700))

	ref, err := s.Import(t.Context(), src, nil)
	must(t, err)

	list := ""
	var listSb32 strings.Builder
	for _, f := range []struct{ path, text string }{{"config.json", "{}"}, {"model.onnx", "weights"}, {"sub/dir/run.sh", "#!/bin/sh"}} {
		sum := sha256.Sum256([]byte(f.text))
		listSb32.WriteString(f.path + "\x00" + hex.EncodeToString(sum[:]) + "\n")
	}
	list += listSb32.String()

	if want := sha256.Sum256([]byte(list)); ref.TreeSHA256 != hex.EncodeToString(want[:]) {
		t.Fatalf("tree hash %s", ref.TreeSHA256)
	}

	if ref.SizeBytes != int64(len("{}weights#!/bin/sh")) || len(ref.Files) != 3 || ref.Files[2].Path != "sub/dir/run.sh" {
		t.Fatalf("got %+v", ref)
	}

	if got := read(t, ref.Dir, "sub/dir/run.sh"); got != "#!/bin/sh" {
		t.Fatalf("got %q", got)
	}

	if info, err := os.Stat(filepath.Join(ref.Dir, "sub/dir/run.sh")); err != nil || info.Mode().Perm() != 0o555 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}

	must(t, s.Verify(t.Context(), ref))
	must(t, os.RemoveAll(src))
	must(t, s.Verify(t.Context(), ref))
	nothingLeft(t, ref)
}

func TestImportOverlayAndSingleFile(t *testing.T) {
	t.Parallel()

	s := open(t, pkgstore.Config{})
	src := tree(t, map[string]string{"config.json": "{}", "digits.onnx": "weights"})

	ref, err := s.Import(t.Context(), src, map[string][]byte{"config.json": []byte(`{"a":1}`)})
	must(t, err)

	if got := read(t, ref.Dir, "config.json"); got != `{"a":1}` {
		t.Fatalf("got %q", got)
	}

	alone, err := s.Import(t.Context(), "", map[string][]byte{"config.json": []byte("{}")})
	must(t, err)

	if len(alone.Files) != 1 || read(t, alone.Dir, "config.json") != "{}" {
		t.Fatalf("got %+v", alone.Files)
	}

	single, err := s.Import(t.Context(), filepath.Join(src, "digits.onnx"), nil)
	must(t, err)

	if len(single.Files) != 1 || read(t, single.Dir, "model.onnx") != "weights" {
		t.Fatalf("got %+v", single.Files)
	}
}

func TestImportOfTheSameContentShares(t *testing.T) {
	t.Parallel()

	s := open(t, pkgstore.Config{})
	plain := tree(t, map[string]string{"run": "x"})
	executable := tree(t, map[string]string{"run": "x"})
	must(t, os.Chmod(filepath.Join(executable, "run"), 0o700))

	first, err := s.Import(t.Context(), plain, nil)
	must(t, err)

	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			ref, err := s.Import(t.Context(), executable, nil)
			if err != nil || ref.Dir != first.Dir {
				t.Errorf("got %s, %v", ref.Dir, err)
			}
		})
	}

	wg.Wait()

	if info, err := os.Stat(filepath.Join(first.Dir, "run")); err != nil || info.Mode()&0o111 == 0 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}

	nothingLeft(t, first)
}

func TestImportRefusesBadSources(t *testing.T) {
	t.Parallel()

	outside := tree(t, map[string]string{"secret": "s"})

	cases := map[string]func() string{
		"missing":    func() string { return filepath.Join(t.TempDir(), "no") },
		"below file": func() string { return filepath.Join(tree(t, map[string]string{"f": ""}), "f", "g") },
		"empty":      func() string { return t.TempDir() },
		"link to a file": func() string {
			d := tree(t, map[string]string{"a": ""})
			must(t, os.Symlink(filepath.Join(outside, "secret"), filepath.Join(d, "l")))

			return d
		},
		"link to a directory": func() string {
			d := tree(t, map[string]string{"a": ""})
			must(t, os.Symlink(outside, filepath.Join(d, "l")))

			return d
		},
		"pipe": func() string {
			d := tree(t, map[string]string{"a": ""})
			must(t, syscall.Mkfifo(filepath.Join(d, "p"), 0o600))

			return d
		},
		"line feed in a name": func() string { return tree(t, map[string]string{"a\nb": ""}) },
		"too many files": func() string {
			files := map[string]string{}
			for i := range 11 {
				files[strconv.Itoa(i)] = ""
			}

			return tree(t, files)
		},
		"too big": func() string {
			return tree(t, map[string]string{"a": strings.Repeat("x", 60), "b": strings.Repeat("x", 60)})
		},
		"too deep": func() string { return tree(t, map[string]string{"1/2/3/4/5": ""}) },
		"device":   func() string { return "/dev/null" },
	}

	for name, source := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			s := open(t, pkgstore.Config{Dir: dir, MaxFiles: 10, MaxBytes: 100, MaxDepth: 3})

			_, err := s.Import(t.Context(), source(), nil)
			if !errors.Is(err, &fault.Error{Code: fault.ModelInvalid}) {
				t.Fatalf("got %v", err)
			}

			for _, sub := range []string{"tmp", "sha256"} {
				if left, err := os.ReadDir(filepath.Join(dir, sub)); err != nil || len(left) > 0 {
					t.Fatalf("left in %s: %v, %v", sub, left, err)
				}
			}
		})
	}
}

func TestImportStopsWhenCancelled(t *testing.T) {
	t.Parallel()

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	s := open(t, pkgstore.Config{})
	if _, err := s.Import(ctx, tree(t, map[string]string{"a": "x"}), nil); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
}

func TestVerifyFindsChanges(t *testing.T) {
	t.Parallel()

	s := open(t, pkgstore.Config{})
	ref, err := s.Import(t.Context(), tree(t, map[string]string{"a": "x", "b": "y"}), nil)
	must(t, err)

	file := filepath.Join(ref.Dir, "a")
	must(t, os.Chmod(file, 0o600))
	must(t, os.WriteFile(file, []byte("z"), 0o600))

	if err := s.Verify(t.Context(), ref); err == nil {
		t.Fatal("a changed file was not noticed")
	}

	if err := s.Verify(t.Context(), spec.PackageRef{TreeSHA256: strings.Repeat("0", 64)}); err == nil {
		t.Fatal("a missing package was not noticed")
	}
}

func TestCleanKeepsWhatIsWanted(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s := open(t, pkgstore.Config{Dir: dir})
	keep, err := s.Import(t.Context(), tree(t, map[string]string{"a": "x"}), nil)
	must(t, err)
	drop, err := s.Import(t.Context(), tree(t, map[string]string{"a": "y"}), nil)
	must(t, err)

	must(t, os.MkdirAll(filepath.Join(dir, "tmp", "interrupted", "sub"), 0o755))
	must(t, s.Clean(func(tree string) bool { return tree == keep.TreeSHA256 }))
	must(t, s.Verify(t.Context(), keep))

	if _, err := os.Stat(drop.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("unwanted package: %v", err)
	}

	nothingLeft(t, keep)
	must(t, s.Remove(drop.TreeSHA256))

	for _, bad := range []string{"", "..", "../../etc", keep.TreeSHA256 + "/x"} {
		if err := s.Remove(bad); err == nil {
			t.Fatalf("removed %q", bad)
		}
	}
}

func TestTrimRemovesTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()

	s := open(t, pkgstore.Config{})
	refs := make([]spec.PackageRef, 4)

	for i := range refs {
		var err error

		refs[i], err = s.Import(t.Context(), tree(t, map[string]string{"a": strings.Repeat(strconv.Itoa(i), 100)}), nil)
		must(t, err)

		old := time.Now().Add(time.Duration(i-10) * time.Hour)
		must(t, os.Chtimes(refs[i].Dir, old, old))
	}

	// 0 is the oldest, but wanted; 1 is imported again.
	_, err := s.Import(t.Context(), tree(t, map[string]string{"a": strings.Repeat("1", 100)}), nil)
	must(t, err)
	must(t, s.Trim(250, func(tree string) bool { return tree == refs[0].TreeSHA256 }))

	for i, want := range []bool{true, true, false, true} {
		if _, err := os.Stat(refs[i].Dir); (err == nil) != want {
			t.Errorf("package %d: %v", i, err)
		}
	}

	must(t, s.Trim(0, func(tree string) bool { return tree == refs[0].TreeSHA256 }))

	if err := s.Verify(t.Context(), refs[3]); err == nil {
		t.Error("a package is left over")
	}

	must(t, s.Verify(t.Context(), refs[0]))
}

func open(t *testing.T, cfg pkgstore.Config) *pkgstore.Store {
	t.Helper()

	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}

	s, err := pkgstore.New(cfg)
	must(t, err)

	return s
}

func tree(t *testing.T, files map[string]string) string {
	t.Helper()

	dir := t.TempDir()

	for name, text := range files {
		path := filepath.Join(dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(text), 0o600))
	}

	return dir
}

func read(t *testing.T, dir, name string) string {
	t.Helper()

	data, err := os.ReadFile(filepath.Join(dir, name))
	must(t, err)

	return string(data)
}

// nothingLeft checks that no work in progress stays beside ref.
func nothingLeft(t *testing.T, ref spec.PackageRef) {
	t.Helper()

	left, err := os.ReadDir(filepath.Join(filepath.Dir(filepath.Dir(ref.Dir)), "tmp"))
	if err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
