// Package archtest keeps the import graph of the module as it is meant to be. Its tests
// read the import lines of every Go file, whatever its build constraints, and compare them
// with layers.go, with the fences around some dependencies, and with edges.txt, the list
// of all edges. "make arch" writes edges.txt, so a new edge is a visible line in a change.
package archtest

import (
	"fmt"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Module is the import path of this module.
const Module = "github.com/sluice-gateway/sluice"

// Graph holds the imports of each package of the module, without those of the standard
// library. Packages of the module are named by their path inside it, others by their import path.
type Graph struct {
	// Imports of the files that are no tests.
	Imports map[string]map[string]bool
	// TestImports are those of test files alone.
	TestImports map[string]map[string]bool
}

// Load reads the import lines of all Go files under root.
func Load(root string) (*Graph, error) {
	g := &Graph{Imports: map[string]map[string]bool{}, TestImports: map[string]map[string]bool{}}

	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		if d.IsDir() {
			return skip(root, file, d.Name())
		}

		if !strings.HasSuffix(file, ".go") {
			return nil
		}

		return g.add(root, file)
	})
	if err != nil {
		return nil, fmt.Errorf("read the import graph: %w", err)
	}

	return g, nil
}

// skip leaves out what is no package of this module.
func skip(root, dir, name string) error {
	if dir == root {
		return nil
	}

	if strings.HasPrefix(name, ".") || name == "testdata" || name == "third_party" || name == "node_modules" {
		return filepath.SkipDir
	}

	if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
		return filepath.SkipDir
	}

	return nil
}

func (g *Graph) add(root, file string) error {
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		return fmt.Errorf("parse %s: %w", file, err)
	}

	rel, err := filepath.Rel(root, filepath.Dir(file))
	if err != nil {
		return fmt.Errorf("name the package of %s: %w", file, err)
	}

	pkg, into := filepath.ToSlash(rel), g.Imports
	if strings.HasSuffix(file, "_test.go") {
		into = g.TestImports
	}

	if into[pkg] == nil {
		into[pkg] = map[string]bool{}
	}

	for _, spec := range parsed.Imports {
		name, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return fmt.Errorf("read an import of %s: %w", file, err)
		}

		inside, ours := strings.CutPrefix(name, Module+"/")
		if !ours && name != "C" && !external(name) {
			continue // the standard library, whose "runtime" is not ours
		}

		if inside != pkg { // an external test imports its own package
			into[pkg][inside] = true
		}
	}

	return nil
}

// own reports whether name is a package of the module.
func (g *Graph) own(name string) bool {
	_, ok := g.Imports[name]

	return ok
}

// Edges lists the edges inside the module, as "from -> to".
func (g *Graph) Edges() []string {
	var edges []string

	for _, from := range slices.Sorted(maps.Keys(g.Imports)) {
		for _, to := range slices.Sorted(maps.Keys(g.Imports[from])) {
			if g.own(to) {
				edges = append(edges, from+" -> "+to)
			}
		}
	}

	return edges
}

// Route finds a way of imports from a package to another one under target; nil if there is none.
func (g *Graph) Route(from, target string) []string {
	via := map[string]string{from: ""}
	queue := []string{from}

	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]

		if at != from && under(at, target) {
			var route []string
			for p := at; p != ""; p = via[p] {
				route = append(route, p)
			}

			slices.Reverse(route)

			return route
		}

		for _, next := range slices.Sorted(maps.Keys(g.Imports[at])) {
			if _, seen := via[next]; !seen {
				via[next] = at
				queue = append(queue, next)
			}
		}
	}

	return nil
}

// under reports whether pkg is prefix or below it.
func under(pkg, prefix string) bool {
	return pkg == prefix || strings.HasPrefix(pkg, prefix+"/")
}

// external reports whether an import path leads out of the module and the standard library.
func external(name string) bool {
	first, _, _ := strings.Cut(path.Clean(name), "/")

	return strings.Contains(first, ".")
}
