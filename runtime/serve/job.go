package serve

import (
	"context"
	"time"

	"github.com/sluice-gateway/sluice/runtime/codec/openinference"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Job is an inference that comes through a door with an encoding of its own.
type Job struct {
	Model, Version string
	// Deadline of the whole; zero means none.
	Deadline time.Time
	// Decode fills r for m. What its tensors alias must stay untouched for good.
	Decode func(m *openinference.Model, r *openinference.Request) error
	// Encode takes the outputs, which are valid until it returns.
	Encode func(m *openinference.Model, r *openinference.Request, outs []engine.Tensor) error
}

// Infer runs a job. Errors are faults.
func (a *App) Infer(ctx context.Context, j *Job) error {
	m, err := a.Acquire(j.Model, j.Version)
	if err != nil {
		return err
	}

	c := a.call()
	c.model = m

	defer c.finish()

	cm := a.cache.get(m.Meta())
	if cm.err != nil {
		return cm.err
	}

	if err := j.Decode(cm.v2, &c.v2); err != nil {
		return err
	}

	if err := a.pictures(ctx, c, cm); err != nil {
		return err
	}

	c.prepare(cm.v2.Meta, j.Deadline)

	res, err := c.infer(ctx)
	if err != nil {
		return err
	}
	defer res.Release()

	return j.Encode(cm.v2, &c.v2, res.Outputs)
}

// Models are the models that the App serves.
func (a *App) Models() Models { return a.models }

// State is what the worker is doing.
func (a *App) State() *State { return a.state }

// Release is the version told in server metadata.
func (a *App) Release() string { return a.cfg.Release }
