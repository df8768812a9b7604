package runner

import (
	"context"
	"log/slog"

	"github.com/sluice-gateway/sluice/control/health"
	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/spec"
)

// inherit takes over the instances of an earlier control process that are alive, as they are: clients
// of a service notice nothing of a change of control. What is not there any more is started anew by
// the next step. mu is held.
func (r *Runner) inherit() {
	adopter, ok := r.launcher.(Adopter)
	if !ok || !r.cfg.Adopt {
		return
	}

	taken := 0

	for id, s := range r.services {
		for iid, inst := range s.records {
			if _, known := s.observed[iid]; known || inst.Address == "" || inst.EndedAt > 0 {
				continue
			}

			m := r.models[inst.ModelID]
			if m == nil {
				continue
			}

			if r.inheritOne(adopter, id, s, m, &inst) {
				taken++
			}
		}
	}

	if taken > 0 {
		r.log.Info("took over instances of an earlier control process", slog.Int("instances", taken))
	}
}

// Collect takes over what an earlier control process of this machine left, for Shutdown to end. It
// is for the last one that stops, which may never have led. Call it while Run is not running.
func (r *Runner) Collect(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer r.probes.Wait()
	defer r.endProbing()
	defer cancel()

	_, _, err := r.load(ctx)

	return err
}

// inheritOne takes over one instance; mu is held.
func (r *Runner) inheritOne(adopter Adopter, id string, s *service, m *spec.Model, inst *spec.Instance) bool {
	var st launch.Status

	if m.Engine() != spec.EngineExternal {
		entry := rollout.EntryOf(&s.state.Value, inst.Template)
		if inst.PID == 0 || inst.Node != r.cfg.Node || entry == nil {
			return false
		}

		var err error

		st, err = adopter.Adopt(launch.Task{
			ID: inst.ID, ServiceID: id, Model: m, MemoryLimit: memoryLimit(entry),
			Notify: func(st launch.Status) { r.heard(id, m, st) },
		}, inst.PID)
		if err != nil {
			r.log.Info("an instance of an earlier control process is gone", slog.String("instance", inst.ID), slog.Any("error", err))

			return false
		}
	}

	o := &observed{Observation: rollout.Observation{
		PID: inst.PID, Network: inst.Network, Address: inst.Address, Scheme: inst.Scheme, Link: inst.LinkAddress,
		Direct: inst.Direct, DirectGRPC: inst.DirectGRPC, DirectScheme: inst.DirectScheme, State: inst.State, Reason: inst.Reason,
	}}
	if inst.State == spec.InstanceQueued || inst.State == spec.InstanceDraining {
		o.State = ""
	}

	o.target = health.Target{
		Network: inst.Network, Address: inst.Address, Scheme: inst.Scheme, Config: &m.Config, Worker: m.Engine() == spec.EngineONNX,
		Dir: st.Dir, Env: st.Env, User: st.User,
	}
	s.observed[inst.ID] = o // adopt probes it

	return true
}

// keep lets the processes outlive this one whose instances are recorded with their addresses; mu is held.
func (r *Runner) keep(s *service) {
	adopter, ok := r.launcher.(Adopter)
	if !ok || !r.cfg.Adopt {
		return
	}

	for iid, o := range s.observed {
		if rec := s.records[iid]; !o.kept && !o.Ended && o.PID != 0 && rec.PID == o.PID && rec.Address == o.Address {
			o.kept = true

			adopter.Keep(iid)
		}
	}
}
