package rollout

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// retarget takes over what users want.
func (s *step) retarget() {
	want, st := s.Service.Entries, s.state

	if st.Target != nil && sameTemplates(want, st.Target) {
		s.adjust(want)

		return
	}

	if st.Upgrade != nil && !st.Upgrade.First {
		st.Superseded = append(st.Superseded, st.Target)
		s.log(spec.UpdateFail, "another update came in between")
	}

	if st.Upgrade != nil && st.Upgrade.First {
		// Nothing has ever been complete: there is nothing to go back to.
		st.Superseded = append(st.Superseded, st.Target)
		st.Active = nil
	}

	st.Target, st.Generation = want, s.Service.Generation
	st.Upgrade = &spec.UpgradeProgress{StartedAt: s.now, ProgressAt: s.now, First: len(st.Active) == 0}

	if st.Upgrade.First {
		s.event(normal, "start to deploy service")
	} else {
		s.event(normal, "service is being updated")
		s.log(spec.UpdateRunning, "")
	}
}

// adjust takes over weights, counts and settings, which need no other instances.
func (s *step) adjust(want []spec.Entry) {
	st := s.state
	updated := s.Service.Generation != st.Generation

	st.Target, st.Generation = want, s.Service.Generation
	if st.Upgrade != nil {
		return
	}

	st.Active = want

	if updated {
		s.event(normal, "service updated")
		s.log(spec.UpdateSuccess, "")
	}
}

// log records the update to the present target. There is one entry a generation: an update that
// begins and ends in the same step leaves its end only.
func (s *step) log(result spec.UpdateResult, detail string) {
	success := 0

	all, _ := s.lanes()
	for i := range all {
		success += all[i].freshReady()
	}

	l := &spec.UpdateLog{
		ServiceID: s.Service.ID, Generation: s.state.Generation, UpdateTime: s.now, Result: result,
		Config: s.state.Target, SuccessNum: success, Detail: detail,
	}
	if u := s.state.Upgrade; u != nil && u.StartedAt > 0 {
		l.UpdateTime = u.StartedAt
	}

	for i := range all {
		if result == spec.UpdateFail {
			l.FailedNum += all[i].want - all[i].freshReady()
		}
	}

	s.result.Logs = slices.DeleteFunc(s.result.Logs, func(old spec.UpdateLog) bool { return old.Generation == l.Generation })
	s.result.Logs = append(s.result.Logs, *l)
}

// judge gives up an upgrade that failed, took too long or was aborted.
func (s *step) judge() {
	u := s.state.Upgrade
	if u == nil {
		return
	}

	s.pause(u)

	if !u.First && !u.Rollback && s.Service.UpgradeAborted == s.Service.Generation && s.Service.Generation > 0 {
		s.rollback("aborted by the user", normal)

		return
	}

	reason := s.hopeless()
	if reason == "" {
		reason = s.overdue(u)
	}

	switch {
	case reason == "":
	case !u.First && !u.Rollback:
		s.rollback(reason, abnormal)
	case u.Rollback && u.Reason != "" && !u.Failed:
		u.Failed = true
		u.Reason += "; the rollback failed: " + reason
		s.event(abnormal, "Failed to update the service. The rollback failed. Error: %s", reason)
	case u.First:
		if u.Reason == "" {
			s.event(abnormal, "Service %s failed. Error: %s", s.Service.Name, reason)
		}

		u.Reason = reason // the newest failure may explain more
	}
}

// pause keeps track of a user's pause; its time does not count.
func (s *step) pause(u *spec.UpgradeProgress) {
	switch paused := s.paused(); {
	case paused && u.PausedAt == 0:
		u.PausedAt = s.now
		s.event(normal, "the update is paused")
	case !paused && u.PausedAt != 0:
		u.PausedAt, u.ProgressAt = 0, s.now
		s.event(normal, "the update goes on")
	}
}

// hopeless finds an instance of the target that can never be ready.
func (s *step) hopeless() string {
	all, _ := s.lanes()
	for i := range all {
		for _, inst := range all[i].fresh {
			if inst.State == spec.InstanceFailed && inst.Hopeless {
				return fmt.Sprintf("%s %s", title(inst), inst.Reason)
			}
		}
	}

	return ""
}

// overdue says why the upgrade took too long, or sets the time at which it will have.
func (s *step) overdue(u *spec.UpgradeProgress) string {
	if u.PausedAt != 0 || !s.starting() {
		return ""
	}

	var timeout time.Duration
	for _, t := range templates(s.state.Target) {
		timeout = max(timeout, s.deployTimeout(t))
	}

	due := u.ProgressAt + timeout.Milliseconds()
	if s.now < due {
		s.wake(due)

		return ""
	}

	last := s.lastReason()
	if strings.HasPrefix(last, notReady) {
		return "Service deployment timed out: " + last
	}

	return fmt.Sprintf("Service deployment timed out: %s %s%s", notReady, timeout, because(last))
}

// lastReason is what the youngest instance that is not ready says.
func (s *step) lastReason() string {
	p := place(s.state)

	for _, inst := range slices.Backward(s.Instances) {
		if _, fresh := p.find(inst.Template); fresh && !ready(&inst) && inst.Reason != "" {
			return inst.Reason
		}
	}

	return ""
}

// rollback turns back to what was active; the service document follows.
func (s *step) rollback(reason, kind string) {
	st := s.state

	s.log(spec.UpdateFail, reason)

	st.Superseded = append(st.Superseded, st.Target)
	st.Target, st.Generation = st.Active, s.Service.Generation+1 // of the rewritten document
	st.Upgrade = &spec.UpgradeProgress{StartedAt: s.now, ProgressAt: s.now, Rollback: true, Reason: reason}
	s.result.Rollback = st.Active

	if kind == abnormal {
		s.event(abnormal, "Failed to update the service. Perform a rollback. Error: %s", reason)
	} else {
		s.event(normal, "the update is undone: %s", reason)
	}
}

// complete ends an upgrade when every lane is as wanted and nothing old is left.
func (s *step) complete() {
	u := s.state.Upgrade
	if u == nil {
		return
	}

	all, orphans := s.lanes()
	for i := range all {
		if !all[i].done() {
			return
		}
	}

	if len(orphans) > 0 {
		return
	}

	switch {
	case u.First:
		s.event(normal, "Service %s started", s.Service.Name)
	case u.Rollback:
		s.event(normal, "update failed, rolled back")
	default:
		s.event(normal, "service updated")
		s.log(spec.UpdateSuccess, "")
	}

	// Instances of the former target may still be draining.
	s.state.Superseded = append(s.state.Superseded, s.state.Active)
	s.state.Active, s.state.Upgrade = s.state.Target, nil
}

// judgeQuarantine isolates versions that cannot be kept alive, and takes them back once
// an instance has been stable.
func (s *step) judgeQuarantine() {
	all, _ := s.lanes()
	for i := range all {
		l := &all[i]
		at := slices.Index(s.state.Quarantined, l.entry.ModelID)

		switch {
		case at < 0 && s.poisoned(l):
			s.state.Quarantined = append(s.state.Quarantined, l.entry.ModelID)
			s.event(abnormal, "%s is in quarantine: its instances cannot be kept alive", entryTitle(l.entry))
		case at >= 0 && count(l.fresh, func(i *spec.Instance) bool { return ready(i) && i.Failures == 0 }) > 0:
			s.state.Quarantined = slices.Delete(s.state.Quarantined, at, at+1)
			s.event(normal, "%s has left quarantine", entryTitle(l.entry))
		}
	}

	s.state.Quarantined = slices.DeleteFunc(s.state.Quarantined, func(id string) bool {
		return !slices.ContainsFunc(s.state.Target, func(e spec.Entry) bool { return e.ModelID == id })
	})
}

// poisoned reports whether all instances of a lane failed too often.
func (s *step) poisoned(l *lane) bool {
	return len(l.fresh) > 0 && count(l.fresh, func(inst *spec.Instance) bool {
		return inst.State == spec.InstanceFailed && (inst.Hopeless || inst.Failures >= s.policy.LoopAfter)
	}) == len(l.fresh)
}

// trimSuperseded forgets former targets without instances.
func (s *step) trimSuperseded() {
	fresh := templates(s.state.Target)

	s.state.Superseded = slices.DeleteFunc(s.state.Superseded, func(list []spec.Entry) bool {
		for _, t := range templates(list) {
			if slices.Contains(fresh, t) {
				continue
			}

			if slices.ContainsFunc(s.Instances, func(inst spec.Instance) bool { return inst.Template == t }) {
				return false
			}
		}

		return true
	})

	if len(s.state.Superseded) == 0 {
		s.state.Superseded = nil
	}

	if len(s.state.Quarantined) == 0 {
		s.state.Quarantined = nil
	}
}
