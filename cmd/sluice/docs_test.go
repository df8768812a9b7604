package main

import (
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
)

func readDoc(t *testing.T, path string) string {
	t.Helper()

	b, err := os.ReadFile(filepath.Join("../../docs", path))
	if err != nil {
		t.Fatal(err)
	}

	return string(b)
}

// keys lists the settings below a struct, by their full path.
func keys(prefix string, typ reflect.Type) []string {
	for typ.Kind() == reflect.Pointer || typ.Kind() == reflect.Slice {
		typ = typ.Elem()
	}

	if typ.Kind() != reflect.Struct {
		return []string{prefix}
	}

	var all []string

	for f := range typ.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if name == "" || name == "-" {
			continue
		}

		all = append(all, keys(prefix+"."+name, f.Type)...)
	}

	if all == nil { // a struct that is one value
		return []string{prefix}
	}

	return all
}

// TestEverySettingOfTheEdgeIsPutDown looks for the name of each setting on the pages that tell them.
func TestEverySettingOfTheEdgeIsPutDown(t *testing.T) {
	t.Parallel()

	pages := readDoc(t, "operations/edge.md") + readDoc(t, "routing.md")

	var s settings

	for section, value := range map[string]any{
		"edge": s.Edge, "auth": s.Auth, "admission": s.Admission, "tls": s.TLS, "ops": s.Ops, "control": s.Control, "routing": s.Routing,
	} {
		all := keys(section, reflect.TypeOf(value))
		if len(all) < 3 {
			t.Errorf("%s: found only %v", section, all)
		}

		for _, key := range all {
			name := key[strings.LastIndexByte(key, '.')+1:]
			if !regexp.MustCompile("[`.{ ]" + name + "[`:,}]").MatchString(pages) {
				t.Errorf("%s is on no page", key)
			}
		}
	}
}

// TestEveryErrorCodeIsPutDown holds docs/api/errors.md against the table of faults.
func TestEveryErrorCodeIsPutDown(t *testing.T) {
	t.Parallel()

	page := readDoc(t, "api/errors.md")

	for c := range fault.Count() {
		code := fault.Code(c)
		if row := errorRow(code); !strings.Contains(page, row) {
			t.Errorf("missing: %s", row)
		}
	}

	rows := strings.Count(page, "\n| ") - strings.Count(page, "\n| status |")
	if rows != fault.Count() {
		t.Errorf("the page has %d codes, the code %d", rows, fault.Count())
	}
}

// TestTheTestsOnThePageOfTrapsExist holds docs/operations/edge-traps.md against the code.
func TestTheTestsOnThePageOfTrapsExist(t *testing.T) {
	t.Parallel()

	exist := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)

	err := filepath.WalkDir("../..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "third_party") {
			return filepath.SkipDir
		}

		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}

		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			exist[string(m[1])] = true
		}

		return err
	})
	if err != nil {
		t.Fatal(err)
	}

	page := readDoc(t, "operations/edge-traps.md")

	named := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`").FindAllStringSubmatch(page, -1)
	if len(named) < 60 {
		t.Errorf("the page names only %d tests", len(named))
	}

	for _, m := range named {
		if !exist[m[1]] {
			t.Errorf("%s does not exist", m[1])
		}
	}

	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| trap") && !strings.Contains(line, "`Test") && !strings.Contains(line, "corpus") {
			t.Errorf("no test: %s", line)
		}
	}
}
