package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module writes a Go module with the given files, after the package that each is for.
func module(t *testing.T, files map[string]string) string {
	t.Helper()

	dir := t.TempDir()
	files["go.mod"] = "module example.com/m\n\ngo 1.25\n"

	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
			t.Fatal(err)
		}

		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	return dir
}

func testFile(body string) string {
	return "package p\n\nimport \"testing\"\n\n" + body + "\n"
}

func goTest(t *testing.T, dir string) (string, error) {
	t.Helper()

	var out, errOut bytes.Buffer
	err := run(t.Context(), []string{"go", "-C", dir, "test", "-json", "-vet=off", "./..."}, &out, &errOut)

	return out.String(), err
}

func TestEveryWayToFailIsCountedAndShown(t *testing.T) {
	t.Parallel()

	out, err := goTest(t, module(t, map[string]string{
		"good/a_test.go":    testFile("func TestOne(*testing.T) {}\nfunc TestSubs(t *testing.T) { t.Run(\"a\", func(*testing.T) {}); t.Run(\"b\", func(*testing.T) {}) }"),
		"bad/a_test.go":     testFile("func TestGood(*testing.T) {}\nfunc TestBad(t *testing.T) { t.Run(\"sub\", func(t *testing.T) { t.Error(\"the reason\") }) }\nfunc TestOwn(t *testing.T) { t.Run(\"fine\", func(*testing.T) {}); t.Error(\"own reason\") }"),
		"panics/a_test.go":  testFile("func TestPanic(*testing.T) { panic(\"boom\") }"),
		"nobuild/a_test.go": testFile("func TestX(t *testing.T) { undefined() }"),
		"main/a_test.go":    "package p\n\nimport (\"os\"; \"testing\")\n\nfunc TestMain(m *testing.M) { m.Run(); println(\"afterwards\"); os.Exit(3) }\nfunc TestFine(*testing.T) {}\n",
		"empty/a.go":        "package p\n",
		"skips/a_test.go":   testFile("func TestSkip(t *testing.T) { t.Skip(\"no device\") }\nfunc TestRun(*testing.T) {}"),
	}))
	if err == nil {
		t.Fatal("no error")
	}

	// good 1+2, bad TestGood and TestOwn/fine, main 1, skips 1; TestBad counts as its subtest.
	if want := "7 passed, 5 failed, 1 skipped\n"; !strings.HasSuffix(out, want) {
		t.Errorf("closing line is not %q", want)
	}

	for _, want := range []string{
		"ok    example.com/m/good (3 tests", "--- FAIL: example.com/m/bad TestBad/sub", "the reason", "own reason", "boom",
		"undefined: undefined", "FAIL  example.com/m/nobuild", "FAIL  example.com/m/main", "-     example.com/m/empty", "skipped TestSkip: ", "no device",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("output lacks %q", want)
		}
	}

	if t.Failed() {
		t.Log(out)
	}
}

func TestAllGood(t *testing.T) {
	t.Parallel()

	out, err := goTest(t, module(t, map[string]string{"a/a_test.go": testFile("func TestOne(*testing.T) {}")}))
	if err != nil || !strings.HasSuffix(out, "\n1 passed, 0 failed, 0 skipped\n") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNothingRunIsAFailure(t *testing.T) {
	t.Parallel()

	if out, err := goTest(t, module(t, map[string]string{"a/a.go": "package p\n"})); err == nil {
		t.Errorf("a module without tests passed:\n%s", out)
	}

	if out, err := goTest(t, module(t, map[string]string{"go.work": "nonsense"})); err == nil {
		t.Errorf("a module that does not load passed:\n%s", out)
	}

	var out bytes.Buffer
	if err := run(t.Context(), []string{filepath.Join(t.TempDir(), "none")}, &out, &out); err == nil {
		t.Error("a program that is missing passed")
	}

	if err := run(t.Context(), nil, &out, &out); err == nil {
		t.Error("no command passed")
	}
}

func TestStreams(t *testing.T) {
	t.Parallel()

	const passed = `{"Action":"pass","Package":"p","Test":"TestA"}` + "\n"

	for _, c := range []struct {
		name, stream, out string
		fails             bool
	}{
		{"cut off", passed, "did not end", true},
		{"foreign lines are passed on", "go: downloading x\n" + passed + `{"Action":"pass","Package":"p"}`, "go: downloading x\n", false},
		{
			"time-out inside a test",
			`{"Action":"run","Package":"p","Test":"TestB"}` + "\n" + `{"Action":"output","Package":"p","Test":"TestB","Output":"hangs\n"}` + "\n" +
				`{"Action":"fail","Package":"p","Elapsed":9}`,
			"--- FAIL: p TestB did not end\n    hangs\n", false,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()

			var out bytes.Buffer

			s, err := summarize(strings.NewReader(c.stream), &out)
			if (err != nil) != c.fails || !strings.Contains(out.String(), c.out) {
				t.Errorf("%s, %v:\n%s", s.line(), err, out.String())
			}
		})
	}
}

func TestLongOutputIsCut(t *testing.T) {
	t.Parallel()

	var stream, out bytes.Buffer
	for range 100 {
		stream.WriteString(`{"Action":"output","Package":"p","Test":"TestA","Output":"` + strings.Repeat("x", 10_000) + `\n"}` + "\n")
	}

	stream.WriteString(`{"Action":"fail","Package":"p","Test":"TestA"}` + "\n" + `{"Action":"fail","Package":"p"}` + "\n")

	if _, err := summarize(&stream, &out); err != nil || out.Len() > 2*maxOutput || !strings.Contains(out.String(), "cut") {
		t.Errorf("%v: %d bytes", err, out.Len())
	}
}
