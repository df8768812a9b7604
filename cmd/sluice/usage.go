package main

import (
	"github.com/sluice-gateway/sluice/control/api"
	"github.com/sluice-gateway/sluice/gateway"
)

// counted adds counting for the management API to the hooks of the corridor.
func (s *system) counted(h gateway.Hooks) gateway.Hooks {
	next := h.Settled

	h.Settled = func(c *gateway.Call) {
		if next != nil {
			next(c)
		}

		if id := c.Record.ServiceID; id != "" {
			s.usage.Count(id, c.Record.Model, c.Record.Outcome != gateway.Served)
		}
	}

	return h
}

// usageByID tells the API how services are used.
type usageByID struct{ *system }

// ServiceUsage implements api.Usage.
func (u usageByID) ServiceUsage(serviceID string) api.ServiceUsage {
	r := u.usage.Report(serviceID)
	out := api.ServiceUsage{
		Invocations: r.Total, Failures: r.Failed, RequestsPerMinute: r.LastMinute, Models: map[string]api.ModelUsage{},
	}

	if u.follower == nil {
		return out
	}

	p := u.follower.Load()
	if p == nil || p.Services[serviceID] == nil {
		return out
	}

	for _, v := range p.Services[serviceID].Route.Versions() {
		n := r.Models[v.Label]
		out.Models[v.ModelID] = api.ModelUsage{Invocations: n[0], Failures: n[1]}
	}

	return out
}

// logs are those of the instances that this process runs, nil if it runs none.
func (s *system) logs() api.Logs {
	if s.launcher == nil {
		return nil
	}

	return s.launcher
}
