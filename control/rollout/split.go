package rollout

import (
	"slices"

	"github.com/sluice-gateway/sluice/spec"
)

// Share is the part of the traffic that a version gets right now.
type Share struct {
	Entry  spec.Entry
	Weight int
}

// Split divides the traffic of a service between its versions, the ones that are being
// replaced included. Weights come from the service as it is declared now, so that a
// change of weights needs no step. Within a lane, traffic moves to the new version as its
// instances get ready; a version without a ready instance, or in quarantine, passes its part on to the
// others as long as one of them serves. The weights sum to 100.
func Split(svc *spec.Service, st *spec.ServiceState, instances []spec.Instance) []Share {
	entries := svc.Entries
	if len(st.Target) > 0 {
		entries = declared(st.Target, svc.Entries)
	}

	readyOf := map[string]int{}

	for i := range instances {
		if ready(&instances[i]) {
			readyOf[instances[i].Template]++
		}
	}

	b := splitter{serving: map[string]bool{}}
	olds := oldEntries(st, len(entries))

	for i := range entries {
		b.lane(&entries[i], olds[i], readyOf)
	}

	for _, e := range olds[len(entries)] {
		b.add(e, 0, readyOf[Template(&e)] > 0)
	}

	b.passOn(st.Quarantined)

	return b.shares
}

// declared gives the target's entries the weights that the service declares now.
func declared(target, want []spec.Entry) []spec.Entry {
	out := slices.Clone(target)
	if !sameTemplates(target, want) {
		return out // a new target, which the next step takes over
	}

	for i := range out {
		t := Template(&out[i])
		for j := range want {
			if Template(&want[j]) == t {
				out[i] = want[j]
			}
		}
	}

	return out
}

// oldEntries lists, for each lane, the entries that it replaces, as long as instances of
// them are there; the last list holds those without a lane.
func oldEntries(st *spec.ServiceState, lanes int) [][]spec.Entry {
	out := make([][]spec.Entry, lanes+1)
	p := place(st)
	seen := map[string]bool{}

	for _, source := range append([][]spec.Entry{st.Active}, st.Superseded...) {
		for _, e := range source {
			t := Template(&e)
			at, fresh := p.find(t)

			if fresh || seen[t] {
				continue
			}

			seen[t] = true

			if at < 0 || at >= lanes {
				at = lanes
			}

			out[at] = append(out[at], e)
		}
	}

	return out
}

type splitter struct {
	shares  []Share
	serving map[string]bool // model ids with a ready instance
}

// lane divides the weight of e between it and what it replaces.
func (b *splitter) lane(e *spec.Entry, olds []spec.Entry, readyOf map[string]int) {
	fresh := readyOf[Template(e)]
	oldReady := 0

	for i := range olds {
		if olds[i].ModelID == e.ModelID {
			fresh += readyOf[Template(&olds[i])] // the same version, made differently
		} else {
			oldReady += readyOf[Template(&olds[i])]
		}
	}

	surge, unavailable := budget(e, e.InstanceCount)
	mine := e.Weight

	switch {
	case oldReady == 0:
	case full(surge, unavailable, e.InstanceCount) && fresh < e.InstanceCount:
		mine = 0
	default:
		mine = e.Weight * fresh / (fresh + oldReady)
	}

	b.add(*e, mine, fresh > 0)

	rest, left := e.Weight-mine, oldReady

	for i := range olds {
		n := readyOf[Template(&olds[i])]
		if olds[i].ModelID == e.ModelID {
			continue
		}

		part := 0
		if left > 0 {
			part = rest * n / left
		}

		b.add(olds[i], part, n > 0)

		rest, left = rest-part, left-n
	}
}

// add counts a share; entries of one model are one version.
func (b *splitter) add(e spec.Entry, weight int, serves bool) {
	b.serving[e.ModelID] = b.serving[e.ModelID] || serves

	for i := range b.shares {
		if b.shares[i].Entry.ModelID == e.ModelID {
			b.shares[i].Weight += weight

			return
		}
	}

	b.shares = append(b.shares, Share{Entry: e, Weight: weight})
}

// passOn moves the weight of versions that cannot serve to those that can.
func (b *splitter) passOn(quarantined []string) {
	able := func(sh *Share) bool { return b.serving[sh.Entry.ModelID] }
	sound := func(sh *Share) bool { return able(sh) && !slices.Contains(quarantined, sh.Entry.ModelID) }

	total, kept := b.sum(nil), b.sum(sound)
	if kept == 0 {
		sound = able
		kept = b.sum(able)
	}

	if kept == 0 || kept == total {
		return
	}

	for i := range b.shares {
		sh := &b.shares[i]
		if sh.Weight == 0 {
			continue
		}

		if !sound(sh) {
			sh.Weight = 0

			continue
		}

		// The remainder goes along, so that the sum stays what it was.
		part := sh.Weight * total / kept
		total, kept = total-part, kept-sh.Weight
		sh.Weight = part
	}
}

func (b *splitter) sum(pred func(*Share) bool) int {
	n := 0

	for i := range b.shares {
		if pred == nil || pred(&b.shares[i]) {
			n += b.shares[i].Weight
		}
	}

	return n
}
