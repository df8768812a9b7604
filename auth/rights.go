package auth

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/spec"
)

// verdict is what rights say about an action on a resource.
type verdict uint8

const (
	silent verdict = iota
	allowed
	denied
)

// rights are the compiled grants of a user for one project.
type rights struct {
	roles []spec.Role
	allow [len(actionNames)]*resources
	deny  [len(actionNames)]*resources
	// raw holds the statements for actions that are not in the table.
	raw []spec.Statement
}

func (r *rights) evaluate(action string, resource []byte) verdict {
	if r == nil {
		return silent
	}

	i, known := actionIndex[action]
	if !known {
		return r.evaluateRaw(action, resource)
	}

	if r.deny[i].match(resource) {
		return denied
	}

	if r.allow[i].match(resource) || r.roleAllows(action) {
		return allowed
	}

	return silent
}

func (r *rights) roleAllows(action string) bool {
	for _, role := range r.roles {
		if roleAllows(role, action) {
			return true
		}
	}

	return false
}

func (r *rights) evaluateRaw(action string, resource []byte) verdict {
	v := silent
	if r.roleAllows(action) {
		v = allowed
	}

	lower := strings.ToLower(action)

	for i := range r.raw {
		st := &r.raw[i]
		if !slices.ContainsFunc(st.Actions, func(p string) bool { return wildcard(strings.ToLower(p), []byte(lower)) }) ||
			len(st.Resources) > 0 && !slices.ContainsFunc(st.Resources, func(p string) bool { return wildcard(p, resource) }) {
			continue
		}

		if st.Effect != "Allow" {
			return denied
		}

		v = allowed
	}

	return v
}

// add compiles one grant into r. It reports what it does not understand.
func (r *rights) add(g *spec.Grant) error {
	var problem error

	if g.Role != "" {
		if !KnownRole(g.Role) {
			problem = fmt.Errorf("unknown role %q", g.Role)
		} else if !slices.Contains(r.roles, g.Role) {
			r.roles = append(r.roles, g.Role)
		}
	}

	for i := range g.Statements {
		st := &g.Statements[i]
		table := &r.deny // what nobody understands must not widen rights

		switch st.Effect {
		case "Allow":
			table = &r.allow
		case "Deny":
		default:
			problem = fmt.Errorf("unknown effect %q counts as Deny", st.Effect)
		}

		r.raw = append(r.raw, *st)

		for a, name := range actionNames {
			lower := []byte(strings.ToLower(name))
			if slices.ContainsFunc(st.Actions, func(p string) bool { return wildcard(strings.ToLower(p), lower) }) {
				if table[a] == nil {
					table[a] = &resources{}
				}

				table[a].add(st.Resources)
			}
		}
	}

	return problem
}

// resources is a compiled set of resource patterns.
type resources struct {
	all      bool
	exact    map[string]struct{}
	lengths  bitmap     // of what is in exact, modulo 256
	prefixes []prefixes // patterns whose only "*" is at the end, one entry for each length
	patterns []string   // the others
}

type prefixes struct {
	length int
	last   bitmap // last bytes of what is in set
	set    map[string]struct{}
}

// bitmap is a set of bytes. Asking it costs a tenth of asking a map, and nearly always spares that.
type bitmap [4]uint64

func (b *bitmap) add(c byte)      { b[c>>6] |= 1 << (c & 63) }
func (b *bitmap) has(c byte) bool { return b[c>>6]>>(c&63)&1 != 0 }

func (r *resources) add(patterns []string) {
	if len(patterns) == 0 {
		r.all = true
	}

	for _, p := range patterns {
		switch star := strings.IndexByte(p, '*'); {
		case p == "*":
			r.all = true
		case star < 0:
			if r.exact == nil {
				r.exact = make(map[string]struct{})
			}

			r.exact[p] = struct{}{}
			r.lengths.add(byte(len(p)))
		case star == len(p)-1:
			r.addPrefix(p[:star])
		default:
			r.patterns = append(r.patterns, p)
		}
	}
}

func (r *resources) addPrefix(p string) {
	i := slices.IndexFunc(r.prefixes, func(x prefixes) bool { return x.length == len(p) })
	if i < 0 {
		i = len(r.prefixes)
		r.prefixes = append(r.prefixes, prefixes{length: len(p), set: make(map[string]struct{})})
	}

	r.prefixes[i].set[p] = struct{}{}
	if p != "" {
		r.prefixes[i].last.add(p[len(p)-1])
	}
}

func (r *resources) match(resource []byte) bool {
	if r == nil {
		return false
	}

	if r.all {
		return true
	}

	if r.lengths.has(byte(len(resource))) {
		if _, ok := r.exact[string(resource)]; ok {
			return true
		}
	}

	for i := range r.prefixes {
		p := &r.prefixes[i]
		if p.length <= len(resource) && (p.length == 0 || p.last.has(resource[p.length-1])) {
			if _, ok := p.set[string(resource[:p.length])]; ok {
				return true
			}
		}
	}

	for _, p := range r.patterns {
		if wildcard(p, resource) {
			return true
		}
	}

	return false
}

// wildcard reports whether s matches pattern, in which "*" stands for any run of bytes.
func wildcard(pattern string, s []byte) bool {
	first, rest, found := strings.Cut(pattern, "*")
	if !found {
		return pattern == string(s)
	}

	if len(s) < len(first) || string(s[:len(first)]) != first {
		return false
	}

	s = s[len(first):]

	for {
		part, next, more := strings.Cut(rest, "*")
		if !more {
			return len(s) >= len(part) && string(s[len(s)-len(part):]) == part
		}

		i := indexString(s, part)
		if i < 0 {
			return false
		}

		s, rest = s[i+len(part):], next
	}
}

// indexString is bytes.Index for a string, without a conversion that allocates.
func indexString(s []byte, sub string) int {
	if sub == "" {
		return 0
	}

	for i := 0; i+len(sub) <= len(s); i++ {
		j := bytes.IndexByte(s[i:], sub[0])
		if j < 0 {
			return -1
		}

		i += j
		if i+len(sub) <= len(s) && string(s[i:i+len(sub)]) == sub {
			return i
		}
	}

	return -1
}

// appendResource appends the name of a resource: "modelarts:{project}:service:{id}".
func appendResource(dst []byte, action, projectID, id string) []byte {
	product, rest, _ := strings.Cut(action, ":")
	kind, _, _ := strings.Cut(rest, ":")

	dst = append(append(dst, product...), ':')
	dst = append(append(dst, projectID...), ':')
	dst = append(append(dst, kind...), ':')

	return append(dst, id...)
}
