package rollout

import (
	"fmt"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// Policy holds the numbers that Step works with. Zero fields get defaults.
type Policy struct {
	// MinBackoff and MaxBackoff bound the wait before a dead instance is replaced.
	MinBackoff time.Duration // 1 s
	MaxBackoff time.Duration // 60 s
	// StableAfter being ready this long, an instance's failures are forgotten.
	StableAfter time.Duration // 30 s
	// LoopAfter failures in a row, dying is reported as a crash loop, and its version
	// is put into quarantine when no instance of it serves.
	LoopAfter int // 5
	// DeployTimeout of an entry that sets none.
	DeployTimeout time.Duration // 20 min
	// Grace of an entry that sets none.
	Grace time.Duration // 90 s
}

// WithDefaults fills the fields that are zero.
func (p Policy) WithDefaults() Policy {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}

	set(&p.MinBackoff, time.Second)
	set(&p.MaxBackoff, time.Minute)
	set(&p.StableAfter, 30*time.Second)
	set(&p.DeployTimeout, 20*time.Minute)
	set(&p.Grace, 90*time.Second)

	if p.LoopAfter <= 0 {
		p.LoopAfter = 5
	}

	return p
}

// Observation is what is known of the process of an instance. An instance without one has
// no process here.
type Observation struct {
	PID     int
	Network string
	Address string
	Scheme  string
	Link    string
	// Direct, DirectGRPC and DirectScheme of the doors past the gateway.
	Direct, DirectGRPC, DirectScheme string
	// State as the probes see it: loading, warming, ready, draining or failed; "" while unknown.
	State  spec.InstanceState
	Reason string
	// Hung is true when a process that was ready does not answer any more.
	Hung bool
	// Ended is true when the process is gone; Reason says why, Hopeless that a new one
	// would end alike.
	Ended    bool
	Hopeless bool
}

// Input of a step.
type Input struct {
	Service   spec.Service
	Models    map[string]*spec.Model // by id; what the service and its state refer to
	State     spec.ServiceState
	Instances []spec.Instance
	Observed  map[string]Observation // by instance id
	Node      string
	Now       time.Time
	// Ahead is how far the clock was set forward since the last step: that time has not passed.
	Ahead time.Duration
}

// ActionKind says what to do with an instance.
type ActionKind uint8

// Kinds of actions. Each may be repeated without harm.
const (
	ActionStart ActionKind = iota // start its process
	ActionDrain                   // let it finish, then end it
	ActionKill                    // end it at once
)

// Action is what follows from the records, to be done once they are written.
type Action struct {
	Kind     ActionKind
	Instance spec.Instance
	Grace    time.Duration // for ActionDrain
}

// Result of a step. Everything in it but Actions is written in one transaction.
type Result struct {
	State     spec.ServiceState
	Instances []spec.Instance // records that remain
	Removed   []string        // ids of records that go
	Logs      []spec.UpdateLog
	// Rollback, when set, are the entries that the service goes back to.
	Rollback []spec.Entry
	// StopDue is true when the scheduled stop is due: the service is to be marked as stopped.
	StopDue bool
	// Forget is true when a deleted service has nothing left: its documents go.
	Forget  bool
	Events  []spec.Event
	Actions []Action
	// Wake is when the next step is due without any change from outside; zero means never.
	Wake time.Time
}

// Step computes what follows from in.
func Step(policy Policy, in Input) Result {
	s := &step{
		Input: in, policy: policy.WithDefaults(), now: in.Now.UnixMilli(),
		result: Result{State: cloneState(in.State)},
	}
	s.Instances = slices.Clone(in.Instances)
	slices.SortFunc(s.Instances, func(a, b spec.Instance) int { return compareIDs(a.ID, b.ID) })
	s.state = &s.result.State
	s.state.ServiceID = in.Service.ID

	s.calibrate()
	s.observe()

	if in.Service.StopAt > 0 && !in.Service.Stopped {
		s.scheduledStop()
	}

	if in.Service.Deleting || in.Service.Stopped {
		s.stopAll()
	} else {
		s.retarget()
		s.judge()
		s.reconcile()
		s.complete()
		s.judgeQuarantine()
		s.conclude()
	}

	s.act()
	s.trimSuperseded()

	s.result.Instances = s.Instances

	return s.result
}

type step struct {
	Input

	policy Policy
	now    int64
	state  *spec.ServiceState
	result Result
}

func cloneState(st spec.ServiceState) spec.ServiceState {
	if st.Upgrade != nil {
		u := *st.Upgrade
		st.Upgrade = &u
	}

	st.Superseded = slices.Clone(st.Superseded)
	st.Quarantined = slices.Clone(st.Quarantined)

	return st
}

// compareIDs orders ids of one service by their serial number.
func compareIDs(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}

	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}

	return 0
}

// scheduledStop marks the service as stopped when its time has come.
func (s *step) scheduledStop() {
	if s.now < s.Service.StopAt {
		s.wake(s.Service.StopAt)

		return
	}

	s.result.StopDue = true
	s.Service.Stopped = true
	s.event(normal, "service stops since its auto stop time has come")
}

// wake asks for a step at t (ms since the epoch).
func (s *step) wake(t int64) {
	at := time.UnixMilli(t)
	if s.result.Wake.IsZero() || at.Before(s.result.Wake) {
		s.result.Wake = at
	}
}

// remove takes the record at index i away.
func (s *step) remove(i int) {
	s.result.Removed = append(s.result.Removed, s.Instances[i].ID)
	s.Instances = slices.Delete(s.Instances, i, i+1)
}

// create adds a record for entry e. The index of an external endpoint is free to choose.
func (s *step) create(e *spec.Entry, template string) *spec.Instance {
	s.state.Serial++
	s.Instances = append(s.Instances, spec.Instance{
		ID:        instanceID(s.Service.ID, s.state.Serial),
		ServiceID: s.Service.ID, ModelID: e.ModelID, ModelName: e.ModelName, ModelVersion: e.ModelVersion,
		Generation: s.Service.Generation, State: spec.InstanceQueued, Node: s.Node, Template: template,
		StartedAt: s.now,
	})

	return &s.Instances[len(s.Instances)-1]
}

// instanceID makes an id that is never used again: gateways key what they know of an
// instance by it.
func instanceID(serviceID string, serial int64) string {
	const prefix = 8
	if len(serviceID) > prefix {
		serviceID = serviceID[:prefix]
	}

	return fmt.Sprintf("%s-%d", serviceID, serial)
}

// running reports whether an instance has a process, or what stands for one.
func (s *step) running(id string) bool {
	o, known := s.Observed[id]

	return known && !o.Ended
}

// act derives the actions from the records, so that a lost action is repeated. An instance
// that was given up but still has a process keeps its record until the process is gone.
func (s *step) act() {
	for i := range s.Instances {
		inst := s.Instances[i]
		running := s.running(inst.ID)

		switch {
		case inst.State == spec.InstanceQueued && !running:
			s.result.Actions = append(s.result.Actions, Action{Kind: ActionStart, Instance: inst})
		case inst.EndedAt > 0 && running:
			s.result.Actions = append(s.result.Actions, Action{Kind: ActionKill, Instance: inst})
		case inst.State == spec.InstanceDraining && running:
			s.result.Actions = append(s.result.Actions, Action{Kind: ActionDrain, Instance: inst, Grace: s.grace(inst.Template)})
		}
	}
}
