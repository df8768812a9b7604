package main

import (
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

// able reports whether the gateway could send a prediction to the service now, or never will.
func (s *system) able(serviceID string, state *spec.ServiceState) bool {
	if state.Status == spec.ServiceFailed {
		return true // its events say why; it must not keep others from being served
	}

	p := s.follower.Load()
	if p == nil {
		return false
	}

	svc, ok := p.Services[serviceID]
	if !ok || !svc.Running {
		return false
	}

	for i := range svc.Route.Versions() {
		v := &svc.Route.Versions()[i]
		if v.Weight == 0 {
			continue
		}

		// Records of instances that an earlier process started may still be around.
		if !s.startedHere(v.Pool.Endpoints()) {
			return false
		}
	}

	return true
}

// startedHere reports whether one of the endpoints is a ready instance that this process started.
func (s *system) startedHere(endpoints []*pool.Endpoint) bool {
	for _, e := range endpoints {
		if e.Instance.State == spec.InstanceReady && e.Instance.StartedAt >= s.began.UnixMilli() {
			return true
		}
	}

	return false
}
