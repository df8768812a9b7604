package ort

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"

	ortgo "github.com/yalue/onnxruntime_go"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// boundSession is one loaded model that the binding runs.
type boundSession struct {
	e        *Engine
	provider string
	face     face
	layout   *layout
	ort      *ortgo.DynamicAdvancedSession

	mu     sync.Mutex // guards closed and idle
	closed bool
	idle   []*ortgo.RunOptions
	// running counts runs.
	running sync.WaitGroup
}

var _ engine.Session = (*boundSession)(nil)

// face is what a model shows: the inputs, and the outputs that can be sent.
type face struct {
	inputs, outputs []engine.Info
}

// bindable reports whether the binding carries every value of the model unharmed. It returns
// half of a 16-bit float output, cuts strings at a zero byte, cannot take an output without
// dimensions, and cannot run a model that has no inputs.
func (f *face) bindable() bool {
	for _, in := range f.inputs {
		if narrow(in.Type) {
			return false
		}
	}

	for _, out := range f.outputs {
		if narrow(out.Type) || len(out.Shape) == 0 {
			return false
		}
	}

	return len(f.inputs) > 0
}

// narrow reports whether the binding has no Go type for t.
func narrow(t engine.DataType) bool {
	return t == engine.FP16 || t == engine.BF16 || t == engine.Bytes
}

// look asks the binding what the model at file takes and gives. For that the binding loads the
// model and lets go of it again; nothing is optimised, packed or brought to a device for it.
func (e *Engine) look(spec engine.LoadSpec, p provider, file string, h *head) (*face, error) {
	inputs, outputs, err := e.glance(spec, p, file)
	if err != nil {
		return nil, err
	}

	f := &face{}

	for i := range inputs {
		info, ok := describe(&inputs[i], h)
		if !ok {
			return nil, inputRefused(inputs[i].Name, int(inputs[i].OrtValueType), len(inputs[i].Dimensions))
		}

		f.inputs = append(f.inputs, info)
	}

	var skipped []string

	for i := range outputs {
		info, ok := describe(&outputs[i], h)
		if ok {
			f.outputs = append(f.outputs, info)

			continue
		}

		skipped = append(skipped, fmt.Sprintf("%s (%s)", outputs[i].Name, kindName(int(outputs[i].OrtValueType), len(outputs[i].Dimensions))))
	}

	return f, e.leaveOut(f.outputs, skipped)
}

// glance loads the model as cheaply as possible, and as it will be run if that fails: some
// models have nodes that only an optimised graph or a provider can do without.
func (e *Engine) glance(spec engine.LoadSpec, p provider, file string) (in, out []ortgo.InputOutputInfo, err error) {
	o, err := plainOptions()
	if err != nil {
		return nil, nil, err
	}

	in, out, err = ortgo.GetInputOutputInfoWithOptions(file, o)
	if err = join(err, o.Destroy()); err == nil {
		return in, out, nil
	}

	if o, err = e.boundOptions(spec, p, file, ""); err != nil {
		return nil, nil, err
	}

	in, out, err = ortgo.GetInputOutputInfoWithOptions(file, o)
	if err = join(err, o.Destroy()); err != nil {
		return nil, nil, notLoaded(spec, p, file, said(err))
	}

	return in, out, nil
}

// join gives the first of two errors of the binding.
func join(first, second error) error {
	if first != nil {
		return first //nolint:wrapcheck // read with said
	}

	return second //nolint:wrapcheck // read with said
}

func describe(i *ortgo.InputOutputInfo, h *head) (engine.Info, bool) {
	rank := len(i.Dimensions)
	if !carried(int(i.OrtValueType), rank, int(i.DataType)) {
		return engine.Info{}, false
	}

	info := engine.Info{Name: i.Name, Type: dataType(int(i.DataType)), Shape: make([]int64, rank)}
	for j, d := range i.Dimensions {
		info.Shape[j] = max(-1, d)
	}

	info.Names = h.symbols(i.Name, rank)

	return info, true
}

// openBound creates a session that the binding runs.
func (e *Engine) openBound(spec engine.LoadSpec, p provider, f *face, file, save string) (*boundSession, error) {
	o, err := e.boundOptions(spec, p, file, save)
	if err != nil {
		return nil, err
	}

	names := func(infos []engine.Info) []string {
		out := make([]string, len(infos))
		for i := range infos {
			out[i] = infos[i].Name
		}

		return out
	}

	s, err := ortgo.NewDynamicAdvancedSession(file, names(f.inputs), names(f.outputs), o)
	if err = join(err, o.Destroy()); err != nil {
		trim()

		return nil, notLoaded(spec, p, file, said(err))
	}

	return &boundSession{e: e, provider: p.name, face: *f, layout: newLayout(f), ort: s}, nil
}

// Inputs implements engine.Session.
func (s *boundSession) Inputs() []engine.Info { return s.face.inputs }

// Outputs implements engine.Session; outputs that are not tensors are left out.
func (s *boundSession) Outputs() []engine.Info { return s.face.outputs }

// Provider implements engine.Session.
func (s *boundSession) Provider() string { return s.provider }

// Close implements engine.Session. It waits for runs, then gives the memory back to the system.
func (s *boundSession) Close() error {
	s.mu.Lock()
	again := s.closed
	s.closed = true
	s.mu.Unlock()

	if again {
		return nil
	}

	s.running.Wait()

	var err error

	for _, o := range s.idle {
		err = join(err, o.Destroy())
	}

	s.idle = nil

	err = join(err, apart(func() error {
		defer trim()

		return s.ort.Destroy() //nolint:wrapcheck // wrapped below
	}))
	if err != nil {
		return fmt.Errorf("close session: %w", err)
	}

	return nil
}

// take counts a run and gives it options of its own, by which it can be terminated.
func (s *boundSession) take() (*ortgo.RunOptions, error) {
	s.mu.Lock()
	defer s.mu.Unlock()

	if s.closed {
		return nil, errClosed
	}

	if n := len(s.idle); n > 0 {
		o := s.idle[n-1]
		s.idle = s.idle[:n-1]

		s.running.Add(1)

		return o, nil
	}

	o, err := ortgo.NewRunOptions()
	if err != nil {
		return nil, fmt.Errorf("prepare run: %s", said(err))
	}

	s.running.Add(1)

	return o, nil
}

func (s *boundSession) give(o *ortgo.RunOptions) {
	defer s.running.Done()

	s.mu.Lock()
	keep := len(s.idle) < idleRuns
	if keep {
		s.idle = append(s.idle, o)
	}
	s.mu.Unlock()

	if keep {
		return
	}

	if err := o.Destroy(); err != nil {
		s.e.log.Warn("run options not freed", slog.Any("error", err))
	}
}

// Run implements engine.Session.
func (s *boundSession) Run(ctx context.Context, in []engine.Tensor, outputs []string) ([]engine.Tensor, func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, fmt.Errorf("run model: %w", err)
	}

	chosen, err := choose(s.face.outputs, outputs)
	if err != nil {
		return nil, nil, err
	}

	options, err := s.take()
	if err != nil {
		return nil, nil, err
	}
	defer s.give(options)

	var held inputs
	defer held.free()

	if err := held.fill(s.face.inputs, in); err != nil {
		return nil, nil, err
	}

	p := s.layout.plan(in, &held)
	defer func() { destroy(p.values) }()

	if err := s.exec(ctx, options, held.values, p); err != nil {
		s.layout.drop(p)

		return nil, nil, err
	}

	if !p.some {
		s.layout.learn(in, p.values)
	}

	out := make([]engine.Tensor, len(chosen))

	for i, j := range chosen {
		if out[i], err = s.layout.tensor(p, j); err != nil {
			s.layout.drop(p)

			return nil, nil, err
		}
	}

	if !p.some {
		return out, func() {}, nil
	}

	return out, sync.OnceFunc(func() { s.layout.free(p) }), nil
}

// exec runs the model. When an output turns out to have another shape than was laid out for it, the
// model is run again, and the session lays out nothing any more.
func (s *boundSession) exec(ctx context.Context, o *ortgo.RunOptions, in []ortgo.Value, p *plan) error {
	err := s.once(ctx, o, in, p.values)
	if err != nil && p.some && ctx.Err() == nil && mistaken(err.Error()) {
		s.layout.off.Store(true)
		s.layout.drop(p)

		err = s.once(ctx, o, in, p.values)
	}

	switch {
	case err == nil:
		return nil
	case strings.HasPrefix(err.Error(), "Error running network"):
		return runError(ctx, said(err))
	default: // the model ran, and an output is not what the model says of it
		return fault.Wrap(fault.BackendFailed, err, "An output of the model does not have the shape or type that the model declares: %s", said(err))
	}
}

// once runs the model; when ctx ends the run is terminated.
func (s *boundSession) once(ctx context.Context, o *ortgo.RunOptions, in, out []ortgo.Value) error {
	finish := watch(ctx, func(on bool) {
		set := o.UnsetTerminate
		if on {
			set = o.Terminate
		}

		if err := set(); err != nil {
			s.e.log.Warn("run not terminated", slog.Any("error", err))
		}
	})
	defer finish()

	return s.ort.RunWithOptions(in, out, o) //nolint:wrapcheck // judged by the caller
}
