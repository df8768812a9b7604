package pool

import (
	"time"

	"github.com/sony/gobreaker/v2"
)

// State is what is known about an instance at a moment.
type State struct {
	ID       string `json:"id"`
	Address  string `json:"address"`
	Node     string `json:"node,omitempty"`
	Status   string `json:"status"` // ready, draining, ejected, cut off
	InFlight int64  `json:"in_flight"`
	// LatencyMS is the moving average of the time to the first byte.
	LatencyMS float64 `json:"latency_ms"`
	// Share is below 1 while the instance starts slowly.
	Share float64 `json:"share"`
}

// States describes every instance.
func (p *Pool) States() []State {
	endpoints := p.Endpoints()
	out := make([]State, len(endpoints))
	now := p.now()

	for i, e := range endpoints {
		out[i] = State{
			ID: e.ID, Address: e.Instance.Address, Node: e.Instance.Node, Status: "ready", InFlight: e.InFlight(),
			LatencyMS: float64(e.Latency()) / float64(time.Millisecond), Share: e.share(now, float64(p.cfg.SlowStart)),
		}

		switch {
		case e.draining.Load():
			out[i].Status = "draining"
		case e.ejected.Load() > now:
			out[i].Status = "ejected"
		case gobreaker.State(e.breaker.state.Load()) != gobreaker.StateClosed:
			out[i].Status = "cut off"
		}
	}

	return out
}
