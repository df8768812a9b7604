package publish

import (
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/spec"
)

// built is the snapshot in the making: routes by service and what they depend on.
type built struct {
	stale  map[string]struct{} // services whose route must be made again
	routes []spec.Route        // in the order of ids; never changed once published
	usedBy map[string]map[string]struct{}
	models map[string][]string // service -> models that it is listed under in usedBy
	once   bool
}

func newBuilt() built {
	return built{
		stale: map[string]struct{}{}, usedBy: map[string]map[string]struct{}{}, models: map[string][]string{},
	}
}

// snapshot returns the next snapshot, or nil when it would say the same as the last.
func (b *built) snapshot(src *source, revision int64) *spec.Snapshot {
	now := time.Now()
	for id, since := range src.gone {
		if now.Sub(since) > goneKept {
			delete(src.gone, id)
		}
	}

	changed := b.rebuild(src, revision) || !b.once
	snap := &spec.Snapshot{Schema: spec.SnapshotSchema, Revision: revision, Services: b.routes}

	snap.Projects = take(&src.projects, &changed)
	snap.Users = take(&src.users, &changed)
	snap.AccessKeys = take(&src.accessKeys, &changed)
	snap.Apps = take(&src.apps, &changed)
	snap.TokenKeys = take(&src.tokenKeys, &changed)
	snap.Revocations = slices.DeleteFunc(slices.Clone(take(&src.revocations, &changed)), func(r spec.Revocation) bool {
		return r.ExpiresAt > 0 && r.ExpiresAt <= now.UnixMilli()
	})

	if !changed {
		return nil
	}

	b.once = true

	return snap
}

func take[T any](s *section[T], changed *bool) []T {
	list, different := s.all()
	*changed = *changed || different

	return list
}

// rebuild makes the stale routes again and reports whether any is different.
func (b *built) rebuild(src *source, revision int64) bool {
	if len(b.stale) == 0 {
		return false
	}

	edits := make([]edit, 0, len(b.stale))

	for _, id := range slices.Sorted(maps.Keys(b.stale)) {
		at, there := b.find(id)

		svc, ok := src.services[id]
		if !ok {
			b.uses(id, nil)

			if there {
				edits = append(edits, edit{at: at, remove: true})
			}

			continue
		}

		route := b.route(src, &svc)

		if there {
			route.Revision = b.routes[at].Revision
			if reflect.DeepEqual(route, b.routes[at]) {
				continue
			}
		}

		route.Revision = revision
		edits = append(edits, edit{at: at, insert: !there, route: route})
	}

	clear(b.stale)

	if len(edits) > 0 {
		b.routes = applied(b.routes, edits)
	}

	return len(edits) > 0
}

// edit is one change of the list of routes. Edits are in the order of ids.
type edit struct {
	at             int
	insert, remove bool
	route          spec.Route
}

// applied returns a new list; the old one may be in use by gateways.
func applied(routes []spec.Route, edits []edit) []spec.Route {
	out := make([]spec.Route, 0, len(routes)+len(edits))
	from := 0

	for i := range edits {
		e := &edits[i]
		out = append(out, routes[from:e.at]...)
		from = e.at

		if !e.insert {
			from++
		}

		if !e.remove {
			out = append(out, e.route)
		}
	}

	return append(out, routes[from:]...)
}

func (b *built) find(id string) (int, bool) {
	return slices.BinarySearchFunc(b.routes, id, func(r spec.Route, id string) int {
		switch {
		case r.ServiceID < id:
			return -1
		case r.ServiceID > id:
			return 1
		}

		return 0
	})
}

// route builds what gateways know of a service.
func (b *built) route(src *source, svc *spec.Service) spec.Route {
	r := spec.Route{
		ServiceID: svc.ID, ServiceName: svc.Name, ProjectID: svc.ProjectID, DomainID: svc.DomainID,
		Running: !svc.Stopped && !svc.Deleting, WebSocket: svc.WebSocket,
		Balancer: svc.LoadBalancerPolicy, Policy: svc.Policy,
	}

	apis := src.appAPIs[svc.ID]
	for _, id := range slices.Sorted(maps.Keys(apis)) {
		api := apis[id]
		r.AppIDs = append(r.AppIDs, api.AppIDs...)
		r.AppCodes = r.AppCodes || api.SupportAppCode
	}

	instances := b.instances(src, svc.ID)
	state := src.states[svc.ID]

	used := make([]string, 0, len(svc.Entries))

	for _, share := range rollout.Split(svc, &state, instances) {
		e := &share.Entry
		v := spec.Version{
			ModelID: e.ModelID, ModelName: e.ModelName, ModelVersion: e.ModelVersion, Weight: share.Weight,
		}
		used = append(used, e.ModelID)

		if m, ok := src.models[e.ModelID]; ok {
			v.Engine, v.Protocol, v.APIs = m.Engine(), m.Config.Protocol, m.Config.APIs
			v.SchemaCheck = m.Config.SchemaCheck
			v.TLSVerify, v.CAPEM = m.Config.TLSVerify, m.Config.CAPEM
		}

		for i := range instances {
			if instances[i].ModelID == e.ModelID {
				v.Instances = append(v.Instances, instances[i])
			}
		}

		r.Versions = append(r.Versions, v)
	}

	b.uses(svc.ID, used)

	return r
}

// instances are those that gateways may have to do with: able to serve, or finishing.
func (b *built) instances(src *source, serviceID string) []spec.Instance {
	var out []spec.Instance

	for id, inst := range src.instances[serviceID] {
		_, gone := src.gone[id]
		_, former := src.former[id]

		if !gone && !former && inst.Address != "" && (inst.State == spec.InstanceReady || inst.State == spec.InstanceDraining) {
			out = append(out, inst)
		}
	}

	slices.SortFunc(out, func(a, b spec.Instance) int {
		if len(a.ID) != len(b.ID) {
			return len(a.ID) - len(b.ID)
		}

		if a.ID < b.ID {
			return -1
		}

		return 1
	})

	return out
}

// uses notes the models that the route of a service was made from.
func (b *built) uses(serviceID string, models []string) {
	for _, m := range b.models[serviceID] {
		delete(b.usedBy[m], serviceID)

		if len(b.usedBy[m]) == 0 {
			delete(b.usedBy, m)
		}
	}

	if models == nil {
		delete(b.models, serviceID)

		return
	}

	b.models[serviceID] = models
	for _, m := range models {
		if b.usedBy[m] == nil {
			b.usedBy[m] = map[string]struct{}{}
		}

		b.usedBy[m][serviceID] = struct{}{}
	}
}
