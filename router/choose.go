package router

import (
	"bytes"
	"math"
	"math/bits"
	"net/netip"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/router/pool"
)

// Headers reads request headers. name is in lower case; nil if absent.
type Headers interface{ Get(name string) []byte }

// Request is what a decision may depend on.
type Request struct {
	Header    Headers
	Query     []byte // raw, without "?"
	Principal *auth.Principal
	Remote    netip.Addr

	// Scratch is used for decoded values and kept for the next request.
	Scratch []byte
}

// Reason says why a version was chosen.
type Reason uint8

// Reasons.
const (
	NoVersion Reason = iota // no version is able to serve
	ByRule
	BySticky
	ByWeight
)

// String is the reason's name.
func (r Reason) String() string {
	switch r {
	case ByRule:
		return "rule"
	case BySticky:
		return "sticky"
	case ByWeight:
		return "weight"
	case NoVersion:
		return "none"
	default:
		return "unknown"
	}
}

// Decision is the outcome of Choose.
type Decision struct {
	Version *Version // nil if none is able to serve
	Reason  Reason
	Rule    string // name of the rule that matched
	rule    []byte
}

// RuleBytes is Rule for headers.
func (d *Decision) RuleBytes() []byte { return d.rule }

// Choose decides on a version. A rule that matches is final, also if its version has no
// instance at the moment: a tester who asks for a version must not silently get another.
func (r *Route) Choose(q *Request) Decision {
	for i := range r.rules {
		if r.rules[i].matches(q) {
			rule := &r.rules[i]

			return Decision{Version: &r.versions[rule.version], Reason: ByRule, Rule: rule.name, rule: rule.label}
		}
	}

	if len(r.versions) == 1 {
		v := &r.versions[0]
		if v.Weight > 0 && v.Pool.Ready() {
			return Decision{Version: v, Reason: ByWeight}
		}

		return Decision{}
	}

	if r.sticky != nil {
		if key := r.sticky.key(q); key != 0 {
			if v := r.rendezvous(key); v != nil {
				return Decision{Version: v, Reason: BySticky}
			}
		}
	}

	if v := r.deal(r.turn.Add(golden)); v != nil {
		return Decision{Version: v, Reason: ByWeight}
	}

	return Decision{}
}

// Other decides by weight among the versions that are not in tried; nil if none is left.
// It is for retries: a request that came by a rule stays with its version.
func (r *Route) Other(tried func(*Version) bool) *Version {
	var (
		best *Version
		top  int
	)

	for i := range r.versions {
		v := &r.versions[i]
		if v.Weight > top && !tried(v) && v.Pool.Ready() {
			best, top = v, v.Weight
		}
	}

	return best
}

// golden is 2^64 divided by the golden ratio. Its multiples fill the word so evenly that
// shares come out exact over a few hundred requests, not only on average.
const golden = 0x9E3779B97F4A7C15

// deal maps x, evenly spread over the word, to a version by weight. The share of a version
// that cannot serve goes to the others in proportion.
func (r *Route) deal(x uint64) *Version {
	at, part := bits.Mul64(x, r.total)

	for i := range r.versions {
		v := &r.versions[i]
		if at >= uint64(v.Weight) {
			at -= uint64(v.Weight)

			continue
		}

		if v.Pool.Ready() { // the others are not even looked at
			return v
		}
		// Where x lies in the share of v is as evenly spread as x was.
		within, _ := bits.Div64(at, part, uint64(v.Weight))

		return r.dealAble(within)
	}

	return nil
}

// dealAble is deal among the versions that can serve.
func (r *Route) dealAble(x uint64) *Version {
	var able uint64

	for i := range r.versions {
		if v := &r.versions[i]; v.Weight > 0 && v.Pool.Ready() {
			able += uint64(v.Weight)
		}
	}

	at, _ := bits.Mul64(x, able)

	for i := range r.versions {
		v := &r.versions[i]
		if v.Weight == 0 || !v.Pool.Ready() {
			continue
		}

		if at < uint64(v.Weight) {
			return v
		}

		at -= uint64(v.Weight)
	}

	return nil
}

// rendezvous ranks the versions for a key by -weight/ln(hash): each gets its share of the
// keys, and changing a weight moves keys only from the versions that lose to those that win.
func (r *Route) rendezvous(key uint64) *Version {
	var (
		best *Version
		top  float64
	)

	for i := range r.versions {
		v := &r.versions[i]
		if v.Weight == 0 || !v.Pool.Ready() {
			continue
		}

		u := (float64(pool.Mix(key^v.seed)>>11) + 0.5) / (1 << 53)
		if score := -float64(v.Weight) / math.Log(u); best == nil || score > top {
			best, top = v, score
		}
	}

	return best
}

// PoolKeys fills in what hashing pickers need.
func (r *Route) PoolKeys(q *Request, p *pool.Request) {
	if !r.keyed {
		return
	}

	addr := q.Remote.Unmap().As16()
	p.SourceKey = pool.Hash(addr[:])

	if r.sticky != nil {
		p.Key = r.sticky.key(q)
	}

	if p.Key == 0 && q.Principal != nil && q.Principal.Key != "" {
		p.Key = pool.HashString(q.Principal.Key)
	}

	if p.Key == 0 {
		p.Key = p.SourceKey
	}
}

func (r *rule) matches(q *Request) bool {
	if r.header != nil && !r.header.matches(q) || r.cookie != nil && !r.cookie.matches(q) ||
		r.query != nil && !r.query.matches(q) {
		return false
	}

	if r.from.IsValid() && !r.from.Contains(q.Remote.Unmap()) {
		return false
	}

	p := q.Principal
	if r.who != "" && (p == nil || p.UserID != r.who && p.UserName != r.who) {
		return false
	}

	return r.app == "" || p != nil && p.AppID == r.app
}

func (s *source) matches(q *Request) bool {
	value, found := s.value(q)

	return found && (s.want == "" || string(value) == s.want)
}

// key hashes the value; 0 if the request has none.
func (s *source) key(q *Request) uint64 {
	switch s.kind {
	case byPrincipal:
		if q.Principal != nil && q.Principal.Key != "" {
			return pool.HashString(q.Principal.Key)
		}
	case byApp:
		if q.Principal != nil && q.Principal.AppID != "" {
			return pool.HashString(q.Principal.AppID)
		}
	case byHeader, byCookie, byQuery:
		if value, found := s.value(q); found && len(value) > 0 {
			return pool.Hash(value)
		}
	}

	return 0
}

// value is valid until the next call with the same request.
func (s *source) value(q *Request) ([]byte, bool) {
	switch s.kind {
	case byHeader:
		v := q.Header.Get(s.name)

		return v, v != nil
	case byCookie:
		return cookieValue(q.Header.Get("cookie"), s.name)
	case byQuery:
		return queryValue(q, s.name)
	case byPrincipal, byApp:
	}

	return nil, false
}

// cookieValue finds a cookie in a Cookie header.
func cookieValue(header []byte, name string) ([]byte, bool) {
	for len(header) > 0 {
		var pair []byte

		pair, header, _ = bytes.Cut(header, []byte{';'})
		k, v, found := bytes.Cut(bytes.TrimSpace(pair), []byte{'='})

		if found && string(k) == name {
			if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}

			return v, true
		}
	}

	return nil, false
}

// queryValue finds a parameter in a raw query; name and value are compared decoded.
func queryValue(q *Request, name string) ([]byte, bool) {
	for rest := q.Query; len(rest) > 0; {
		var pair []byte

		pair, rest, _ = bytes.Cut(rest, []byte{'&'})
		k, v, _ := bytes.Cut(pair, []byte{'='})

		q.Scratch = appendDecoded(q.Scratch[:0], k)
		if string(q.Scratch) != name {
			continue
		}

		q.Scratch = appendDecoded(q.Scratch[:0], v)

		return q.Scratch, true
	}

	return nil, false
}

// appendDecoded undoes query escaping; a broken escape stands for itself.
func appendDecoded(dst, s []byte) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]

		switch c {
		case '+':
			c = ' '
		case '%':
			if hi, lo := unhex(s, i+1), unhex(s, i+2); hi >= 0 && lo >= 0 {
				c = byte(hi<<4 | lo)
				i += 2
			}
		}

		dst = append(dst, c)
	}

	return dst
}
