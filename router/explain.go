package router

import (
	"fmt"

	"github.com/sluice-gateway/sluice/router/pool"
)

// Explanation tells where a request would go, and why, without sending it.
type Explanation struct {
	Reason   string         `json:"reason"`         // rule, sticky, weight, none
	Rule     string         `json:"rule,omitempty"` // name of the matching rule
	Version  string         `json:"version,omitempty"`
	ModelID  string         `json:"model_id,omitempty"`
	Steps    []string       `json:"steps"`
	Versions []VersionState `json:"versions"`
}

// VersionState is a version as the decision sees it.
type VersionState struct {
	Version   string       `json:"version"`
	ModelID   string       `json:"model_id"`
	Weight    int          `json:"weight"`
	Share     float64      `json:"share"` // percent of requests that weights send here now
	Able      bool         `json:"able"`
	Balancer  string       `json:"balancer"`
	Instances []pool.State `json:"instances"`
}

// Explain answers "why would this request go there?". It does not use up a turn of the
// weights; by weight it tells the shares instead of one version.
func (r *Route) Explain(q *Request) Explanation {
	x := Explanation{Reason: NoVersion.String()}
	able := 0

	for i := range r.versions {
		v := &r.versions[i]
		s := VersionState{Version: v.Label, ModelID: v.ModelID, Weight: v.Weight, Able: v.Pool.Ready(), Balancer: v.Pool.Picker().String(), Instances: v.Pool.States()}

		if s.Able {
			able += v.Weight
		}

		x.Versions = append(x.Versions, s)
	}

	for i := range x.Versions {
		if s := &x.Versions[i]; s.Able && able > 0 {
			s.Share = 100 * float64(s.Weight) / float64(able)
		}
	}

	for i := range r.rules {
		rule := &r.rules[i]
		if !rule.matches(q) {
			x.Steps = append(x.Steps, fmt.Sprintf("rule %q does not match", rule.name))

			continue
		}

		v := &r.versions[rule.version]
		x.Steps = append(x.Steps, fmt.Sprintf("rule %q matches: version %s", rule.name, v.Label))
		x.Reason, x.Rule, x.Version, x.ModelID = ByRule.String(), rule.name, v.Label, v.ModelID

		return x
	}

	if r.sticky != nil && len(r.versions) > 1 {
		if key := r.sticky.key(q); key != 0 {
			if v := r.rendezvous(key); v != nil {
				x.Steps = append(x.Steps, "the sticky value is bound to version "+v.Label)
				x.Reason, x.Version, x.ModelID = BySticky.String(), v.Label, v.ModelID

				return x
			}
		}

		x.Steps = append(x.Steps, "the request has no sticky value")
	}

	if able == 0 {
		x.Steps = append(x.Steps, "no version with a weight has an instance that is ready")

		return x
	}

	x.Reason = ByWeight.String()
	x.Steps = append(x.Steps, "versions share the requests by weight")

	return x
}
