package router

import (
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/apischema"
	"github.com/sluice-gateway/sluice/spec"
)

// api is one declared path of an engine.
type api struct {
	path     []byte   // whole, or up to the slash before a final "*"
	escaped  []byte   // the same as clients send it
	parts    []string // set if the path has parameters, such as /items/{id}
	wild     bool
	methods  []string
	declared string                       // the methods as Allow lists them
	schemas  map[string]*apischema.Schema // of requests, by method
}

// Declaration says what a version declares about a method and path.
type Declaration uint8

// Declarations.
const (
	Declared     Declaration = iota // the request may go to the engine
	NoSuchPath                      // the version declares other paths
	NoSuchMethod                    // the path is declared with other methods
)

// compileAPIs prepares the paths that the gateway enforces: those of engines that are not ours.
// Our own runtime knows its paths itself. A package that declares none is open.
func compileAPIs(v *spec.Version) []api {
	if v.Engine == spec.EngineONNX || v.Engine == "" {
		return nil
	}

	var out []api

	for _, a := range v.APIs {
		path := a.URL
		if path == "" {
			path = "/"
		}

		i := slices.IndexFunc(out, func(o api) bool { return o.source() == path })
		if i < 0 {
			out = append(out, newAPI(path))
			i = len(out) - 1
		}

		out[i].allow(&a)
	}

	return out
}

func newAPI(path string) api {
	var a api

	if prefix, ok := strings.CutSuffix(path, "/*"); ok {
		a.wild, path = true, prefix
	}

	if strings.Contains(path, "/{") {
		a.parts = strings.Split(path, "/")
	}

	a.path = []byte(path)
	a.escaped = []byte((&url.URL{Path: path}).EscapedPath())

	return a
}

func (a *api) source() string {
	if a.wild {
		return string(a.path) + "/*"
	}

	return string(a.path)
}

// allow adds the method of a declaration, and those that come with it.
func (a *api) allow(d *spec.API) {
	method := methodOf(d)

	add := func(m string) {
		if !slices.Contains(a.methods, m) {
			a.methods = append(a.methods, m)
		}
	}

	add(method)

	if method == "GET" {
		add("HEAD")
	}

	// A WebSocket begins with a GET, whatever was declared.
	if d.Protocol == "ws" || d.Protocol == "wss" {
		add("GET")
	}

	a.declared = strings.Join(a.methods, ", ")
}

func (a *api) takes(method []byte) bool { return slices.Contains(a.methods, string(method)) }

func (a *api) matches(path []byte) bool {
	if a.parts != nil {
		return a.matchParts(path)
	}

	return a.plain(path, a.path) || a.plain(path, a.escaped)
}

func (a *api) plain(path, declared []byte) bool {
	if !a.wild {
		return string(path) == string(declared)
	}

	return len(path) >= len(declared) && string(path[:len(declared)]) == string(declared) &&
		(len(path) == len(declared) || path[len(declared)] == '/')
}

// matchParts compares segment by segment; a parameter takes any segment that is not empty.
func (a *api) matchParts(path []byte) bool {
	for i, part := range a.parts {
		end := len(path)
		for j, c := range path {
			if c == '/' {
				end = j

				break
			}
		}

		segment := path[:end]

		if strings.HasPrefix(part, "{") && strings.HasSuffix(part, "}") {
			if len(segment) == 0 {
				return false
			}
		} else if string(segment) != part {
			return false
		}

		last := i == len(a.parts)-1

		switch {
		case end == len(path):
			return last
		case last:
			return a.wild
		}

		path = path[end+1:]
	}

	return false
}

// Declares says whether a request may go to the engine of the version. allow lists the methods
// of a path that is declared with others.
func (v *Version) Declares(method, path []byte) (d Declaration, allow string) {
	if len(v.apis) == 0 {
		return Declared, ""
	}

	for i := range v.apis {
		a := &v.apis[i]
		if !a.matches(path) {
			continue
		}

		if a.takes(method) {
			return Declared, ""
		}

		allow = join(allow, a.declared)
	}

	if allow != "" {
		return NoSuchMethod, allow
	}

	return NoSuchPath, ""
}

func join(a, b string) string {
	if a == "" {
		return b
	}

	return a + ", " + b
}
