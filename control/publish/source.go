package publish

import (
	"context"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/spec"
)

// source is the state as far as gateways need it.
type source struct {
	revision int64 // of etcd, of the newest change
	missing  int   // collections that were not read yet

	// Documents that make routes.
	services  map[string]spec.Service
	states    map[string]spec.ServiceState
	instances map[string]map[string]spec.Instance // by service, by instance
	models    map[string]spec.Model
	appAPIs   map[string]map[string]spec.AppAPI // by service, by id
	apiOwner  map[string]string                 // app API id -> service
	gone      map[string]time.Time              // instance id -> since when
	former    map[string]struct{}               // ids of instances that ended with an earlier process
	loaded    map[string]bool                   // kinds that were read once

	// Documents that are passed on.
	projects    section[spec.Project]
	users       section[spec.User]
	accessKeys  section[spec.AccessKey]
	apps        section[spec.App]
	tokenKeys   section[spec.TokenKey]
	revocations section[spec.Revocation]
}

func newSource() source {
	return source{
		services: map[string]spec.Service{}, states: map[string]spec.ServiceState{},
		instances: map[string]map[string]spec.Instance{}, models: map[string]spec.Model{},
		appAPIs: map[string]map[string]spec.AppAPI{}, apiOwner: map[string]string{}, gone: map[string]time.Time{},
		former: map[string]struct{}{}, loaded: map[string]bool{},
	}
}

// section is one list of the snapshot. list is nil when it must be made again.
type section[T any] struct {
	byID  map[string]T
	list  []T
	fresh bool
}

func (s *section[T]) apply(id string, v *T) {
	if s.byID == nil {
		s.byID = map[string]T{}
	}

	if v == nil {
		delete(s.byID, id)
	} else {
		s.byID[id] = *v
	}

	s.fresh = false
}

// all returns the list in the order of ids, and whether it is another one than before.
// The list is never changed once returned.
func (s *section[T]) all() (list []T, changed bool) {
	if s.fresh {
		return s.list, false
	}

	s.list = make([]T, 0, len(s.byID))
	for _, id := range slices.Sorted(maps.Keys(s.byID)) {
		s.list = append(s.list, s.byID[id])
	}

	s.fresh = true

	return s.list, true
}

// watchAll begins to follow every collection.
func (p *Publisher) watchAll(ctx context.Context, wg *sync.WaitGroup) {
	src, st := &p.src, p.store

	follow(ctx, p, wg, st.Services, keyed(src.services, p.touch))
	follow(ctx, p, wg, st.ServiceStates, keyed(src.states, p.touch))
	follow(ctx, p, wg, st.Models, keyed(src.models, p.touchUsers))
	follow(ctx, p, wg, st.AppAPIs, p.applyAppAPI)
	follow(ctx, p, wg, st.Instances, p.applyInstance)

	follow(ctx, p, wg, st.Projects, src.projects.apply)
	follow(ctx, p, wg, st.AccessKeys, src.accessKeys.apply)
	follow(ctx, p, wg, st.Apps, src.apps.apply)
	follow(ctx, p, wg, st.Revocations, src.revocations.apply)
	follow(ctx, p, wg, st.Users, func(id string, v *spec.User) {
		if v != nil {
			v.PasswordHash = ""
		}

		src.users.apply(id, v)
	})
	follow(ctx, p, wg, st.TokenKeys, func(id string, v *spec.SigningKey) {
		var public *spec.TokenKey
		if v != nil {
			k := v.Public()
			public = &k
		}

		src.tokenKeys.apply(id, public)
	})
}

// follow applies the changes of a collection in a goroutine of wg until ctx ends. A nil
// value means that the document is gone.
func follow[T any](ctx context.Context, p *Publisher, wg *sync.WaitGroup, c store.Collection[T], apply func(id string, v *T)) {
	p.mu.Lock()
	p.src.missing++
	p.mu.Unlock()

	wg.Go(func() {
		known := map[string]struct{}{}
		first := true

		for change := range c.Watch(ctx, 0) {
			p.mu.Lock()

			switch change.Type {
			case store.ChangePut:
				known[change.Item.ID] = struct{}{}

				apply(change.Item.ID, &change.Item.Value)
			case store.ChangeDelete:
				delete(known, change.Item.ID)
				apply(change.Item.ID, nil)
			case store.ChangeReset:
				known = reset(known, change.Items, apply)

				if first {
					p.src.missing--
					p.src.loaded[c.Kind()] = true
					first = false
				}
			}

			p.src.revision = max(p.src.revision, change.Revision)
			p.mu.Unlock()
			p.poke()
		}
	})
}

// reset makes items all there is.
func reset[T any](known map[string]struct{}, items []store.Item[T], apply func(string, *T)) map[string]struct{} {
	now := make(map[string]struct{}, len(items))

	for i := range items {
		now[items[i].ID] = struct{}{}

		apply(items[i].ID, &items[i].Value)
	}

	for id := range known {
		if _, ok := now[id]; !ok {
			apply(id, nil)
		}
	}

	return now
}

// keyed keeps documents in a map and tells which changed.
func keyed[T any](m map[string]T, touch func(id string)) func(string, *T) {
	return func(id string, v *T) {
		if v == nil {
			delete(m, id)
		} else {
			m[id] = *v
		}

		touch(id)
	}
}

// touchUsers asks for the routes that use a model.
func (p *Publisher) touchUsers(modelID string) {
	for id := range p.built.usedBy[modelID] {
		p.touch(id)
	}
}

func (p *Publisher) applyAppAPI(id string, v *spec.AppAPI) {
	if owner, ok := p.src.apiOwner[id]; ok {
		put(p.src.appAPIs, owner, id, nil)
		delete(p.src.apiOwner, id)
		p.touch(owner)
	}

	if v != nil {
		put(p.src.appAPIs, v.ServiceID, id, v)
		p.src.apiOwner[id] = v.ServiceID
		p.touch(v.ServiceID)
	}
}

func (p *Publisher) applyInstance(id string, v *spec.Instance) {
	serviceID, instanceID, _ := strings.Cut(id, "/")

	switch {
	case v == nil:
		delete(p.src.former, instanceID)
	case !p.src.loaded[store.KindInstances] && v.Node == p.cfg.Node && v.Node != "" && v.StartedAt < p.began:
		p.src.former[instanceID] = struct{}{}
	}

	put(p.src.instances, serviceID, instanceID, v)
	p.touch(serviceID)
}

// put sets or, with a nil value, deletes an element of a map of maps.
func put[T any](m map[string]map[string]T, owner, id string, v *T) {
	list := m[owner]

	switch {
	case v == nil:
		delete(list, id)

		if len(list) == 0 {
			delete(m, owner)
		}
	case list == nil:
		m[owner] = map[string]T{id: *v}
	default:
		list[id] = *v
	}
}
