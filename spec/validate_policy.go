package spec

import (
	"net/netip"
	"slices"
)

// Bounds of policies.
const (
	MaxRules         = 256
	MaxRetryAttempts = 10
	maxPolicySeconds = 7200
	maxRate          = 1e9
)

// validate checks a policy against the entries of its service.
func (p *Policy) validate(m *mistakes, entries []Entry) {
	for i, a := range p.AuthTypes {
		switch a {
		case AuthToken, AuthAKSK, AuthApp, AuthNone:
		default:
			m.addf(element("auth_types", i), "must be TOKEN, AKSK, APP or NONE, got %q", shorten(string(a)))
		}

		if slices.Contains(p.AuthTypes[:i], a) {
			m.addf(element("auth_types", i), "is given twice")
		}
	}

	p.Traffic.validate(m, entries)

	if r := p.Retry; r.Attempts < 0 || r.Attempts > MaxRetryAttempts {
		m.addf("retry_policy.attempts", "must be 0 to %d, got %d", MaxRetryAttempts, r.Attempts)
	}

	within(m, "retry_policy.per_try_timeout_seconds", p.Retry.PerTryTimeoutSeconds, maxPolicySeconds)
	within(m, "limits.requests_per_second", p.Limits.RequestsPerSecond, maxRate)
	within(m, "limits.burst", float64(p.Limits.Burst), maxRate)
	within(m, "limits.concurrency", float64(p.Limits.Concurrency), maxRate)
	within(m, "limits.body_bytes", float64(p.Limits.BodyBytes), maxBytes)
	within(m, "limits.timeout_seconds", p.Limits.TimeoutSeconds, maxPolicySeconds)
	within(m, "limits.stream_idle_seconds", p.Limits.StreamIdleSeconds, maxPolicySeconds)
}

// within wants 0 <= v <= most; it refuses NaN too.
func within(m *mistakes, path string, v, most float64) {
	if !(v >= 0 && v <= most) {
		m.addf(path, "must be 0 to %g, got %g", most, v)
	}
}

func (t *TrafficPolicy) validate(m *mistakes, entries []Entry) {
	if s := t.Sticky; s != nil {
		switch s.By {
		case "header", "cookie", "query":
			if s.Name == "" || len(s.Name) > 256 {
				m.addf("traffic_policy.sticky.name", "is required for by %s, with at most 256 bytes", s.By)
			} else if s.By == "header" && headerName(s.Name) != "" {
				m.addf("traffic_policy.sticky.name", "%s", headerName(s.Name))
			}
		case "principal", "app":
		default:
			m.addf("traffic_policy.sticky.by", "must be header, cookie, query, principal or app, got %q", shorten(s.By))
		}
	}

	if len(t.Rules) > MaxRules {
		m.addf("traffic_policy.rules", "must have at most %d elements, has %d", MaxRules, len(t.Rules))

		return
	}

	for i := range t.Rules {
		r := &t.Rules[i]
		path := element("traffic_policy.rules", i)
		r.Match.validate(m, path+".match")

		if !slices.ContainsFunc(entries, func(e Entry) bool { return e.ModelID == r.ModelID }) {
			m.addf(path+".model_id", "names no model of this service, got %q", shorten(r.ModelID))
		}

		if len(r.Name) > 64 {
			m.addf(path+".name", "must have at most 64 bytes, has %d", len(r.Name))
		}

		if bad := headerValue(r.Name); bad != "" { // answers tell it in a header
			m.addf(path+".name", "%s", bad)
		}
	}
}

func (c *Match) validate(m *mistakes, path string) {
	if *c == (Match{}) {
		m.addf(path, "must have at least one condition")
	}

	for _, nv := range []struct {
		name string
		at   *NameValue
	}{{"header", c.Header}, {"cookie", c.Cookie}, {"query", c.Query}} {
		if nv.at == nil {
			continue
		}

		if nv.at.Name == "" || len(nv.at.Name) > 256 {
			m.addf(path+"."+nv.name+".name", "is required, with at most 256 bytes")
		}

		if len(nv.at.Value) > maxText {
			m.addf(path+"."+nv.name+".value", "must have at most %d bytes, has %d", maxText, len(nv.at.Value))
		}
	}

	if c.Header != nil && headerValue(c.Header.Value) != "" {
		m.addf(path+".header.value", "%s", headerValue(c.Header.Value))
	}

	if c.Header != nil && c.Header.Name != "" && headerName(c.Header.Name) != "" {
		m.addf(path+".header.name", "%s", headerName(c.Header.Name))
	}

	if c.CIDR != "" {
		_, prefix := netip.ParsePrefix(c.CIDR)
		_, addr := netip.ParseAddr(c.CIDR)

		if prefix != nil && addr != nil {
			m.addf(path+".cidr", "must be an address or a prefix such as 10.0.0.0/8, got %q", shorten(c.CIDR))
		}
	}
}
