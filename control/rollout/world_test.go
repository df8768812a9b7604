package rollout_test

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/control/rollout"
	"github.com/sluice-gateway/sluice/spec"
)

func entry(model string, n int) spec.Entry {
	return spec.Entry{ModelID: model, ModelName: model, ModelVersion: "1.0.0", Weight: 100, InstanceCount: n, MaxSurge: 1}
}

// world is a service with everything around it, in virtual time. Its processes do what
// they are told and nothing else.
type world struct {
	service   spec.Service
	models    map[string]*spec.Model
	state     spec.ServiceState
	instances []spec.Instance
	observed  map[string]rollout.Observation
	now       time.Time
	ahead     time.Duration // the clock was set since the last step
	wake      time.Time
	forgotten bool
	doomed    bool // the next command ends in a crash

	told    []string // actions of the last settle
	events  []spec.Event
	logs    []spec.UpdateLog
	started map[string]int // how often each instance was started since the last crash
	policy  rollout.Policy
}

func newWorld() *world {
	return &world{
		service: spec.Service{ID: "s", Name: "demo"}, models: map[string]*spec.Model{},
		observed: map[string]rollout.Observation{}, now: time.UnixMilli(1_000_000_000_000).UTC(),
		started: map[string]int{},
	}
}

// deploy changes what users want.
func (w *world) deploy(entries ...spec.Entry) {
	w.service.Entries = entries
	w.service.Generation++

	for _, e := range entries {
		if w.models[e.ModelID] == nil {
			w.models[e.ModelID] = &spec.Model{ID: e.ModelID, Config: spec.PackageConfig{ModelType: "ONNX"}}
		}
	}
}

// record does one step and writes its records; the actions are left to do.
func (w *world) record() []rollout.Action {
	res := rollout.Step(w.policy, rollout.Input{
		Service: w.service, Models: w.models, State: w.state, Instances: w.instances,
		Observed: w.observed, Node: "node", Now: w.now, Ahead: w.ahead,
	})
	w.ahead = 0

	w.state, w.instances, w.wake = res.State, res.Instances, res.Wake
	w.forgotten = res.Forget
	w.events = append(w.events, res.Events...)
	w.logs = append(w.logs, res.Logs...)

	generations := map[int64]bool{}
	for _, l := range res.Logs {
		if generations[l.Generation] {
			// The generation is the key in the store, and a transaction may name a key once.
			panic(fmt.Sprintf("one step logs generation %d twice: %+v", l.Generation, res.Logs))
		}

		generations[l.Generation] = true
	}

	if res.Rollback != nil {
		w.service.Entries = res.Rollback
		w.service.Generation++
	}

	if res.StopDue {
		w.service.Stopped, w.service.StopAt = true, 0
	}

	for id, o := range w.observed {
		i := slices.IndexFunc(w.instances, func(inst spec.Instance) bool { return inst.ID == id })
		if o.Ended && (i < 0 || w.instances[i].State == spec.InstanceFailed) {
			delete(w.observed, id)
		}
	}

	return res.Actions
}

func (w *world) act(actions []rollout.Action) {
	for _, a := range actions {
		id := a.Instance.ID

		switch a.Kind {
		case rollout.ActionStart:
			w.observed[id] = rollout.Observation{}
			w.started[id]++
			w.tell("start " + id)
		case rollout.ActionDrain:
			w.tell(fmt.Sprintf("drain %s within %s", id, a.Grace))
		case rollout.ActionKill:
			w.tell("kill " + id)
			w.observed[id] = rollout.Observation{Ended: true}
		}
	}
}

func (w *world) tell(what string) {
	if !slices.Contains(w.told, what) {
		w.told = append(w.told, what)
	}
}

// settle steps until nothing changes any more.
func (w *world) settle() {
	const enough = 50
	for range enough {
		w.act(w.record())

		if w.quiet() {
			return
		}
	}

	panic("BUG: steps never come to rest")
}

// quiet reports whether another step would change nothing.
func (w *world) quiet() bool {
	res := rollout.Step(w.policy, rollout.Input{
		Service: w.service, Models: w.models, State: w.state, Instances: w.instances,
		Observed: w.observed, Node: "node", Now: w.now,
	})
	starts := slices.ContainsFunc(res.Actions, func(a rollout.Action) bool { return a.Kind != rollout.ActionDrain })

	return !starts && reflect.DeepEqual(res.Instances, w.instances) && reflect.DeepEqual(res.State, w.state) &&
		res.Rollback == nil && len(res.Events) == 0
}

func (w *world) listen(id string, state spec.InstanceState, reason string) {
	o, ok := w.observed[id]
	if !ok || o.Ended {
		return
	}

	o.Network, o.Address, o.Scheme, o.PID, o.State, o.Reason = "tcp", "127.0.0.1:1", "http", 1, state, reason
	w.observed[id] = o
}

func (w *world) exit(id, reason string, hopeless bool) {
	if o, ok := w.observed[id]; ok {
		o.Ended, o.Reason, o.Hopeless = true, reason, hopeless
		w.observed[id] = o
	}
}

// crash ends control and with it every process.
func (w *world) crash() {
	clear(w.observed)
	clear(w.started)
}

func (w *world) ids(pred func(spec.Instance) bool) []string {
	var out []string

	for _, inst := range w.instances {
		if pred(inst) {
			out = append(out, inst.ID)
		}
	}

	return out
}

// describe renders what happened since the last call and how things are.
func (w *world) describe() string {
	var b strings.Builder

	for _, ev := range w.events {
		fmt.Fprintf(&b, "%s: %s\n", ev.Type, ev.Info)
	}

	for _, l := range w.logs {
		fmt.Fprintf(&b, "update log %d %s +%d -%d %s\n", l.Generation, l.Result, l.SuccessNum, l.FailedNum, l.Detail)
	}

	for _, what := range w.told {
		fmt.Fprintf(&b, "> %s\n", what)
	}

	w.events, w.logs, w.told = nil, nil, nil

	if w.forgotten {
		b.WriteString("forgotten\n")

		return b.String()
	}

	fmt.Fprintf(&b, "%s %d%% ready %d/%d", w.state.Status, w.state.Progress, w.state.Ready, w.state.Total)

	if w.state.ErrorMsg != "" {
		fmt.Fprintf(&b, " error: %s", w.state.ErrorMsg)
	}

	if len(w.state.Quarantined) > 0 {
		fmt.Fprintf(&b, " quarantine: %s", strings.Join(w.state.Quarantined, " "))
	}

	b.WriteByte('\n')

	for _, inst := range w.instances {
		fmt.Fprintf(&b, "  %s %s %s", inst.ID, inst.ModelID, inst.State)

		if inst.Restarts > 0 {
			fmt.Fprintf(&b, " restarts %d", inst.Restarts)
		}

		if inst.State == spec.InstanceFailed {
			fmt.Fprintf(&b, " again in %s", time.UnixMilli(inst.RetryAt).Sub(w.now).Round(100*time.Millisecond))
		}

		b.WriteByte('\n')
	}

	b.WriteString("  traffic")

	for _, share := range rollout.Split(&w.service, &w.state, w.instances) {
		fmt.Fprintf(&b, " %s=%d", share.Entry.ModelID, share.Weight)
	}

	b.WriteByte('\n')

	return b.String()
}
