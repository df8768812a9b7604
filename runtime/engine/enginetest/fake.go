// Package enginetest provides a fake engine and the suite that every engine must pass.
package enginetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Model is what a fake session does.
type Model struct {
	Inputs, Outputs []engine.Info
	// Duration of a run; nil means none.
	Duration func(in []engine.Tensor) time.Duration
	// Compute gives the outputs; nil copies the inputs to the outputs in order.
	Compute func(in []engine.Tensor) ([]engine.Tensor, error)
	// Provider; empty means cpu.
	Provider string
}

// Echo is a model of one FP32 input "x" and one output "y" that repeats it, width values a row.
func Echo(width int64) Model {
	return Model{
		Inputs:  []engine.Info{{Name: "x", Type: engine.FP32, Shape: []int64{-1, width}, Names: []string{"batch", ""}}},
		Outputs: []engine.Info{{Name: "y", Type: engine.FP32, Shape: []int64{-1, width}, Names: []string{"batch", ""}}},
	}
}

// Engine is a fake. Its zero value loads nothing; it is safe for concurrent use.
type Engine struct {
	// Open makes the model for a file.
	Open func(ctx context.Context, spec engine.LoadSpec) (Model, error)

	mu       sync.Mutex // guards what follows
	sessions []*Session
}

var _ engine.Engine = (*Engine)(nil)

// Name implements engine.Engine.
func (e *Engine) Name() string { return "fake 1.0" }

// Load implements engine.Engine.
func (e *Engine) Load(ctx context.Context, spec engine.LoadSpec) (engine.Session, error) {
	if e.Open == nil {
		return nil, errors.New("the fake engine has no models")
	}

	m, err := e.Open(ctx, spec)
	if err != nil {
		return nil, err
	}

	s := NewSession(m)

	e.mu.Lock()
	defer e.mu.Unlock()

	e.sessions = append(e.sessions, s)

	return s, nil
}

// Sessions lists every session ever loaded.
func (e *Engine) Sessions() []*Session {
	e.mu.Lock()
	defer e.mu.Unlock()

	return slices.Clone(e.sessions)
}

// Session is a fake session that remembers what it did.
type Session struct {
	model Model

	mu      sync.Mutex // guards what follows
	closed  bool
	running int
	most    int
	runs    []int64
	unfreed int
}

var _ engine.Session = (*Session)(nil)

// NewSession returns a session without an engine.
func NewSession(m Model) *Session { return &Session{model: m} }

// Inputs implements engine.Session.
func (s *Session) Inputs() []engine.Info { return s.model.Inputs }

// Outputs implements engine.Session.
func (s *Session) Outputs() []engine.Info { return s.model.Outputs }

// Provider implements engine.Session.
func (s *Session) Provider() string {
	if s.model.Provider == "" {
		return "cpu"
	}

	return s.model.Provider
}

// Run implements engine.Session.
func (s *Session) Run(ctx context.Context, in []engine.Tensor, outputs []string) ([]engine.Tensor, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("run fake: %w", err)
	}

	if err := s.begin(in); err != nil {
		return nil, nil, err
	}
	defer s.end()

	if s.model.Duration != nil {
		t := time.NewTimer(s.model.Duration(in))
		defer t.Stop()

		select {
		case <-t.C:
		case <-ctx.Done():
			return nil, nil, fmt.Errorf("run fake: %w", ctx.Err())
		}
	}

	all, err := s.compute(in)
	if err != nil {
		return nil, nil, err
	}

	out, err := pick(all, outputs)
	if err != nil {
		return nil, nil, err
	}

	s.mu.Lock()
	s.unfreed++
	s.mu.Unlock()

	return out, sync.OnceFunc(func() { s.free(out) }), nil
}

func (s *Session) begin(in []engine.Tensor) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.closed {
		panic("BUG: Run of a closed session")
	}

	if len(in) != len(s.model.Inputs) {
		return fmt.Errorf("%d inputs for %d", len(in), len(s.model.Inputs))
	}

	rows := int64(0)

	for i := range in {
		if in[i].Type != s.model.Inputs[i].Type {
			return fmt.Errorf("input %d is %v", i, in[i].Type)
		}

		if len(in[i].Shape) > 0 {
			rows = in[i].Shape[0]
		}
	}

	s.runs = append(s.runs, rows)
	s.running++
	s.most = max(s.most, s.running)

	return nil
}

func (s *Session) end() {
	s.mu.Lock()
	defer s.mu.Unlock()

	s.running--
}

// free poisons the outputs, so that a reader after release is found out.
func (s *Session) free(out []engine.Tensor) {
	for i := range out {
		for j := range out[i].Data {
			out[i].Data[j] = 0xCC
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	s.unfreed--
}

func (s *Session) compute(in []engine.Tensor) ([]engine.Tensor, error) {
	if s.model.Compute != nil {
		return s.model.Compute(in)
	}

	out := make([]engine.Tensor, len(s.model.Outputs))
	for i := range out {
		out[i] = engine.Tensor{
			Name: s.model.Outputs[i].Name, Type: in[i].Type,
			Shape: slices.Clone(in[i].Shape), Data: bytes.Clone(in[i].Data),
		}
	}

	return out, nil
}

func pick(all []engine.Tensor, names []string) ([]engine.Tensor, error) {
	if len(names) == 0 {
		return all, nil
	}

	var out []engine.Tensor

	for _, n := range names {
		i := slices.IndexFunc(all, func(t engine.Tensor) bool { return t.Name == n })
		if i < 0 {
			return nil, fmt.Errorf("no output %q", n)
		}

		out = append(out, all[i])
	}

	return out, nil
}

// Close implements engine.Session.
func (s *Session) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()

	switch {
	case s.closed:
		panic("BUG: second Close")
	case s.running > 0:
		panic("BUG: Close during Run")
	}

	s.closed = true

	return nil
}

// Runs lists the first dimension of every run.
func (s *Session) Runs() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()

	return slices.Clone(s.runs)
}

// Closed tells whether Close was called.
func (s *Session) Closed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.closed
}

// MostAtOnce is the greatest number of concurrent runs.
func (s *Session) MostAtOnce() int {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.most
}

// Unreleased is the number of runs whose outputs were not released.
func (s *Session) Unreleased() int {
	s.mu.Lock()
	defer s.mu.Unlock()

	return s.unfreed
}
