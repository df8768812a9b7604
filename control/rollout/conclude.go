package rollout

import (
	"github.com/sluice-gateway/sluice/spec"
)

// conclude derives the status that users see.
func (s *step) conclude() {
	st := s.state
	all, _ := s.lanes()
	st.Ready, st.Total = 0, 0

	var failing *spec.Instance

	serving := 0

	for i := range all {
		st.Total += all[i].want
		st.Ready += min(all[i].freshReady(), all[i].want)
		serving += count(all[i].old, ready) + all[i].freshReady()

		for _, inst := range all[i].fresh {
			if broken(inst) {
				failing = inst
			}
		}
	}

	st.Progress = 100
	if st.Total > 0 {
		st.Progress = st.Ready * 100 / st.Total
	}

	if st.Upgrade != nil {
		st.Progress = min(st.Progress, 99)
		s.underWay(serving)

		return
	}

	st.ErrorMsg = ""

	switch {
	case failing != nil && serving == 0 && failing.Failures > 1:
		st.ErrorMsg = title(failing) + " " + failing.Reason
		s.setStatus(spec.ServiceFailed)
	case failing != nil:
		st.ErrorMsg = title(failing) + " " + failing.Reason
		s.setStatus(spec.ServiceConcerning)
	case serving == 0 && st.Total > 0:
		s.setStatus(spec.ServiceDeploying)
	case st.Ready < st.Total && st.Status == spec.ServiceDeploying, st.Ready < st.Total && st.Status == spec.ServiceRunning:
		// Instances are on their way, and nothing is wrong with them.
	case st.Ready < st.Total:
		s.setStatus(spec.ServiceConcerning)
	default:
		s.setStatus(spec.ServiceRunning)
	}
}

// underWay is the status during a deployment or upgrade.
func (s *step) underWay(serving int) {
	u := s.state.Upgrade
	s.state.ErrorMsg = u.Reason

	switch {
	case u.First && u.Reason != "" && serving > 0:
		s.setStatus(spec.ServiceConcerning)
	case u.First && u.Reason != "", u.Failed && serving == 0:
		s.setStatus(spec.ServiceFailed)
	case u.Failed:
		s.setStatus(spec.ServiceConcerning)
	default:
		s.setStatus(spec.ServiceDeploying)
	}
}

// setStatus reports whether the status is another one than before.
func (s *step) setStatus(status spec.ServiceStatus) bool {
	if s.state.Status == status {
		return false
	}

	s.state.Status, s.state.TransitionAt = status, s.now

	return true
}
