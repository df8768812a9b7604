package archtest_test

import (
	"errors"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/archtest"
)

var update = flag.Bool("update", false, "write edges.txt")

const (
	root      = "../.."
	edgesFile = "edges.txt"
)

func load(t *testing.T, dir string) *archtest.Graph {
	t.Helper()

	g, err := archtest.Load(dir)
	if err != nil {
		t.Fatal(err)
	}

	return g
}

func TestModuleKeepsTheRules(t *testing.T) {
	t.Parallel()

	g := load(t, root)
	if len(g.Imports) < 10 {
		t.Fatalf("found only %d packages", len(g.Imports))
	}

	for _, b := range archtest.House().Check(g) {
		t.Error(b)
	}
}

// TestEdges compares the import graph with the list that a reviewer has seen.
func TestEdges(t *testing.T) {
	t.Parallel()

	got := load(t, root).Edges()

	if *update {
		text := "# The import graph of the module. \"make arch\" writes this file.\n" + strings.Join(got, "\n") + "\n"
		if err := os.WriteFile(edgesFile, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		return
	}

	data, err := os.ReadFile(edgesFile)
	if errors.Is(err, fs.ErrNotExist) {
		t.Fatal("edges.txt is missing; make arch writes it")
	}

	if err != nil {
		t.Fatal(err)
	}

	var want []string

	for line := range strings.Lines(string(data)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			want = append(want, line)
		}
	}

	for _, e := range got {
		if !slices.Contains(want, e) {
			t.Errorf("new edge %s: if it is meant, run \"make arch\" and commit edges.txt", e)
		}
	}

	for _, e := range want {
		if !slices.Contains(got, e) {
			t.Errorf("edge %s is gone: run \"make arch\" and commit edges.txt", e)
		}
	}
}

// TestRulesFire plants each kind of violation and wants it named.
func TestRulesFire(t *testing.T) {
	t.Parallel()

	for _, c := range []struct{ name, file, imports, want string }{
		{"upwards", "spec/x.go", "internal/fault", "spec imports internal/fault, but spec may import only nothing of the module"},
		{"spec outside the standard library", "spec/x.go", "github.com/google/uuid", "standard library only"},
		{"data plane to control", "gateway/x.go", "control/store", "gateway imports control/store"},
		{"gateway to runtime", "gateway/upstream/x.go", "runtime/batch", "gateway/upstream imports runtime/batch"},
		{"hidden behind another package", "internal/telemetry/x.go", "runtime/batch", "cmd/sluice reaches runtime (cmd/sluice -> internal/telemetry -> runtime/batch)"},
		{"control to the router", "control/api/x.go", "router", "control/api imports router"},
		{"fasthttp inside", "auth/x.go", "github.com/valyala/fasthttp", "auth imports github.com/valyala/fasthttp, which only gateway/edge"},
		{"a package of fasthttp", "auth/x.go", "github.com/valyala/fasthttp/fasthttputil", "transport types stop at the doors"},
		{"prometheus", "router/x.go", "github.com/prometheus/client_golang/prometheus", "which only internal/telemetry may"},
		{"cgo", "link/x.go", "C", "link imports C, which only runtime/ort may"},
		{"cgo behind a build tag", "link/x_windows.go", "C", "link imports C"},
		{"cgo in a test", "link/x_test.go", "C", "the tests of link imports C"},
		{"a new top folder", "misc/x.go", "spec", "misc belongs to no layer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			dir := t.TempDir()
			for _, p := range []string{"spec", "internal/fault", "control/store", "runtime/batch", "router", "link", "auth"} {
				plant(t, dir, p+"/doc.go", "")
			}

			plant(t, dir, "cmd/sluice/main.go", "internal/telemetry")
			plant(t, dir, "internal/telemetry/doc.go", "")

			if broken := archtest.House().Check(load(t, dir)); len(broken) > 0 {
				t.Fatalf("before: %v", broken)
			}

			plant(t, dir, c.file, c.imports)

			broken := archtest.House().Check(load(t, dir))
			if !slices.ContainsFunc(broken, func(b string) bool { return strings.Contains(b, c.want) }) {
				t.Errorf("found %q, want %q", broken, c.want)
			}
		})
	}
}

func plant(t *testing.T, dir, file, imports string) {
	t.Helper()

	first, _, _ := strings.Cut(imports, "/")
	if imports != "" && imports != "C" && !strings.Contains(first, ".") {
		imports = archtest.Module + "/" + imports
	}

	text := "package p\n"
	if imports != "" {
		text += "\nimport _ \"" + imports + "\"\n"
	}

	path := filepath.Join(dir, filepath.FromSlash(file))
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoadLeavesOutWhatIsNoPackage(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	plant(t, dir, "spec/x.go", "")
	plant(t, dir, "spec/testdata/x.go", "control")

	std := []byte("package p\n\nimport _ \"runtime/debug\"\n")
	if err := os.WriteFile(filepath.Join(dir, "spec", "std.go"), std, 0o600); err != nil {
		t.Fatal(err)
	}

	plant(t, dir, "third_party/x/x.go", "control")
	plant(t, dir, ".hidden/x.go", "control")
	plant(t, dir, "nested/x.go", "control")

	if err := os.WriteFile(filepath.Join(dir, "nested", "go.mod"), []byte("module x\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	if g := load(t, dir); len(g.Imports) != 1 || len(g.Imports["spec"]) != 0 {
		t.Errorf("packages = %v", g.Imports)
	}

	if err := os.WriteFile(filepath.Join(dir, "spec", "broken.go"), []byte("package"), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := archtest.Load(dir); err == nil {
		t.Error("a file that does not parse passed")
	}
}
