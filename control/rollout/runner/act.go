package runner

import (
	"context"
	"net"
	"net/url"
	"time"

	"github.com/sluice-gateway/sluice/control/health"
	"github.com/sluice-gateway/sluice/control/launch"
	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/spec"
)

// act carries the actions of a step out. None of them blocks.
func (r *Runner) act(id string, models map[string]*spec.Model, actions []rollout.Action) {
	for _, a := range actions {
		switch a.Kind {
		case rollout.ActionStart:
			r.start(id, models[a.Instance.ModelID], a.Instance)
		case rollout.ActionDrain:
			r.drain(id, a.Instance.ID, a.Grace)
		case rollout.ActionKill:
			r.end(id, a.Instance.ID)
		}
	}
}

// start begins to run an instance. What goes wrong is observed as its end.
func (r *Runner) start(id string, m *spec.Model, inst spec.Instance) {
	r.mu.Lock()
	s := r.service(id)

	if _, there := s.observed[inst.ID]; there {
		r.mu.Unlock()

		return
	}

	s.observed[inst.ID] = &observed{}
	entry := rollout.EntryOf(&s.state.Value, inst.Template)
	r.mu.Unlock()

	if m == nil || entry == nil {
		r.ended(id, inst.ID, "the model does not exist any more", true)

		return
	}

	if m.Engine() == spec.EngineExternal {
		r.attach(id, m, inst)

		return
	}

	err := r.launcher.Start(launch.Task{
		ID: inst.ID, ServiceID: id, Model: m, Envs: entry.Envs, MemoryLimit: memoryLimit(entry), CPULimit: cpuLimit(entry), Direct: entry.Direct,
		Notify: func(st launch.Status) { r.heard(id, m, st) },
	})
	if err != nil {
		r.ended(id, inst.ID, err.Error(), false)
	}
}

// memoryLimit is what an entry's own specification allows an instance.
func memoryLimit(e *spec.Entry) int64 {
	if e.CustomSpec == nil {
		return 0
	}

	return int64(e.CustomSpec.Memory) << 20
}

// cpuLimit is how many processors it allows.
func cpuLimit(e *spec.Entry) float64 {
	if e.CustomSpec == nil {
		return 0
	}

	return e.CustomSpec.CPU
}

// attach observes a fixed address, which has no process.
func (r *Runner) attach(id string, m *spec.Model, inst spec.Instance) {
	if inst.Endpoint == nil {
		r.ended(id, inst.ID, "the package declares no further endpoint", true)

		return
	}

	u, err := url.Parse(inst.Endpoint.URL)
	if err != nil || u.Host == "" {
		r.ended(id, inst.ID, "endpoint "+inst.Endpoint.URL+" is not an address", true)

		return
	}

	address := u.Host
	if u.Port() == "" {
		port := "80"
		if u.Scheme == "https" {
			port = "443"
		}

		address = net.JoinHostPort(u.Hostname(), port)
	}

	r.heard(id, m, launch.Status{ID: inst.ID, Phase: launch.PhaseListening, Network: "tcp", Address: address, Scheme: u.Scheme})
}

// heard takes over what a launcher tells.
func (r *Runner) heard(id string, m *spec.Model, st launch.Status) {
	switch st.Phase {
	case launch.PhaseStarting:
	case launch.PhaseListening:
		r.listening(id, m, st)
	case launch.PhaseEnded:
		r.ended(id, st.ID, st.Exit.String(), st.Exit.Permanent)
	}
}

// listening notes the address of an instance and begins to probe it.
func (r *Runner) listening(id string, m *spec.Model, st launch.Status) {
	r.mu.Lock()
	defer r.mu.Unlock()

	o := r.observation(id, st.ID)
	if o == nil || o.Ended {
		return
	}

	o.PID, o.Network, o.Address, o.Scheme, o.Link = st.PID, st.Network, st.Address, st.Scheme, st.Link
	o.Direct, o.DirectGRPC, o.DirectScheme = st.Direct, st.DirectGRPC, st.DirectScheme
	r.queue.add(id)

	o.target = health.Target{
		Network: st.Network, Address: st.Address, Scheme: st.Scheme,
		Config: &m.Config, Worker: m.Engine() == spec.EngineONNX, Dir: st.Dir, Env: st.Env, User: st.User,
	}
	r.probe(id, st.ID, o)
}

// probe begins to probe an instance, if Run is under way; mu is held.
func (r *Runner) probe(id, instance string, o *observed) {
	if r.probing == nil || r.probing.Err() != nil {
		return
	}

	ctx, cancel := context.WithCancel(r.probing)
	o.stopProbe = cancel
	target := o.target
	target.Ready = o.State == spec.InstanceReady

	r.probes.Go(func() {
		r.prober.Watch(ctx, target, func(rep health.Report) { r.probed(id, instance, rep) })
	})
}

// observation finds what is known of an instance; mu is held.
func (r *Runner) observation(id, instance string) *observed {
	if s := r.services[id]; s != nil {
		return s.observed[instance]
	}

	return nil
}

// probed notes the result of a probe.
func (r *Runner) probed(id, instance string, rep health.Report) {
	r.mu.Lock()
	o := r.observation(id, instance)
	changed := o != nil && !o.Ended

	if changed {
		o.State, o.Reason, o.Hung = rep.State, rep.Reason, rep.Hung
	}
	r.mu.Unlock()

	if !changed {
		return
	}

	if rep.Hung || rep.State == spec.InstanceFailed {
		r.gone(id, instance)
	}

	r.queue.add(id)
}

// ended notes the end of an instance. What a probe found out explains more than an exit status.
func (r *Runner) ended(id, instance, reason string, hopeless bool) {
	r.mu.Lock()
	o := r.observation(id, instance)

	if o != nil && !o.Ended {
		if o.State == spec.InstanceFailed && o.Reason != "" {
			reason, hopeless = o.Reason, true
		}

		o.Ended, o.Reason, o.Hopeless = true, reason, hopeless

		if o.stopProbe != nil {
			o.stopProbe()
		}
	}
	r.mu.Unlock()

	r.gone(id, instance)
	r.queue.add(id)
}

func (r *Runner) gone(id, instance string) {
	if f := r.cfg.Hooks.Gone; f != nil {
		f(id, instance)
	}
}

// drain tells an instance to finish, once gateways have had the time to hear of it.
func (r *Runner) drain(id, instance string, grace time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()

	o := r.observation(id, instance)
	if o == nil || o.Ended || o.draining {
		return
	}

	o.draining = true

	time.AfterFunc(r.cfg.DrainDelay, func() { r.stop(id, instance, grace) })
}

// end kills an instance at once.
func (r *Runner) end(id, instance string) { r.stop(id, instance, 0) }

// stop ends the process of an instance, or what stands for it.
func (r *Runner) stop(id, instance string, grace time.Duration) {
	r.launcher.Stop(instance, grace)

	r.mu.Lock()
	o := r.observation(id, instance)
	external := o != nil && !o.Ended && o.Address != "" && o.PID == 0
	r.mu.Unlock()

	if external {
		r.ended(id, instance, "detached", false)
	}
}
