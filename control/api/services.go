package api

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	realTime = "real-time"
	// commitAttempts bounds how often a change is made again that others came in between of.
	commitAttempts = 16
	maxDeleted     = 100 // services in one deletion
)

func (a *API) createService(r *web.Request) (any, error) {
	var in serviceIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	id, err := newUUID()
	if err != nil {
		return nil, err
	}

	now := a.cfg.Now()
	s := spec.Service{
		ID: id, ProjectID: project(r), DomainID: r.Principal.DomainID, WorkspaceID: orZero(value(in.WorkspaceID)),
		Owner: r.Principal.UserID, OwnerName: r.Principal.UserName, Name: value(in.Name), InferType: value(in.InferType),
		Generation: 1, CreatedAt: now.UnixMilli(), UpdatedAt: now.UnixMilli(),
	}

	var m mistakes

	if in.Name == nil {
		m.required("service_name")
	}

	if in.InferType == nil {
		m.required("infer_type")
	}

	in.apply(&s, now, &m)

	if in.Config == nil {
		m.required("config")
	} else {
		s.Entries = a.entries(*in.Config, s.InferType, &m)
	}

	s.SpreadDirect()

	if err := m.finish(&s); err != nil {
		return nil, err
	}

	if s.InferType != realTime {
		return nil, fault.New(fault.NotImplemented, "The infer_type %s is not served here, only %s is.", s.InferType, realTime)
	}

	if err := a.placeService(r, &s); err != nil {
		return nil, err
	}

	return map[string]any{"service_id": id, "resource_ids": resourceIDs(&s)}, nil
}

// placeService writes a new service, together with its name and on condition of its models.
func (a *API) placeService(r *web.Request, s *spec.Service) error {
	ctx := r.Context()

	names, _, err := a.st.Index.ListPrefix(ctx, store.IndexKey(store.IndexService, s.ProjectID)+"/")
	if err != nil {
		return fmt.Errorf("create service: %w", err)
	}

	if len(names) >= a.cfg.ServicesPerProject {
		return fault.New(fault.QuotaExceeded, "A project may have at most %d services.", a.cfg.ServicesPerProject)
	}

	for range commitAttempts {
		revisions, err := a.models(r, s.Entries)
		if err != nil {
			return err
		}

		ops := []store.Op{
			a.st.Index.CreateOp(serviceIndex(s), s.ID),
			a.st.Services.CreateOp(s.ID, *s),
			a.st.Projects.ExistsOp(s.ProjectID, 0),
		}

		_, err = a.st.Commit(ctx, append(ops, a.dependOn(revisions)...)...)

		switch {
		case errors.Is(err, store.ErrExists):
			return fault.New(fault.ServiceExists, "Service %s already exists.", s.Name)
		case err == nil:
			return nil
		case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound):
			return fmt.Errorf("create service: %w", err)
		}
	}

	return fault.New(fault.Conflict, "The models of the service are being changed.")
}

// dependOn makes a transaction fail when a model changed since it was read.
func (a *API) dependOn(revisions map[string]int64) []store.Op {
	ops := make([]store.Op, 0, len(revisions))
	for _, id := range slices.Sorted(maps.Keys(revisions)) {
		ops = append(ops, a.st.Models.ExistsOp(id, revisions[id]))
	}

	return ops
}

func serviceIndex(s *spec.Service) string {
	return store.IndexKey(store.IndexService, s.ProjectID, s.Name)
}

// resourceIDs name the deployed models of a service the way the platform does.
func resourceIDs(s *spec.Service) []string {
	out := make([]string, 0, len(s.Entries))

	for i := range s.Entries {
		plain := strings.ReplaceAll(s.Entries[i].ModelID, "-", "")
		out = append(out, fmt.Sprintf("INF-%s@%d", plain[:min(16, len(plain))], s.UpdatedAt))
	}

	return out
}

func (a *API) updateService(r *web.Request) (any, error) {
	// Whoever may do nothing with services learns nothing about the body.
	mayUpdate := r.Authorize(auth.ActionServiceUpdate, project(r), r.Var("service_id"))
	mayAct := r.Authorize(auth.ActionServiceAction, project(r), r.Var("service_id"))

	if mayUpdate != nil && mayAct != nil {
		return nil, mayUpdate
	}

	var in serviceIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.Status != nil {
		if *in.Status != "running" && *in.Status != "stopped" {
			return nil, web.Fieldf("status", "must be running or stopped")
		}

		if mayAct != nil {
			return nil, mayAct
		}

		in.Config = nil // status wins over config
	}

	if mayUpdate != nil && in.changesMoreThanStatus() {
		return nil, mayUpdate
	}

	s, changed, err := a.changeService(r, func(s *spec.Service, m *mistakes) error { return a.update(s, &in, m) })
	if err != nil {
		return nil, err
	}

	if !changed {
		return map[string]any{}, nil
	}

	return map[string]any{"update_time": s.UpdatedAt, "resource_ids": resourceIDs(s)}, nil
}

func (in *serviceIn) changesMoreThanStatus() bool {
	rest := *in
	rest.Status = nil

	return encode(rest) != encode(serviceIn{}) || rest.Properties != nil
}

// update puts the body of an update into a service.
func (a *API) update(s *spec.Service, in *serviceIn, m *mistakes) error {
	now := a.cfg.Now()

	if in.Name != nil && *in.Name != s.Name {
		m.addf("service_name", "cannot be changed")
	}

	if in.InferType != nil && *in.InferType != s.InferType {
		m.addf("infer_type", "cannot be changed")
	}

	in.apply(s, now, m)

	if in.Config != nil {
		s.Entries = a.entries(*in.Config, s.InferType, m)
	}

	if in.Status != nil {
		stopped := *in.Status == "stopped"
		if s.Stopped && !stopped {
			s.StopAt = stopAt(s.Schedule, now)
		}

		s.Stopped = stopped
	}

	if in.Upgrade == nil {
		return nil
	}

	switch *in.Upgrade {
	case "pause":
		s.UpgradePaused = true
	case "resume":
		s.UpgradePaused = false
	case "abort":
		s.UpgradeAborted, s.UpgradePaused = s.Generation, false
	default:
		m.addf("upgrade_action", "must be pause, resume or abort")
	}

	return nil
}

// changeService applies a change to the service in the path, and again when somebody came
// in between. It tells whether the entries changed.
func (a *API) changeService(r *web.Request, change func(*spec.Service, *mistakes) error) (*spec.Service, bool, error) {
	for range commitAttempts {
		it, err := a.service(r)
		if err != nil {
			return nil, false, err
		}

		s := it.Value
		if s.Deleting {
			return nil, false, fault.New(fault.Conflict, "Service %s is being deleted.", s.Name)
		}

		var m mistakes

		before := encode(s.Entries)
		s.Entries = slices.Clone(s.Entries)

		if err := change(&s, &m); err != nil {
			return nil, false, err
		}

		s.SpreadDirect()

		if err := m.finish(&s); err != nil {
			return nil, false, err
		}

		revisions, err := a.models(r, s.Entries)
		if err != nil {
			return nil, false, err
		}

		changed := encode(s.Entries) != before
		if changed {
			s.Generation++
			s.UpgradePaused = false
		}

		s.UpdatedAt = max(a.nowMillis(), s.UpdatedAt+1)

		_, err = a.st.Commit(r.Context(), append(a.dependOn(revisions), a.st.Services.CompareOp(s.ID, s, it.Revision))...)

		switch {
		case err == nil:
			return &s, changed, nil
		case !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound):
			return nil, false, fmt.Errorf("change service: %w", err)
		}
	}

	return nil, false, fault.New(fault.Conflict, "The service is being changed by others.")
}

func (a *API) deleteServices(r *web.Request) (any, error) {
	ids := strings.Split(r.Var("service_id"), ",")
	if len(ids) > maxDeleted {
		return nil, web.Fieldf("service_id", "must name at most %d services", maxDeleted)
	}

	services := make([]store.Item[spec.Service], 0, len(ids))

	for _, id := range ids {
		id = strings.TrimSpace(id)

		if err := r.Authorize(auth.ActionServiceDelete, project(r), id); err != nil {
			return nil, err
		}

		it, err := a.findService(r, id)
		if err != nil {
			return nil, err
		}

		services = append(services, it)
	}

	for i := range services {
		if err := a.deleteService(r, services[i].ID); err != nil {
			return nil, err
		}
	}

	return map[string]any{}, nil
}

// deleteService marks a service; its name is free at once, its instances end in peace.
func (a *API) deleteService(r *web.Request, id string) error {
	if err := a.dropAppAPIs(r, id); err != nil {
		return err
	}

	it, err := a.st.Services.Update(r.Context(), id, func(s *spec.Service) error {
		s.Deleting = true
		s.UpdatedAt = max(a.nowMillis(), s.UpdatedAt+1)

		return nil
	})
	if errors.Is(err, store.ErrNotFound) {
		return nil // somebody else was faster
	}

	if err != nil {
		return fmt.Errorf("delete service: %w", err)
	}

	key := serviceIndex(&it.Value)

	index, err := a.st.Index.Get(r.Context(), key)
	if err == nil && index.Value == id {
		_, err = a.st.Commit(r.Context(), a.st.Index.DeleteOp(key, index.Revision))
	}

	if err != nil && !errors.Is(err, store.ErrNotFound) && !errors.Is(err, store.ErrConflict) {
		return fmt.Errorf("free the name of a service: %w", err)
	}

	return nil
}
