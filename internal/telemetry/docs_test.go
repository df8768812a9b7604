package telemetry_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestMetricsArePutDown holds the page of metrics and the names in the code against each other.
func TestMetricsArePutDown(t *testing.T) {
	t.Parallel()

	page, err := os.ReadFile("../../docs/operations/metrics.md")
	if err != nil {
		t.Fatal(err)
	}

	name := regexp.MustCompile(`\b(?:sluice|nv)_[a-z_]+[a-z]\b`)
	whole := regexp.MustCompile(`^` + name.String() + `$`)
	declared, told := map[string]bool{}, map[string]bool{}

	for _, n := range name.FindAllString(string(page), -1) {
		told[n] = true
	}

	err = filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}

		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}

		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if s, err := strconv.Unquote(lit.Value); err == nil && whole.MatchString(s) {
					declared[s] = true
				}
			}

			return true
		})

		return nil
	})
	if err != nil || len(declared) < 40 {
		t.Fatalf("%d names in the code: %v", len(declared), err)
	}

	for n := range declared {
		if !told[n] {
			t.Errorf("%s is not on the page", n)
		}
	}

	for n := range told {
		// The times of an inference are made from the names of its phases.
		if !declared[n] && !strings.HasPrefix(n, "nv_inference_") {
			t.Errorf("%s is on the page and not in the code", n)
		}
	}
}
