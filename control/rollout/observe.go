package rollout

import (
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// calibrate moves times along when the clock was set. Those that lie in the future because it was set
// back are pulled to the present: nobody shall wait for a time that was wrong. When it was set forward,
// they go with it: what waited a second has not waited an hour.
func (s *step) calibrate() {
	ahead := max(s.Ahead, 0).Milliseconds()
	limit := func(t *int64, latest int64) {
		if *t > 0 {
			*t = min(*t+ahead, latest)
		}
	}

	for i := range s.Instances {
		inst := &s.Instances[i]
		limit(&inst.StartedAt, s.now)
		limit(&inst.ReadyAt, s.now)
		limit(&inst.EndedAt, s.now)
		limit(&inst.RetryAt, s.now+s.policy.MaxBackoff.Milliseconds())
	}

	if u := s.state.Upgrade; u != nil {
		limit(&u.StartedAt, s.now)
		limit(&u.ProgressAt, s.now)
		limit(&u.PausedAt, s.now)
	}
}

// observe brings the records up to date with what was seen.
func (s *step) observe() {
	lost := 0

	for i := 0; i < len(s.Instances); {
		inst := &s.Instances[i]
		o, known := s.Observed[inst.ID]

		switch {
		case inst.State == spec.InstanceDraining && (!known || o.Ended):
			if known {
				s.event(normal, "%s instance %s has stopped", title(inst), inst.ID)
			}

			s.remove(i)

			continue
		case inst.State == spec.InstanceDraining, inst.State == spec.InstanceFailed:
		case !known && inst.State == spec.InstanceQueued:
			inst.StartedAt = s.now // it starts now, whenever its record was written
		case !known:
			s.renew(inst)

			lost++
		default:
			s.look(inst, o)
		}

		i++
	}

	if lost > 0 {
		s.event(normal, "instances that ended with the control process are started again (%d)", lost)
	}
}

// look updates the record of a process that exists or has just ended.
func (s *step) look(inst *spec.Instance, o Observation) {
	switch {
	case o.Ended:
		s.died(inst, o.Reason, o.Hopeless)

		return
	case o.Hung:
		s.died(inst, "it does not answer any more: "+o.Reason, false)

		return
	case o.State == spec.InstanceFailed:
		s.died(inst, o.Reason, true)

		return
	}

	inst.PID, inst.Network, inst.Address, inst.Scheme, inst.LinkAddress = o.PID, o.Network, o.Address, o.Scheme, o.Link
	inst.Direct, inst.DirectGRPC, inst.DirectScheme = o.Direct, o.DirectGRPC, o.DirectScheme

	next := o.State
	if next == "" || o.Address == "" {
		next = spec.InstanceLoading
	}

	if next == spec.InstanceReady && inst.ReadyAt == 0 {
		inst.ReadyAt = s.now

		if u := s.state.Upgrade; u != nil {
			u.ProgressAt = s.now
		}

		s.event(normal, "%s instance %s is ready", title(inst), inst.ID)
	}

	if next != inst.State && onTheWay(next) {
		s.event(normal, "%s instance %s is %s", title(inst), inst.ID, next)
	}

	inst.State = next
	if o.Reason != "" || next == spec.InstanceReady {
		inst.Reason = o.Reason
	}

	s.age(inst)
}

// onTheWay reports whether a state is one that takes long with large models.
func onTheWay(state spec.InstanceState) bool {
	return state == spec.InstanceFetching || state == spec.InstanceVerifying || state == spec.InstanceWarming
}

// age forgets old failures of a stable instance, and gives up one that takes too long to get ready.
func (s *step) age(inst *spec.Instance) {
	switch {
	case inst.State == spec.InstanceReady && inst.Failures > 0:
		stable := inst.ReadyAt + s.policy.StableAfter.Milliseconds()
		if s.now < stable {
			s.wake(stable)

			return
		}

		if inst.Failures >= s.policy.LoopAfter {
			s.event(normal, "%s instance %s has recovered", title(inst), inst.ID)
		}

		inst.Failures = 0
	case inst.ReadyAt == 0:
		timeout := s.deployTimeout(inst.Template)

		due := inst.StartedAt + timeout.Milliseconds()
		if s.now < due {
			s.wake(due)

			return
		}

		s.died(inst, fmt.Sprintf("%s %s%s", notReady, timeout, because(inst.Reason)), false)
	}
}

// notReady begins the reason of an instance that took longer than the deployment timeout.
const notReady = "not ready within"

func because(reason string) string {
	if reason == "" || strings.HasPrefix(reason, notReady) {
		return ""
	}

	return ": " + reason
}

// died records the end of an instance and when it is replaced.
func (s *step) died(inst *spec.Instance, reason string, hopeless bool) {
	stable := inst.ReadyAt > 0 && s.now-inst.ReadyAt >= s.policy.StableAfter.Milliseconds()
	if stable {
		inst.Failures = 0
	}

	inst.Failures++
	inst.State, inst.Reason, inst.EndedAt, inst.Hopeless = spec.InstanceFailed, reason, s.now, hopeless
	inst.Address, inst.LinkAddress, inst.PID = "", "", 0
	inst.Direct, inst.DirectGRPC, inst.DirectScheme = "", "", ""

	wait := s.backoff(inst)
	if stable {
		wait = 0
	}

	inst.RetryAt = s.now + wait.Milliseconds()

	switch {
	case inst.Failures < s.policy.LoopAfter:
		s.event(abnormal, "%s instance %s failed: %s", title(inst), inst.ID, reason)
	case inst.Failures == s.policy.LoopAfter:
		s.event(abnormal, "%s instances fail again and again (%d times in a row), tried again every %s: %s",
			title(inst), inst.Failures, s.policy.MaxBackoff, reason)
	}
}

// backoff doubles with every failure in a row, up to a bound, give or take a fifth.
func (s *step) backoff(inst *spec.Instance) time.Duration {
	wait := s.policy.MaxBackoff
	if shift := inst.Failures - 1; !inst.Hopeless && shift < 16 {
		wait = min(wait, s.policy.MinBackoff<<shift)
	}

	h := fnv.New32a()
	_, _ = h.Write([]byte(inst.ID)) // never fails
	jitter := 0.8 + 0.4*float64(h.Sum32()%1000)/1000

	return min(time.Duration(float64(wait)*jitter), s.policy.MaxBackoff)
}

// renew turns a record into one of a new instance that takes the place of the former.
func (s *step) renew(inst *spec.Instance) {
	s.result.Removed = append(s.result.Removed, inst.ID)
	s.state.Serial++

	*inst = spec.Instance{
		ID:        instanceID(s.Service.ID, s.state.Serial),
		ServiceID: inst.ServiceID, ModelID: inst.ModelID, ModelName: inst.ModelName, ModelVersion: inst.ModelVersion,
		Generation: inst.Generation, State: spec.InstanceQueued, Node: s.Node, Template: inst.Template,
		Restarts: inst.Restarts, Failures: inst.Failures, Endpoint: inst.Endpoint, StartedAt: s.now,
	}
}

// restart replaces a failed instance.
func (s *step) restart(inst *spec.Instance) {
	former, reason := inst.ID, inst.Reason
	s.renew(inst)
	inst.Restarts++
	inst.Reason = reason // shown until the new one has something to say

	if inst.Failures < s.policy.LoopAfter {
		s.event(normal, "%s instance %s is replaced by %s (restart %d)", title(inst), former, inst.ID, inst.Restarts)
	}
}
