package web

import (
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/auth"
)

// Gatekeeper tells who calls and what they may do. Its errors are faults.
type Gatekeeper interface {
	Authenticate(r *auth.Request) (*auth.Principal, error)
	// Authorize judges an action on a resource of a project; id is empty for a collection.
	Authorize(p *auth.Principal, action, projectID, id string) error
}

// Handler answers a request. The answer is sent as JSON; a Reply chooses status and headers.
type Handler func(r *Request) (any, error)

// Route is one operation.
type Route struct {
	// Name is the name of the operation, for logs and audit: "CreateModel".
	Name   string
	Method string
	// Pattern is a path whose segments may be "{name}".
	Pattern string
	// Action is checked for the project in {project_id} and the resource in the path
	// parameter Resource. Empty: the handler decides by itself.
	Action   string
	Resource string
	// Public operations need no credentials; Principal is nil.
	Public bool
	Style  Style
	Handle Handler
}

// Hooks report what happens. Nil fields are skipped.
type Hooks struct {
	// Done is called after each answer of an operation, with the error that was sent, if any.
	Done func(route *Route, r *Request, status int, err error)
}

// Config of a Router. Zero means the default.
type Config struct {
	MaxBodyBytes int64 // default 4 MiB
	MaxDepth     int   // of JSON; default 64
	// Timeout bounds an operation (default 30 s).
	Timeout time.Duration
	// Now is the clock that credentials are checked against (default time.Now).
	Now   func() time.Time
	Hooks Hooks
}

// Router finds the operation for a request and runs it.
type Router struct {
	cfg    Config
	gate   Gatekeeper
	log    *slog.Logger
	routes []compiled
}

type compiled struct {
	Route
	segments []string // "" stands for a parameter
	params   []string // name by segment, "" for a literal
}

// New returns a Router for the routes. A pattern and method given twice is an error.
func New(cfg Config, gate Gatekeeper, log *slog.Logger, routes ...Route) (*Router, error) {
	if cfg.MaxBodyBytes <= 0 {
		cfg.MaxBodyBytes = 4 << 20
	}

	if cfg.MaxDepth <= 0 {
		cfg.MaxDepth = 64
	}

	if cfg.Timeout <= 0 {
		cfg.Timeout = 30 * time.Second
	}

	if cfg.Now == nil {
		cfg.Now = time.Now
	}

	rt := &Router{cfg: cfg, gate: gate, log: log}
	seen := make(map[string]bool, len(routes))

	for _, r := range routes {
		c := compile(r)

		key := r.Method + " " + strings.Join(c.segments, "/")
		if seen[key] {
			return nil, fmt.Errorf("route %s %s is given twice", r.Method, r.Pattern)
		}

		seen[key] = true

		rt.routes = append(rt.routes, c)
	}

	// Literal segments win over parameters, from left to right.
	slices.SortStableFunc(rt.routes, func(a, b compiled) int {
		for i := range min(len(a.segments), len(b.segments)) {
			if al, bl := a.segments[i] != "", b.segments[i] != ""; al != bl {
				if al {
					return -1
				}

				return 1
			}
		}

		return 0
	})

	return rt, nil
}

func compile(r Route) compiled {
	c := compiled{Route: r}

	for seg := range strings.SplitSeq(strings.TrimPrefix(r.Pattern, "/"), "/") {
		if name, ok := strings.CutPrefix(seg, "{"); ok {
			c.segments = append(c.segments, "")
			c.params = append(c.params, strings.TrimSuffix(name, "}"))
		} else {
			c.segments = append(c.segments, seg)
			c.params = append(c.params, "")
		}
	}

	return c
}

// find returns the route for a path, or the methods that the path has.
func (rt *Router) find(method, path string) (*compiled, map[string]string, []string) {
	segments, ok := split(path)
	if !ok {
		return nil, nil, nil
	}

	var methods []string

	for i := range rt.routes {
		c := &rt.routes[i]
		if !c.matches(segments) {
			continue
		}

		if c.Method != method && (c.Method != http.MethodGet || method != http.MethodHead) {
			methods = append(methods, c.Method)

			continue
		}

		vars := make(map[string]string, 4)

		for j, name := range c.params {
			if name != "" {
				vars[name] = segments[j]
			}
		}

		return c, vars, nil
	}

	slices.Sort(methods)

	return nil, nil, slices.Compact(methods)
}

func (c *compiled) matches(segments []string) bool {
	if len(segments) != len(c.segments) {
		return false
	}

	for i, want := range c.segments {
		if want != "" && want != segments[i] {
			return false
		}
	}

	return true
}

// split decodes the segments of an escaped path. A path with empty or dot segments, or with
// bytes that no name may hold, has none.
func split(path string) ([]string, bool) {
	if len(path) < 2 || path[0] != '/' || strings.Count(path, "/") > 16 {
		return nil, false
	}

	segments := strings.Split(strings.TrimSuffix(path[1:], "/"), "/")

	for i, s := range segments {
		plain, err := url.PathUnescape(s)
		if err != nil || plain == "" || plain == "." || plain == ".." || strings.ContainsAny(plain, "/\x00") || !printable(plain) {
			return nil, false
		}

		segments[i] = plain
	}

	return segments, true
}
