package archtest

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Layer says what the packages under Prefix may import inside the module. The longest
// prefix that fits a package counts. Any layer may import itself.
type Layer struct {
	Prefix string
	May    []string
}

// Fence keeps a dependency to some packages.
type Fence struct {
	Import string // import path, or the start of one
	Only   []string
	Why    string
	// Tests extends the fence to test files.
	Tests bool
}

// Ban forbids that From reaches To, by any route.
type Ban struct{ From, To, Why string }

// Rules is the meant shape of the module.
type Rules struct {
	Layers []Layer
	Fences []Fence
	Bans   []Ban
}

// House returns the rules of this module.
func House() Rules {
	everything := []string{"auth", "client", "cmd", "control", "gateway", "internal", "link", "loadtest", "router", "runtime", "spec", "web"}

	return Rules{
		Layers: []Layer{
			{Prefix: "spec"},
			{Prefix: "web"},
			{Prefix: "internal", May: []string{"spec"}},
			{Prefix: "internal/fault"},
			// The client verbs sign requests and drive the load generator.
			{Prefix: "internal/cli", May: []string{"spec", "internal", "auth/sign", "loadtest"}},
			// Adapters from the rooms' hooks to Prometheus.
			{Prefix: "internal/telemetry", May: []string{"spec", "internal", "auth", "link", "router", "gateway", "runtime", "control"}},
			{Prefix: "link", May: []string{"spec", "internal"}},
			{Prefix: "auth/sign", May: []string{"spec", "internal"}},
			{Prefix: "auth", May: []string{"spec", "internal"}},
			{Prefix: "router", May: []string{"spec", "internal", "auth"}},
			{Prefix: "gateway", May: []string{"spec", "internal", "link", "auth", "router"}},
			{Prefix: "runtime", May: []string{"spec", "internal", "link", "auth/sign"}},
			{Prefix: "control", May: []string{"spec", "internal", "auth", "link", "web"}},
			{Prefix: "loadtest", May: []string{"spec", "internal", "link", "auth/sign"}},
			// What users import: the signer, nothing from inside.
			{Prefix: "client", May: []string{"spec", "auth/sign"}},
			{Prefix: "cmd", May: everything},
			{Prefix: "test", May: everything},
			// Examples show what a client may use: the signer and the client, nothing from inside.
			{Prefix: "docs/examples", May: []string{"spec", "auth/sign", "client"}},
		},
		Fences: []Fence{
			{
				Import: "github.com/valyala/fasthttp", Only: []string{"gateway/edge", "gateway/upstream", "runtime/serve", "loadtest"},
				Why: "transport types stop at the doors",
			},
			{
				Import: "github.com/gorilla/websocket", Only: []string{"gateway/edge", "gateway/upstream", "runtime/serve", "loadtest"},
				Why: "transport types stop at the doors",
			},
			{
				Import: "github.com/prometheus/", Only: []string{"internal/telemetry"},
				Why: "rooms report through hooks; internal/telemetry adapts them",
			},
			{Import: "github.com/yalue/onnxruntime_go", Only: []string{"runtime/ort"}, Why: "only runtime/ort uses cgo", Tests: true},
			{Import: "C", Only: []string{"runtime/ort"}, Why: "only runtime/ort uses cgo", Tests: true},
			{Import: "go.etcd.io/", Only: []string{"control/store", "control/rollout", "gateway/plan", "cmd"}, Why: "state and election stand in the control plane"},
		},
		Bans: []Ban{
			{"cmd/sluice", "runtime", "the gateway reaches workers over the wire only, and is built without cgo"},
			{"cmd/sluice-runtime", "gateway", "a worker knows no gateway"},
			{"cmd/sluice-runtime", "control", "a worker knows no control plane"},
			{"gateway", "control", "the data plane speaks spec.Snapshot only"},
			{"router", "control", "the data plane speaks spec.Snapshot only"},
			{"auth", "control", "the data plane speaks spec.Snapshot only"},
			{"link", "control", "the data plane speaks spec.Snapshot only"},
			{"runtime", "control", "a worker knows no control plane"},
			{"gateway", "runtime", "the gateway reaches workers over the wire only"},
			{"runtime", "gateway", "a worker knows no gateway"},
			{"control", "gateway", "control never touches a request"},
			{"control", "router", "control never touches a request"},
			{"control", "runtime", "control reaches workers over the wire only"},
		},
	}
}

// Check lists what in g breaks the rules, one sentence each.
func (r Rules) Check(g *Graph) []string {
	var broken []string

	for _, from := range slices.Sorted(maps.Keys(g.Imports)) {
		broken = append(broken, r.checkLayer(g, from)...)
	}

	for _, f := range r.Fences {
		broken = append(broken, f.check(g.Imports, "")...)
		if f.Tests {
			broken = append(broken, f.check(g.TestImports, "the tests of ")...)
		}
	}

	for _, b := range r.Bans {
		for _, from := range slices.Sorted(maps.Keys(g.Imports)) {
			if !under(from, b.From) {
				continue
			}

			if route := g.Route(from, b.To); route != nil {
				broken = append(broken, fmt.Sprintf("%s reaches %s (%s): %s", from, b.To, strings.Join(route, " -> "), b.Why))
			}
		}
	}

	return broken
}

func (r Rules) checkLayer(g *Graph, from string) []string {
	var broken []string

	layer, ok := r.layerOf(from)
	if !ok {
		return []string{from + " belongs to no layer; give it one in internal/archtest/layers.go"}
	}

	for _, to := range slices.Sorted(maps.Keys(g.Imports[from])) {
		if layer.Prefix == "spec" && external(to) {
			broken = append(broken, from+" imports "+to+": spec imports the standard library only")
		}

		if !g.own(to) || under(to, layer.Prefix) {
			continue
		}

		if !slices.ContainsFunc(layer.May, func(p string) bool { return under(to, p) }) {
			broken = append(broken, fmt.Sprintf("%s imports %s, but %s may import only %s",
				from, to, layer.Prefix, listOr(layer.May, "nothing of the module")))
		}
	}

	return broken
}

func (r Rules) layerOf(pkg string) (Layer, bool) {
	var best Layer

	for _, l := range r.Layers {
		if under(pkg, l.Prefix) && len(l.Prefix) > len(best.Prefix) {
			best = l
		}
	}

	return best, best.Prefix != ""
}

func (f Fence) check(imports map[string]map[string]bool, who string) []string {
	var broken []string

	for _, from := range slices.Sorted(maps.Keys(imports)) {
		if slices.ContainsFunc(f.Only, func(p string) bool { return under(from, p) }) {
			continue
		}

		for _, to := range slices.Sorted(maps.Keys(imports[from])) {
			if to == f.Import || strings.HasPrefix(to, strings.TrimSuffix(f.Import, "/")+"/") {
				broken = append(broken, fmt.Sprintf("%s%s imports %s, which only %s may: %s", who, from, to, listOr(f.Only, ""), f.Why))
			}
		}
	}

	return broken
}

func listOr(items []string, none string) string {
	if len(items) == 0 {
		return none
	}

	return strings.Join(items, ", ")
}
