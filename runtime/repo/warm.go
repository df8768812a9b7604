package repo

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// warmBudget bounds what one warm-up size chosen by us may be expected to take.
const warmBudget = 2 * time.Second

// warmer runs a fresh session with made-up inputs.
type warmer struct {
	repo   *Repo
	src    Source
	pack   *pack
	sess   engine.Session
	size   int  // rows in a batch; 1: not batched
	ours   bool // size is our choice
	asked  bool // the package says how to warm up
	shapes [][]int64
}

// warmed decides on batching, warms the session up and puts a batcher before it.
func (r *Repo) warmed(ctx context.Context, src Source, p *pack, sess engine.Session) (*loaded, error) {
	w := &warmer{repo: r, src: src, pack: p, sess: sess}

	if err := w.batching(); err != nil {
		return nil, err
	}

	if err := w.makeShapes(); err != nil {
		return nil, err
	}

	warm := p.config.Serving.Warmup
	off := warm != nil && warm.Disabled

	if !off {
		if err := w.checkRows(ctx); err != nil {
			return nil, err
		}
	}

	instances := r.instances(p)

	b, err := batch.New(batchConfig(src, p, w.size, instances), sess, r.batchHooks(src))
	if err != nil {
		return nil, fault.Wrap(fault.ModelInvalid, err, "serving.batching is not usable: %v", err)
	}

	if !off {
		if err := w.warm(ctx, b, instances); err != nil {
			return nil, err
		}
	}

	meta := metaOf(src, p, sess)
	meta.Executors = instances

	if w.size > 1 {
		meta.Batchable, meta.MaxBatchSize = true, w.size
	}

	return newLoaded(meta, sess, b), nil
}

func metaOf(src Source, p *pack, sess engine.Session) *Meta {
	m := &Meta{
		Name: src.Name, Version: src.Version, Inputs: sess.Inputs(), Outputs: sess.Outputs(),
		Config: p.config, Labels: p.labels, Dir: p.dir, File: p.model, Platform: "onnxruntime_onnx", Provider: sess.Provider(),
		LoadedAt: time.Now(),
	}

	if accelerated(m.Provider) {
		m.GPUs = []int{0}
		if e := p.config.Serving.Execution; e != nil {
			m.GPUs[0] = e.DeviceID
		}
	}

	return m
}

func (r *Repo) batchHooks(src Source) batch.Hooks {
	if r.hooks.Batch == nil {
		return batch.Hooks{}
	}

	return r.hooks.Batch(src.Name, src.Version)
}

// batching derives the batch size from the package and the model's shapes.
func (w *warmer) batching() error {
	reason := unbatchable(w.sess.Inputs(), w.sess.Outputs())
	asked := w.pack.config.Serving.MaxBatchSize

	switch {
	case asked == 0 && reason == "":
		w.size, w.ours = defaultMaxBatch, true
		if b := w.pack.config.Serving.Batching; b != nil && len(b.PreferredBatchSizes) > 0 {
			w.size = max(w.size, slices.Max(b.PreferredBatchSizes))
		}
	case asked <= 1:
		w.size = 1
	case reason != "":
		return fault.New(fault.ModelInvalid, "serving.max_batch_size is %d, but the model cannot be batched: %s", asked, reason)
	default:
		w.size = asked
	}

	return nil
}

// unbatchable tells why a model has no batch dimension, or "".
func unbatchable(inputs, outputs []engine.Info) string {
	if len(inputs) == 0 {
		return "it has no inputs."
	}

	name := func(i engine.Info) string {
		if len(i.Names) > 0 {
			return i.Names[0]
		}

		return ""
	}

	for _, in := range inputs {
		switch {
		case len(in.Shape) == 0:
			return fmt.Sprintf("input %q is a scalar.", in.Name)
		case in.Shape[0] >= 0:
			return fmt.Sprintf("the first dimension of input %q is fixed to %d.", in.Name, in.Shape[0])
		case name(in) != name(inputs[0]):
			return fmt.Sprintf("the first dimensions of inputs %q and %q are different.", inputs[0].Name, in.Name)
		}
	}

	for _, out := range outputs {
		if len(out.Shape) > 0 && out.Shape[0] >= 0 {
			return fmt.Sprintf("the first dimension of output %q is fixed to %d.", out.Name, out.Shape[0])
		}
	}

	return ""
}

// makeShapes fixes the shape of one row (or, without batching, of everything) of each input.
func (w *warmer) makeShapes() error {
	given := map[string][]int64{}
	if wu := w.pack.config.Serving.Warmup; wu != nil {
		given, w.asked = wu.Shapes, len(wu.Shapes)+len(wu.BatchSizes) > 0
	}

	for _, in := range w.sess.Inputs() {
		dims := slices.Clone(in.Shape)
		if w.size > 1 {
			dims = dims[1:]
		}

		values, ok := given[in.Name]
		if w.size > 1 && len(values) == len(in.Shape) && len(values) > 1 {
			values = values[1:] // with the batch in front
		}

		if ok && !fillDims(dims, values) {
			return fault.New(fault.ModelInvalid, "serving.warmup.shapes has %v for input %q, whose shape is %v.", values, in.Name, in.Shape)
		}

		for i, d := range dims {
			if d < 0 {
				dims[i] = 1
			}
		}

		w.shapes = append(w.shapes, dims)
	}

	for name := range given {
		if !slices.ContainsFunc(w.sess.Inputs(), func(i engine.Info) bool { return i.Name == name }) {
			return fault.New(fault.ModelInvalid, "serving.warmup.shapes names %q, which is no input of the model.", name)
		}
	}

	return nil
}

// fillDims puts values into dims: one for each open dimension, or all of them.
func fillDims(dims, values []int64) bool {
	open := 0

	for _, d := range dims {
		if d < 0 {
			open++
		}
	}

	switch len(values) {
	case len(dims):
		for i, v := range values {
			if dims[i] >= 0 && dims[i] != v {
				return false
			}
		}

		copy(dims, values)
	case open:
		for i := range dims {
			if dims[i] < 0 {
				dims[i], values = values[0], values[1:]
			}
		}
	default:
		return false
	}

	return true
}

// inputs makes rows rows, beginning with row number first; equal numbers give equal rows.
func (w *warmer) inputs(rows, first int) []engine.Tensor {
	infos := w.sess.Inputs()
	in := make([]engine.Tensor, len(infos))

	for k, info := range infos {
		shape := w.shapes[k]
		n := int(engine.Elements(shape))
		t := engine.Tensor{Name: info.Name, Type: info.Type, Shape: slices.Clone(shape)}

		if w.size > 1 {
			t.Shape = append([]int64{int64(rows)}, shape...)
		} else {
			rows = 1
		}

		for r := range rows {
			t.Data = appendRow(t.Data, info.Type, n, uint64(first+r)<<32|uint64(k))
		}

		in[k] = t
	}

	return in
}

// warm runs the sizes that requests will have, on every executor, and teaches b what they take.
func (w *warmer) warm(ctx context.Context, b *batch.Batcher, instances int) error {
	sizes, chosen := w.sizes()
	perRow := time.Duration(0)

	for _, n := range sizes {
		if !chosen && time.Duration(n)*perRow > warmBudget {
			w.repo.log.Info("warm-up of larger batches left out", slog.Any("model", w.src.Name), slog.Any("size", n), slog.Any("per_row", perRow))

			break
		}

		in := w.inputs(n, 0)
		cost := int64(0)

		for i := range in {
			cost += int64(len(in[i].Data))
		}

		for range 2 { // the first run of a size allocates
			took, err := w.everywhere(ctx, in, instances)
			if err != nil {
				return w.judge(ctx, err, n)
			}

			perRow = took / time.Duration(n)

			if took > warmBudget {
				break
			}
		}

		b.Teach(cost, perRow*time.Duration(n))
	}

	return nil
}

// sizes to run; chosen tells whether the package says so.
func (w *warmer) sizes() (sizes []int, chosen bool) {
	s := w.pack.config.Serving
	if s.Warmup != nil && len(s.Warmup.BatchSizes) > 0 {
		for _, n := range s.Warmup.BatchSizes {
			sizes = append(sizes, min(n, w.size))
		}

		return sizes, true
	}

	sizes = []int{1}

	if s.Batching != nil {
		if s.Batching.PadToBuckets {
			for n := 2; n < w.size; n *= 2 {
				sizes = append(sizes, n)
			}
		}

		sizes = append(sizes, s.Batching.PreferredBatchSizes...)
	}

	sizes = append(sizes, w.size)
	slices.Sort(sizes)

	return slices.Compact(sizes), false
}

// everywhere runs in on as many executors as there will be, at once.
func (w *warmer) everywhere(ctx context.Context, in []engine.Tensor, instances int) (time.Duration, error) {
	g, ctx := errgroup.WithContext(ctx)
	start := time.Now()

	for range instances {
		g.Go(func() error {
			_, release, err := w.sess.Run(ctx, in, nil)
			if err == nil {
				release()
			}

			return err //nolint:wrapcheck // judged by the caller
		})
	}

	err := g.Wait()

	return time.Since(start), err //nolint:wrapcheck // judged by the caller
}

// judge says whether a failed warm-up run means that the model is unusable. Made-up inputs
// prove little: a model may want sizes or scales that make sense.
func (w *warmer) judge(ctx context.Context, err error, rows int) error {
	f := fault.From(err)

	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("warm up: %w", err)
	case f.Code != fault.BadTensor || w.asked:
		return fault.Wrap(fault.ModelInvalid, err,
			"The model does not run with a batch of %d: %s (serving.warmup.disabled loads it all the same)", rows, f.Message())
	default:
		w.repo.log.Warn("warm-up left out: the model does not run on made-up inputs; serving.warmup.shapes may help", slog.Any("model", w.src.Name), slog.Any("version", w.src.Version), slog.Any("reason", f.Message()))

		return nil
	}
}

// checkRows makes sure that a batch gives every row what it would get alone. Where batching is
// our idea, a model that fails goes without; where the package asks for it, a batch that
// cannot be taken apart is an error.
func (w *warmer) checkRows(ctx context.Context) error {
	if w.size == 1 {
		return nil
	}

	var alone [2][]engine.Tensor

	for i := range alone {
		out, release, err := w.sess.Run(ctx, w.inputs(1, i), nil)
		if err != nil {
			return w.judge(ctx, err, 1)
		}
		defer release()

		alone[i] = out
	}

	both, release, err := w.sess.Run(ctx, w.inputs(2, 0), nil)
	if err == nil {
		defer release()
	}

	var why string
	if err != nil {
		why = fault.From(err).Message()
	} else {
		why = differs(alone, both)
	}

	switch {
	case ctx.Err() != nil:
		return fmt.Errorf("check batching: %w", ctx.Err())
	case why == "":
		return nil
	case w.ours:
		w.repo.log.Warn("not batched: rows do not stand for themselves", slog.Any("model", w.src.Name), slog.Any("version", w.src.Version), slog.Any("reason", why))
		w.size = 1

		return w.makeShapesAgain()
	case err != nil || !splits(both):
		return fault.New(fault.ModelInvalid, "serving.max_batch_size is %d, but the model does not take a batch of 2: %s",
			w.size, cmp.Or(why, "an output lacks the batch dimension"))
	default:
		w.repo.log.Warn("rows of a batch influence each other", slog.Any("model", w.src.Name), slog.Any("version", w.src.Version), slog.Any("reason", why))

		return nil
	}
}

func (w *warmer) makeShapesAgain() error {
	w.shapes = nil

	err := w.makeShapes()
	// The shapes of the package were meant for one row; the batch is 1 now.
	if err != nil {
		w.pack.config.Serving.Warmup.Shapes = nil

		return w.makeShapes()
	}

	return nil
}

func splits(out []engine.Tensor) bool {
	return !slices.ContainsFunc(out, func(t engine.Tensor) bool { return len(t.Shape) == 0 || t.Shape[0] != 2 })
}

// differs compares two single rows with a batch of both, and tells the first difference.
func differs(alone [2][]engine.Tensor, both []engine.Tensor) string {
	if !splits(both) {
		return "an output does not have the batch in its first dimension"
	}

	for k := range both {
		a, b := alone[0][k], alone[1][k]
		if !slices.Equal(a.Shape[1:], both[k].Shape[1:]) || !slices.Equal(a.Shape, b.Shape) {
			return fmt.Sprintf("output %q has another shape in a batch", both[k].Name)
		}

		if !sameValues(both[k].Type, slices.Concat(a.Data, b.Data), both[k].Data) {
			return fmt.Sprintf("output %q is another in a batch", both[k].Name)
		}
	}

	return ""
}
