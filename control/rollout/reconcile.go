package rollout

import (
	"slices"

	"github.com/sluice-gateway/sluice/spec"
)

// lane is one entry of the target with its instances.
type lane struct {
	entry    *spec.Entry
	template string
	want     int
	fresh    []*spec.Instance
	old      []*spec.Instance
	draining int
}

func (l *lane) freshReady() int { return count(l.fresh, ready) }

// done reports whether the lane is as wanted.
func (l *lane) done() bool {
	return len(l.old) == 0 && len(l.fresh) == l.want && l.freshReady() == l.want
}

// lanes sorts the live instances. orphans belong to no lane: their entry was removed.
// The pointers are valid until s.Instances changes its length.
func (s *step) lanes() (all []lane, orphans []*spec.Instance) {
	all = make([]lane, len(s.state.Target))
	for i := range all {
		e := &s.state.Target[i]
		all[i] = lane{entry: e, template: Template(e), want: s.wanted(e)}
	}

	p := place(s.state)

	for i := range s.Instances {
		inst := &s.Instances[i]
		at, fresh := p.find(inst.Template)

		switch {
		case at >= 0 && !live(inst):
			all[at].draining++
		case !live(inst):
		case at < 0:
			orphans = append(orphans, inst)
		case fresh:
			all[at].fresh = append(all[at].fresh, inst)
		default:
			all[at].old = append(all[at].old, inst)
		}
	}

	return all, orphans
}

// reconcile moves every lane one step towards its target. Removing records moves the
// others, so decisions are collected by id and applied at the end.
func (s *step) reconcile() {
	all, orphans := s.lanes()
	settled := true

	for i := range all {
		l := &all[i]
		s.replaceFailed(l)

		settled = settled && l.done()
	}

	var leaving []string

	starts := make([]int, len(all))

	for i := range all {
		l := &all[i]
		starts[i] = s.startable(l)
		leaving = append(leaving, s.surplus(l)...)
		leaving = append(leaving, s.removable(l)...)
	}

	for _, inst := range orphans {
		if settled && !s.paused() || broken(inst) {
			leaving = append(leaving, inst.ID)
		}
	}

	for i := range all {
		if starts[i] > 0 {
			s.startFresh(all[i].entry, all[i].template, starts[i])
		}
	}

	for _, id := range leaving {
		s.leave(id)
	}
}

// paused reports whether the user holds the upgrade. A rollback and a first deployment go on.
func (s *step) paused() bool {
	u := s.state.Upgrade

	return u != nil && s.Service.UpgradePaused && !u.Rollback && !u.First
}

// replaceFailed restarts the failed instances of a lane whose wait is over. In quarantine
// one is tried at a time, once all have waited.
func (s *step) replaceFailed(l *lane) {
	all := slices.Concat(l.fresh, l.old)
	failed := func(i *spec.Instance) bool { return i.State == spec.InstanceFailed }

	if slices.Contains(s.state.Quarantined, l.entry.ModelID) {
		if count(l.fresh, failed) < len(l.fresh) {
			return
		}

		last := slices.MaxFunc(all, func(a, b *spec.Instance) int { return int(a.RetryAt - b.RetryAt) })
		all = []*spec.Instance{last}

		if s.now < last.RetryAt {
			s.wake(last.RetryAt)

			return
		}
	}

	for _, inst := range all {
		switch {
		case !failed(inst), s.running(inst.ID):
		case s.now < inst.RetryAt:
			s.wake(inst.RetryAt)
		default:
			s.restart(inst)
		}
	}
}

// startable is how many fresh instances the lane may start now.
func (s *step) startable(l *lane) int {
	missing := l.want - len(l.fresh)
	if missing <= 0 {
		return 0
	}

	if u := s.state.Upgrade; u == nil || u.First {
		return missing
	}

	if s.paused() {
		return 0
	}

	surge, unavailable := budget(l.entry, l.want)
	if full(surge, unavailable, l.want) {
		return missing // however many old ones there are: they stay until all of these are ready
	}

	return max(0, min(missing, l.want+surge-len(l.fresh)-len(l.old)-l.draining))
}

// surplus picks fresh instances beyond the wanted number: useless ones first, then the youngest.
func (s *step) surplus(l *lane) []string {
	n := len(l.fresh) - l.want
	if n <= 0 {
		return nil
	}

	order := slices.Clone(l.fresh)
	slices.SortStableFunc(order, func(a, b *spec.Instance) int {
		if ra, rb := usefulness(a), usefulness(b); ra != rb {
			return ra - rb
		}

		return compareIDs(b.ID, a.ID)
	})

	return ids(order[:n])
}

func usefulness(inst *spec.Instance) int {
	switch {
	case ready(inst):
		return 2
	case inst.State == spec.InstanceFailed:
		return 0
	default:
		return 1
	}
}

// removable picks the old instances that the lane can do without now.
func (s *step) removable(l *lane) []string {
	if len(l.old) == 0 || s.paused() {
		return nil
	}

	surge, unavailable := budget(l.entry, l.want)
	freshReady := l.freshReady()

	if full(surge, unavailable, l.want) {
		if freshReady >= l.want {
			return ids(l.old)
		}

		return nil
	}

	spare := freshReady + count(l.old, ready) - (l.want - unavailable)

	var out []string

	for _, inst := range l.old {
		switch {
		case broken(inst), freshReady >= l.want:
			out = append(out, inst.ID)
		case ready(inst) && spare > 0:
			out = append(out, inst.ID)
			spare--
		}
	}

	return out
}

func ids(list []*spec.Instance) []string {
	out := make([]string, len(list))
	for i, inst := range list {
		out[i] = inst.ID
	}

	return out
}

// startFresh adds records of new instances.
func (s *step) startFresh(e *spec.Entry, template string, n int) {
	if u := s.state.Upgrade; u != nil && !s.starting() {
		// The deployment timeout counts while somebody is getting ready, not while old ones drain.
		u.ProgressAt = s.now
	}

	var endpoints []spec.Endpoint
	if m := s.Models[e.ModelID]; m != nil && m.Engine() == spec.EngineExternal {
		endpoints = s.freeEndpoints(m, template)
	}

	for i := range n {
		inst := s.create(e, template)

		if i < len(endpoints) {
			inst.Endpoint = &endpoints[i]
		}
	}

	noun := "instances"
	if n == 1 {
		noun = "instance"
	}

	s.event(normal, "%s starting model (%d %s)", entryTitle(e), n, noun)
}

// starting reports whether a fresh instance is on its way.
func (s *step) starting() bool {
	p := place(s.state)

	return slices.ContainsFunc(s.Instances, func(inst spec.Instance) bool {
		_, fresh := p.find(inst.Template)

		return fresh && live(&inst) && !ready(&inst)
	})
}

// freeEndpoints are the addresses of an external engine that no live instance stands for.
func (s *step) freeEndpoints(m *spec.Model, template string) []spec.Endpoint {
	var free []spec.Endpoint

	for _, ep := range m.Config.Endpoints {
		taken := slices.ContainsFunc(s.Instances, func(inst spec.Instance) bool {
			return inst.Template == template && live(&inst) && inst.Endpoint != nil && inst.Endpoint.URL == ep.URL
		})
		if !taken {
			free = append(free, ep)
		}
	}

	return free
}

// leave drains an instance, or forgets it when it has no process.
func (s *step) leave(id string) {
	i := slices.IndexFunc(s.Instances, func(inst spec.Instance) bool { return inst.ID == id })
	if i < 0 {
		return
	}

	inst := &s.Instances[i]
	if inst.State == spec.InstanceDraining {
		return
	}

	if !s.running(id) {
		s.remove(i)

		return
	}

	if inst.State != spec.InstanceFailed {
		s.event(normal, "%s instance %s is being stopped", title(inst), inst.ID)
	}

	inst.State, inst.Reason = spec.InstanceDraining, ""
}

// stopAll drains everything, for a stopped or deleted service.
func (s *step) stopAll() {
	for _, inst := range slices.Clone(s.Instances) {
		s.leave(inst.ID)
	}

	s.state.Superseded = append(s.state.Superseded, s.state.Active)
	s.state.Upgrade, s.state.Active, s.state.Quarantined = nil, nil, nil
	s.state.ErrorMsg, s.state.Ready, s.state.Total, s.state.Progress = "", 0, len(s.Instances), 0

	switch {
	case s.Service.Deleting:
		s.setStatus(spec.ServiceDeleting)
		s.result.Forget = len(s.Instances) == 0
	case len(s.Instances) > 0:
		if s.setStatus(spec.ServiceStopping) {
			s.event(normal, "service is being stopped")
		}
	default:
		s.state.Target = nil

		if s.setStatus(spec.ServiceStopped) {
			s.event(normal, "service has been stopped")
		}
	}
}
