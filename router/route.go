package router

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

// Version is one model version of a service.
type Version struct {
	ModelID string
	Label   string // name/version
	Weight  int
	Pure    bool // running a request twice has no side effect
	Pool    *pool.Pool

	seed     uint64
	label    []byte
	fallback []byte
	apis     []api // empty: every path goes to the engine
	checks   bool  // some of apis have schemas
}

// LabelBytes is Label for headers.
func (v *Version) LabelBytes() []byte { return v.label }

// DefaultPath is where a request goes that names no path.
func (v *Version) DefaultPath() []byte { return v.fallback }

// Route decides among the versions of one service.
type Route struct {
	versions []Version
	rules    []rule
	sticky   *source
	keyed    bool   // a pool hashes: requests need keys
	total    uint64 // of the weights
	turn     *atomic.Uint64
}

// Versions of the route, in the order of the service.
func (r *Route) Versions() []Version { return r.versions }

// rule sends matching requests to one version.
type rule struct {
	name    string
	label   []byte
	version int
	header  *source
	cookie  *source
	query   *source
	who     string
	app     string
	from    netip.Prefix
}

type sourceKind uint8

const (
	byHeader sourceKind = iota
	byCookie
	byQuery
	byPrincipal
	byApp
)

// source is where a value is taken from; want, if not empty, is what it must be.
type source struct {
	kind sourceKind
	name string
	want string
}

// Turns counts the requests of a service across the routes compiled for it, so that
// recompiling does not restart the sequence by which weights are dealt out.
type Turns struct{ n atomic.Uint64 }

// NewTurns starts at a random place, so that gateways of a fleet do not move in step.
func NewTurns() *Turns {
	t := &Turns{}
	t.n.Store(rand.Uint64()) //nolint:gosec // spreads load, guards nothing

	return t
}

// Compile checks a route of a snapshot and prepares it. pools has one pool per version.
func Compile(in *spec.Route, pools []*pool.Pool, turns *Turns) (*Route, error) {
	r := &Route{versions: make([]Version, len(in.Versions)), turn: &turns.n}

	picker, errPicker := pool.ParsePicker(in.Balancer)
	errs := []error{errPicker}
	r.keyed = picker == pool.ConsistentHash || picker == pool.SourceIP

	for i := range in.Versions {
		v := &in.Versions[i]
		if v.Weight < 0 {
			errs = append(errs, fmt.Errorf("versions[%d]: weight %d is negative", i, v.Weight))

			continue
		}

		label := v.ModelName + "/" + v.ModelVersion
		r.versions[i] = Version{
			ModelID: v.ModelID, Label: label, label: []byte(label), Weight: v.Weight,
			Pure: v.Engine.Pure(), fallback: []byte(defaultPath(v)), Pool: pools[i], seed: pool.HashString(v.ModelID),
			apis: compileAPIs(v),
		}
		r.versions[i].compileSchemas(v)
		r.total += uint64(v.Weight)
	}

	var err error
	if in.Policy.Traffic.Sticky != nil {
		r.sticky, err = compileSticky(in.Policy.Traffic.Sticky)
		errs = append(errs, err)
	}

	for i := range in.Policy.Traffic.Rules {
		compiled, err := r.compileRule(&in.Policy.Traffic.Rules[i], i)
		if err != nil {
			errs = append(errs, fmt.Errorf("rules[%d]: %w", i, err))

			continue
		}

		r.rules = append(r.rules, compiled)
	}

	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("service %s: %w", in.ServiceID, err)
	}

	return r, nil
}

// Check is Compile for its errors alone.
func Check(in *spec.Route) error {
	_, err := Compile(in, make([]*pool.Pool, len(in.Versions)), &Turns{})

	return err
}

// defaultPath is where a request without a path of its own goes.
func defaultPath(v *spec.Version) string {
	if len(v.APIs) > 0 && strings.HasPrefix(v.APIs[0].URL, "/") {
		return v.APIs[0].URL
	}

	return "/"
}

func compileSticky(in *spec.Sticky) (*source, error) {
	s := &source{name: in.Name}

	switch in.By {
	case "header":
		s.kind, s.name = byHeader, strings.ToLower(in.Name)
	case "cookie":
		s.kind = byCookie
	case "query":
		s.kind = byQuery
	case "principal":
		s.kind = byPrincipal
	case "app":
		s.kind = byApp
	default:
		return nil, fmt.Errorf("sticky.by %q is not header, cookie, query, principal or app", in.By)
	}

	if s.kind <= byQuery && in.Name == "" {
		return nil, fmt.Errorf("sticky.name is needed by %q", in.By)
	}

	return s, nil
}

func (r *Route) compileRule(in *spec.Rule, i int) (rule, error) {
	out := rule{name: in.Name, version: -1, who: in.Match.Principal, app: in.Match.App}
	if out.name == "" {
		out.name = fmt.Sprintf("rule-%d", i+1)
	}

	out.label = []byte(out.name)

	for v := range r.versions {
		if r.versions[v].ModelID == in.ModelID && in.ModelID != "" {
			out.version = v
		}
	}

	var errs []error
	if out.version < 0 {
		errs = append(errs, fmt.Errorf("model_id %q is not a version of the service", in.ModelID))
	}

	take := func(kind sourceKind, what string, in *spec.NameValue) *source {
		if in == nil {
			return nil
		}

		if in.Name == "" {
			errs = append(errs, fmt.Errorf("match.%s.name is empty", what))
		}

		s := &source{kind: kind, name: in.Name, want: in.Value}
		if kind == byHeader {
			s.name = strings.ToLower(in.Name)
		}

		return s
	}
	out.header = take(byHeader, "header", in.Match.Header)
	out.cookie = take(byCookie, "cookie", in.Match.Cookie)
	out.query = take(byQuery, "query", in.Match.Query)

	if in.Match.CIDR != "" {
		prefix, err := parsePrefix(in.Match.CIDR)
		if err != nil {
			errs = append(errs, fmt.Errorf("match.cidr: %w", err))
		}

		out.from = prefix
	}

	if in.Match == (spec.Match{}) {
		errs = append(errs, errors.New("match has no condition"))
	}

	return out, errors.Join(errs...)
}

// parsePrefix takes a CIDR or a single address.
func parsePrefix(s string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(s); err == nil {
		addr = addr.Unmap()

		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}

	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, fmt.Errorf("%q is no address range", s)
	}

	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}

	return p.Masked(), nil
}
