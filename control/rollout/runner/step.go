package runner

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/spec"
)

// step does one step of a service: compute, write, act. It reports whether anything was written.
func (r *Runner) step(ctx context.Context, id string) (changed bool, err error) {
	if err := r.refresh(ctx, id); err != nil {
		return false, err
	}

	in, before, ok := r.input(id)
	if !ok {
		return false, nil
	}

	if err := r.needModels(ctx, &in); err != nil {
		return false, err
	}

	res := rollout.Step(r.cfg.Policy, in)

	changed, err = r.write(ctx, id, before, in, &res)
	if err != nil {
		return changed, err
	}

	r.act(id, in.Models, res.Actions) //nolint:contextcheck // processes and probes outlive the step

	if res.Forget {
		return changed, r.forget(ctx, id)
	}

	r.queue.addAt(id, res.Wake)

	for _, ev := range res.Events {
		r.log.Info("service event", slog.String("service_id", id), slog.String("type", ev.Type), slog.String("event", ev.Info))

		if f := r.cfg.Hooks.Event; f != nil {
			f(ev)
		}

		if _, err := r.store.Events.Append(ctx, id, ev.OccurredAt, ev); err != nil {
			return changed, fmt.Errorf("write event: %w", err)
		}
	}

	return changed, nil
}

// refresh reads the records again if they may have been written by somebody else.
func (r *Runner) refresh(ctx context.Context, id string) error {
	r.mu.Lock()
	stale := r.services[id] != nil && r.services[id].stale
	r.mu.Unlock()

	if !stale {
		return nil
	}

	state, err := r.store.ServiceStates.Get(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("read state: %w", err)
	}

	records, _, err := r.store.Instances.ListPrefix(ctx, id+"/")
	if err != nil {
		return fmt.Errorf("read instances: %w", err)
	}

	desired, err := r.store.Services.Get(ctx, id)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("read service: %w", err)
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	s := r.service(id)
	s.state, s.stale = state, false
	s.desired, s.exists = desired, err == nil

	clear(s.records)

	for _, rec := range records {
		s.records[rec.Value.ID] = rec.Value
	}

	return nil
}

// previous is what a step is compared with.
type previous struct {
	state   store.Item[spec.ServiceState]
	records map[string]spec.Instance
	service store.Item[spec.Service]
	exists  bool
	at      reading // of the clock
}

// input collects what Step needs.
func (r *Runner) input(id string) (rollout.Input, previous, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()

	s, ok := r.services[id]
	if !ok {
		return rollout.Input{}, previous{}, false
	}

	now := readClock(r.cfg.Wall)

	in := rollout.Input{
		Service: s.desired.Value, Models: map[string]*spec.Model{}, State: s.state.Value,
		Observed: make(map[string]rollout.Observation, len(s.observed)), Node: r.cfg.Node, Now: now.wall, Ahead: now.ahead(s.stepped),
	}
	if !s.exists {
		in.Service.ID, in.Service.Deleting = id, true
	}

	for _, rec := range s.records {
		in.Instances = append(in.Instances, rec)
	}

	for iid, o := range s.observed {
		in.Observed[iid] = o.Observation
	}

	for _, list := range append([][]spec.Entry{in.Service.Entries, in.State.Target, in.State.Active}, in.State.Superseded...) {
		for i := range list {
			in.Models[list[i].ModelID] = r.models[list[i].ModelID]
		}
	}

	return in, previous{state: s.state, records: maps.Clone(s.records), service: s.desired, exists: s.exists, at: now}, true
}

// needModels reads models that the watch has not delivered yet.
func (r *Runner) needModels(ctx context.Context, in *rollout.Input) error {
	for id, m := range in.Models {
		if m != nil {
			continue
		}

		item, err := r.store.Models.Get(ctx, id)

		switch {
		case errors.Is(err, store.ErrNotFound):
			delete(in.Models, id)
		case err != nil:
			return fmt.Errorf("read model: %w", err)
		default:
			in.Models[id] = &item.Value
		}
	}

	return nil
}

// maxOps bounds a transaction; external etcd allows 128 by default.
const maxOps = 100

// write puts the outcome of a step into the store, if it changes anything.
func (r *Runner) write(ctx context.Context, id string, before previous, in rollout.Input, res *rollout.Result) (bool, error) {
	if res.Forget {
		return false, nil
	}

	var ops []store.Op

	now := make(map[string]spec.Instance, len(res.Instances))
	for _, inst := range res.Instances {
		now[inst.ID] = inst
		if old, ok := before.records[inst.ID]; !ok || !reflect.DeepEqual(old, inst) {
			ops = append(ops, r.store.Instances.PutOp(id+"/"+inst.ID, inst))
		}
	}

	for iid := range before.records {
		if _, ok := now[iid]; !ok {
			ops = append(ops, r.store.Instances.DeleteOp(id+"/"+iid, 0))
		}
	}

	for _, l := range res.Logs {
		ops = append(ops, r.store.UpdateLogs.SetOp(id, l.Generation, l))
	}

	desired, rewritten := rewrite(before.service, in, res)
	if rewritten {
		ops = append(ops, r.store.Services.CompareOp(desired.ID, desired.Value, desired.Revision))
	}

	if len(ops) == 0 && reflect.DeepEqual(res.State, before.state.Value) {
		r.settle(id, before.state, now, before.at)

		return false, nil
	}

	state := before.state
	state.ID, state.Value = id, res.State

	if err := r.commit(ctx, &state, ops); err != nil {
		return false, err
	}

	if rewritten {
		// The next step must not see the document as it was.
		desired.Revision = state.Revision

		r.mu.Lock()
		r.desire(desired)
		r.mu.Unlock()
	}

	r.settle(id, state, now, before.at)

	return true, nil
}

// rewrite is the change of the service document that a step asks for.
func rewrite(item store.Item[spec.Service], in rollout.Input, res *rollout.Result) (store.Item[spec.Service], bool) {
	switch {
	case res.Rollback != nil:
		item.Value.Entries = res.Rollback
		item.Value.Generation++
	case res.StopDue:
		item.Value.Stopped, item.Value.StopAt, item.Value.Schedule = true, 0, nil
	default:
		return item, false
	}

	item.Value.UpdatedAt = in.Now.UnixMilli()

	return item, true
}

// commit writes the state, which must be as it was read, and the rest with it. More than
// one transaction can hold is written in several; the serial number comes with the first.
func (r *Runner) commit(ctx context.Context, state *store.Item[spec.ServiceState], ops []store.Op) error {
	var head store.Op
	if state.Revision == 0 {
		head = r.store.ServiceStates.CreateOp(state.ID, state.Value)
	} else {
		head = r.store.ServiceStates.CompareOp(state.ID, state.Value, state.Revision)
	}

	// Conditions belong into the first transaction: the rewrite of the service is the last op.
	slices.Reverse(ops)

	for first := true; first || len(ops) > 0; first = false {
		n := min(len(ops), maxOps)
		batch := slices.Clone(ops[:n])
		ops = ops[n:]

		if first {
			batch = append([]store.Op{head}, batch...)
		}

		rev, err := r.store.Commit(ctx, batch...)
		if err != nil {
			if errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrNotFound) {
				err = fmt.Errorf("%w: %w", store.ErrConflict, err)
			}

			return fmt.Errorf("write state: %w", err)
		}

		if first {
			state.Revision = rev
		}
	}

	return nil
}

// settle takes over what was written and forgets observations that are used up.
func (r *Runner) settle(id string, state store.Item[spec.ServiceState], records map[string]spec.Instance, at reading) {
	r.mu.Lock()
	defer r.mu.Unlock()

	s := r.service(id)
	s.state, s.records, s.retry, s.stepped = state, records, 0, at
	r.keep(s)

	for iid, o := range s.observed {
		rec, ok := records[iid]
		if o.Ended && (!ok || rec.State == spec.InstanceFailed) {
			delete(s.observed, iid)
		}
	}
}

// forget removes what is left of a deleted service.
func (r *Runner) forget(ctx context.Context, id string) error {
	r.mu.Lock()
	s := r.services[id]
	desired, exists := s.desired, s.exists
	r.mu.Unlock()

	ops := []store.Op{r.store.ServiceStates.DeleteOp(id, 0)}

	if exists {
		ops = append(ops, r.store.Services.DeleteOp(id, desired.Revision))

		key := store.IndexKey(store.IndexService, desired.Value.ProjectID, desired.Value.Name)

		index, err := r.store.Index.Get(ctx, key)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return fmt.Errorf("forget service: %w", err)
		}

		// Another service may have the name by now.
		if err == nil && index.Value == id {
			ops = append(ops, r.store.Index.DeleteOp(key, index.Revision))
		}
	}

	apis, _, err := r.store.AppAPIs.List(ctx)
	if err != nil {
		return fmt.Errorf("forget service: %w", err)
	}

	for _, api := range apis {
		if api.Value.ServiceID == id {
			ops = append(ops, r.store.AppAPIs.DeleteOp(api.ID, 0),
				r.store.Index.DeleteOp(store.IndexKey(store.IndexAppAPI, id), 0))
		}
	}

	if _, err := r.store.Commit(ctx, ops...); err != nil {
		return fmt.Errorf("forget service: %w", err)
	}

	err = errors.Join(
		r.store.Instances.DeletePrefix(ctx, id+"/"),
		r.store.Events.Drop(ctx, id),
		r.store.UpdateLogs.Drop(ctx, id),
	)
	if err != nil {
		return fmt.Errorf("forget service: %w", err)
	}

	r.mu.Lock()
	delete(r.services, id)
	r.mu.Unlock()
	r.queue.addAt(id, time.Time{})

	if f := r.cfg.Hooks.Forgotten; f != nil {
		f(id)
	}

	return nil
}
