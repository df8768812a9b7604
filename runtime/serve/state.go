package serve

import "sync/atomic"

type phase uint8

const (
	loading phase = iota
	ready
	draining
	failed
)

func (p phase) String() string {
	return [...]string{"loading", "ready", "draining", "failed"}[p]
}

type condition struct {
	phase  phase
	reason string
}

// State is what the worker as a whole is doing. The zero value is loading. It is safe for concurrent use.
type State struct{ now atomic.Pointer[condition] }

func (s *State) get() condition {
	if c := s.now.Load(); c != nil {
		return *c
	}

	return condition{}
}

// Report is the state as /health tells it: loading, ready, draining or failed, and the reason of a failure.
func (s *State) Report() (state, reason string) {
	c := s.get()

	return c.phase.String(), c.reason
}

// SetReady says that predictions succeed from now on. It does nothing once draining has begun.
func (s *State) SetReady() { s.set(condition{phase: ready}) }

// SetFailed says that the model cannot be loaded, and why.
func (s *State) SetFailed(reason string) { s.set(condition{phase: failed, reason: reason}) }

// SetDraining says that the worker is going away; it is final.
func (s *State) SetDraining() { s.set(condition{phase: draining}) }

// Draining reports whether SetDraining was called.
func (s *State) Draining() bool { return s.get().phase == draining }

func (s *State) set(c condition) {
	for {
		old := s.now.Load()
		if old != nil && old.phase == draining {
			return
		}

		if s.now.CompareAndSwap(old, &c) {
			return
		}
	}
}
