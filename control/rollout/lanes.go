package rollout

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// Template identifies what an entry's instances are made from. Entries that differ in
// weight, count or upgrade settings only share their instances.
func Template(e *spec.Entry) string {
	const hexDigits = 12

	buf := make([]byte, 0, 256)
	text := func(v string) {
		buf = strconv.AppendInt(buf, int64(len(v)), 10)
		buf = append(append(buf, ':'), v...)
	}

	text(e.ModelID)
	text(e.Specification)

	if c := e.CustomSpec; c != nil {
		text(fmt.Sprintf("%v %v %v", c.CPU, c.Memory, c.GPU))
	}

	if d := e.Direct; d != nil {
		text(fmt.Sprintf("direct %q %s", d.Allow, d.KeyHash))
	}

	for _, key := range slices.Sorted(maps.Keys(e.Envs)) {
		text(key)
		text(e.Envs[key])
	}

	sum := sha256.Sum256(buf)

	return hex.EncodeToString(sum[:])[:hexDigits]
}

func templates(entries []spec.Entry) []string {
	out := make([]string, len(entries))
	for i := range entries {
		out[i] = Template(&entries[i])
	}

	return out
}

// sameTemplates reports whether two targets need the same instances, in any order.
func sameTemplates(a, b []spec.Entry) bool {
	x, y := templates(a), templates(b)
	slices.Sort(x)
	slices.Sort(y)

	return slices.Equal(x, y)
}

// pair says for each entry of from which entry of to takes its place: the one with the
// same template, else the one of the same model, else the next one that is still free; -1
// when there is none.
func pair(from, to []spec.Entry) []int {
	out := make([]int, len(from))
	taken := make([]bool, len(to))

	for i := range out {
		out[i] = -1
	}

	match := func(same func(a, b *spec.Entry) bool) {
		for i := range from {
			for j := range to {
				if out[i] < 0 && !taken[j] && same(&from[i], &to[j]) {
					out[i], taken[j] = j, true
				}
			}
		}
	}

	match(func(a, b *spec.Entry) bool { return Template(a) == Template(b) })
	match(func(a, b *spec.Entry) bool { return a.ModelID == b.ModelID })
	match(func(_, _ *spec.Entry) bool { return true })

	return out
}

// placement finds the lane of a template.
type placement struct {
	fresh map[string]int // template -> lane that makes it
	old   map[string]int // template -> lane that replaces it; -1: nothing does
}

func place(state *spec.ServiceState) placement {
	p := placement{fresh: map[string]int{}, old: map[string]int{}}
	for i, t := range templates(state.Target) {
		p.fresh[t] = i
	}

	for _, source := range append([][]spec.Entry{state.Active}, state.Superseded...) {
		lanes := pair(source, state.Target)
		for i, t := range templates(source) {
			if _, known := p.old[t]; !known {
				p.old[t] = lanes[i]
			}
		}
	}

	return p
}

// find returns the lane of an instance (-1: it belongs to no lane) and whether it is fresh.
func (p placement) find(template string) (lane int, fresh bool) {
	if l, ok := p.fresh[template]; ok {
		return l, true
	}

	if l, ok := p.old[template]; ok {
		return l, false
	}

	return -1, false
}

// EntryOf finds the entry that a template was taken from.
func EntryOf(state *spec.ServiceState, template string) *spec.Entry {
	for _, list := range append([][]spec.Entry{state.Target, state.Active}, state.Superseded...) {
		for i := range list {
			if Template(&list[i]) == template {
				return &list[i]
			}
		}
	}

	return nil
}

func (s *step) deployTimeout(template string) time.Duration {
	if e := EntryOf(s.state, template); e != nil && e.DeployTimeoutSeconds > 0 {
		return time.Duration(e.DeployTimeoutSeconds) * time.Second
	}

	return s.policy.DeployTimeout
}

func (s *step) grace(template string) time.Duration {
	if e := EntryOf(s.state, template); e != nil && e.TerminationGraceSeconds > 0 {
		return time.Duration(e.TerminationGraceSeconds) * time.Second
	}

	return s.policy.Grace
}

// budget bounds an upgrade of n instances: how many more than n may exist, and how many
// of n may be missing. Fractions are rounded so that the result is safe.
func budget(e *spec.Entry, n int) (surge, unavailable int) {
	surge = amount(e.MaxSurge, n, math.Ceil)
	unavailable = min(amount(e.MaxUnavailable, n, math.Floor), n)

	if surge == 0 && unavailable == 0 {
		surge = 1 // else nothing could ever move
	}

	return surge, unavailable
}

func amount(v float64, n int, round func(float64) float64) int {
	switch {
	case v <= 0 || math.IsNaN(v):
		return 0
	case v < 1:
		// A product such as 0.07*100 may be a little off its true value.
		const slack = 1e-9

		x := v * float64(n)
		if r := math.Round(x); math.Abs(x-r) < slack {
			x = r
		}

		return int(round(x))
	default:
		return int(min(v, math.MaxInt32))
	}
}

// wanted is the number of instances of entry e.
func (s *step) wanted(e *spec.Entry) int {
	if m := s.Models[e.ModelID]; m != nil && m.Engine() == spec.EngineExternal {
		return len(m.Config.Endpoints)
	}

	return e.InstanceCount
}

// full reports whether an upgrade builds everything new before it touches anything old.
func full(surge, unavailable, n int) bool { return unavailable == 0 && surge >= n }

// live instances hold a place of their lane; draining ones only hold resources.
func live(inst *spec.Instance) bool {
	return inst.State != spec.InstanceDraining && inst.State != spec.InstanceStopped
}

func ready(inst *spec.Instance) bool { return inst.State == spec.InstanceReady }

// broken instances failed at least once since they were last stable, and do not serve.
func broken(inst *spec.Instance) bool { return !ready(inst) && inst.Failures > 0 }

func count(all []*spec.Instance, pred func(*spec.Instance) bool) int {
	n := 0

	for _, inst := range all {
		if pred(inst) {
			n++
		}
	}

	return n
}
