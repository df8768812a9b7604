package ortlib_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/ortlib"
)

func touch(t *testing.T, parts ...string) string {
	t.Helper()

	path := filepath.Join(parts...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}

	return path
}

func places(root string, env map[string]string) ortlib.Places {
	return ortlib.Places{
		Getenv:     func(k string) string { return env[k] },
		Executable: filepath.Join(root, "repo", "bin", "sluice-runtime"),
		WorkingDir: filepath.Join(root, "repo", "runtime", "ort"),
		System:     []string{filepath.Join(root, "usr", "lib")},
	}
}

func TestFindTakesThePlacesInOrder(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	env := map[string]string{"LD_LIBRARY_PATH": ":" + filepath.Join(root, "ld")}
	p := places(root, env)

	if _, err := p.Find(); !errors.Is(err, ortlib.ErrNotFound) || !strings.Contains(err.Error(), "make setup") {
		t.Fatalf("nothing there: %v", err)
	}

	// Each place, from the last choice to the first, wins over the ones before it.
	steps := []func() string{
		func() string { return touch(t, root, "usr", "lib", "libonnxruntime.so") },
		func() string { return touch(t, root, "usr", "lib", ortlib.Name) },
		func() string { return touch(t, root, "ld", ortlib.Name) },
		func() string { return touch(t, root, "repo", "bin", "lib", ortlib.Name) },
		func() string { return touch(t, root, "repo", ortlib.Dir, ortlib.Name) },
		func() string {
			env[ortlib.Env] = touch(t, root, "own", "ort.so")

			return env[ortlib.Env]
		},
	}

	for i, step := range steps {
		want := step()
		if got, err := p.Find(); err != nil || got != want {
			t.Errorf("step %d: got %s, %v; want %s", i, got, err, want)
		}
	}
}

func TestFindLooksInTheModuleOfTheWorkingDirectory(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	want := touch(t, root, "repo", ortlib.Dir, ortlib.Name)
	mod := touch(t, root, "repo", "go.mod")
	p := places(root, nil)
	p.Executable = filepath.Join(root, "tmp", "ort.test")

	if _, err := p.Find(); !errors.Is(err, ortlib.ErrNotFound) {
		t.Errorf("used the library of a foreign module: %v", err)
	}

	if err := os.WriteFile(mod, []byte("module github.com/sluice-gateway/sluice\n\ngo 1.26\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := os.MkdirAll(p.WorkingDir, 0o755); err != nil {
		t.Fatal(err)
	}

	if got, err := p.Find(); err != nil || got != want {
		t.Errorf("got %s, %v; want %s", got, err, want)
	}
}

func TestFindNeverReplacesTheNamedLibrary(t *testing.T) {
	t.Parallel()

	root := t.TempDir()
	touch(t, root, "usr", "lib", ortlib.Name)

	p := places(root, map[string]string{ortlib.Env: filepath.Join(root, "missing.so")})
	if _, err := p.Find(); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), ortlib.Env) {
		t.Errorf("missing: %v", err)
	}

	p = places(root, map[string]string{ortlib.Env: root})
	if _, err := p.Find(); !errors.Is(err, fs.ErrInvalid) {
		t.Errorf("a directory: %v", err)
	}
}
