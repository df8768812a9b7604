package atomicfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/sluice-gateway/sluice/internal/atomicfile"
)

func TestWriteReplacesAndSetsMode(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "f")

	for _, text := range []string{"one", "two"} {
		if err := atomicfile.Write(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		check(t, path, text)
	}
}

func TestCreateKeepsWhatIsThere(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "f")

	if err := atomicfile.Create(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}

	if err := atomicfile.Create(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Fatalf("second create: %v", err)
	}

	check(t, path, "one")
}

func TestFailureLeavesNothingBehind(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "taken"), 0o700); err != nil {
		t.Fatal(err)
	}

	if err := atomicfile.Write(filepath.Join(dir, "taken"), nil, 0o600); err == nil {
		t.Fatal("a directory was replaced by a file")
	}

	if err := atomicfile.Write(filepath.Join(dir, "no", "dir"), nil, 0o600); err == nil {
		t.Fatal("wrote into a directory that does not exist")
	}

	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Fatalf("left behind: %v, %v", entries, err)
	}
}

func check(t *testing.T, path, want string) {
	t.Helper()

	got, err := os.ReadFile(path)
	if err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}

	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}

	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Fatalf("left behind: %v, %v", entries, err)
	}
}
