package batch

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// keepBuffer bounds the memory that an executor keeps per input between batches.
const keepBuffer = 32 << 20

// executor runs one batch after the other in its own goroutine and memory.
type executor struct {
	b       *Batcher
	id      int
	buffers [][]byte // one for each input
	starts  [][]int  // where each item begins in the buffer, and the end
	shapes  []int64
	release []*Result // scratch of finish, as answer
	answer  []*item
}

func newExecutor(b *Batcher, id int) *executor {
	return &executor{b: b, id: id, buffers: make([][]byte, len(b.inputs)), starts: make([][]int, len(b.inputs))}
}

func (x *executor) loop(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case w := <-x.b.ready:
			for w != nil {
				w = x.execute(ctx, w)
			}
		}
	}
}

// outcome is what became of a batch, by item.
type outcome struct {
	outputs []string   // wanted from the engine; nil means all
	each    [][]string // wanted by each item, when they differ
	results []Result
	errs    []error
	in      time.Duration
	run     time.Duration
	out     time.Duration
	split   bool
}

// execute runs w, answers its items and gives the next batch, if one is due.
func (x *executor) execute(parent context.Context, w *work) *work {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()

	x.begin(w, cancel)

	start := time.Now()
	in := x.gather(w)
	direct := in == nil

	if direct {
		in = w.items[0].req.Inputs
	}

	o := outcome{results: make([]Result, len(w.items)), errs: make([]error, len(w.items)), in: time.Since(start)}
	o.outputs, o.each = wanted(w.items)

	if !direct {
		x.freeInputs(w)
	}

	x.copied(w)
	x.runRange(ctx, w, span{in: in, to: len(w.items), rows: w.padded}, &o)

	if direct {
		x.freeInputs(w)
	}

	x.shrink()

	return x.finish(w, &o, start)
}

func (x *executor) begin(w *work, cancel context.CancelFunc) {
	b := x.b

	b.mu.Lock()
	w.cancel = cancel
	if w.alive == 0 {
		cancel()
	}
	b.mu.Unlock()

	if b.hooks.Cut != nil {
		b.hooks.Cut(w.reason, len(w.items), w.rows)
	}

	if b.hooks.Started != nil {
		for _, it := range w.items {
			b.hooks.Started(it.rows, w.waited(it))
		}
	}
}

// copied tells that the items' own inputs are not read any more, unless they were handed over.
func (x *executor) copied(w *work) {
	x.b.mu.Lock()
	w.copying = false

	for _, it := range w.items {
		if it.gone && !it.owned {
			x.b.answer(it)
		}
	}
	x.b.mu.Unlock()
}

func (x *executor) freeInputs(w *work) {
	for _, it := range w.items {
		if it.owned {
			it.req.Free()
		}
	}
}

// gather puts the items' rows one after the other and pads them. It gives nil when the
// only item can be run from its own memory.
func (x *executor) gather(w *work) (in []engine.Tensor) {
	if len(w.items) == 1 && w.items[0].owned && w.padded == w.rows {
		return nil
	}

	in = make([]engine.Tensor, len(x.b.inputs))
	x.shapes = x.shapes[:0]

	for k := range in {
		first := &w.items[0].req.Inputs[k]
		size := 0

		for _, it := range w.items {
			size += len(it.req.Inputs[k].Data)
		}

		buf := x.buffers[k][:0]
		starts := x.starts[k][:0]
		buf = slices.Grow(buf, size)

		for _, it := range w.items {
			starts = append(starts, len(buf))
			buf = append(buf, it.req.Inputs[k].Data...)
		}

		starts = append(starts, len(buf))

		if w.padded > w.rows {
			row := lastRow(w.items[len(w.items)-1].req.Inputs[k])
			for range w.padded - w.rows {
				buf = append(buf, row...)
			}
		}

		x.buffers[k], x.starts[k] = buf, starts
		in[k] = engine.Tensor{Name: x.b.inputs[k].Name, Type: first.Type, Shape: x.shape(first.Shape, w.padded), Data: buf}
	}

	return in
}

// shape copies s with rows as its first dimension, or as it is when requests run alone.
func (x *executor) shape(s []int64, rows int) []int64 {
	start := len(x.shapes)
	x.shapes = append(x.shapes, s...)
	out := x.shapes[start:len(x.shapes):len(x.shapes)]

	if x.b.cfg.MaxBatchSize > 1 {
		out[0] = int64(rows)
	}

	return out
}

func lastRow(t engine.Tensor) []byte {
	rows := t.Shape[0]
	if t.Type != engine.Bytes {
		return t.Data[len(t.Data)-len(t.Data)/int(rows):]
	}

	return t.Data[skipBytes(t.Data, (rows-1)*engine.Elements(t.Shape[1:])):]
}

func (x *executor) shrink() {
	for k, buf := range x.buffers {
		if cap(buf) > keepBuffer {
			x.buffers[k] = nil
		}
	}
}

// span is a run of neighbouring items of a batch: [from, to) with their rows gathered in in.
type span struct {
	in       []engine.Tensor
	from, to int
	rows     int // with padding
}

var errNotBatched = errors.New("an output does not have the batch in its first dimension")

// runRange runs a span; when a batch fails it is halved until the culprits stand alone.
func (x *executor) runRange(ctx context.Context, w *work, s span, o *outcome) {
	items := w.items[s.from:s.to]

	start := time.Now()
	out, release, err := x.b.sess.Run(ctx, s.in, o.outputs)
	o.run += time.Since(start)

	if err == nil {
		start = time.Now()
		err = x.scatter(w, s, out, release, o)
		o.out += time.Since(start)
	}

	if err == nil {
		return
	}

	if errors.Is(err, errNotBatched) {
		x.b.runAlone()
	}

	if len(items) == 1 && s.rows > items[0].rows && ctx.Err() == nil {
		x.runRange(ctx, w, x.part(w, s.in, s.from, s.to), o)

		return
	}

	if len(items) == 1 || ctx.Err() != nil {
		for i := s.from; i < s.to; i++ {
			o.errs[i] = err
		}

		return
	}

	o.split = true
	middle := (s.from + s.to) / 2
	x.runRange(ctx, w, x.part(w, s.in, s.from, middle), o)
	x.runRange(ctx, w, x.part(w, s.in, middle, s.to), o)
}

// part is a piece, without padding, of what gather laid out.
func (x *executor) part(w *work, all []engine.Tensor, from, to int) span {
	s := span{in: make([]engine.Tensor, len(x.b.inputs)), from: from, to: to}
	for _, it := range w.items[from:to] {
		s.rows += it.rows
	}

	for k := range s.in {
		s.in[k] = all[k]
		s.in[k].Shape = x.shape(all[k].Shape, s.rows)
		s.in[k].Data = x.buffers[k][x.starts[k][from]:x.starts[k][to]]
	}

	return s
}

// wanted copies the outputs that all items agree on, or gives all and what each wants.
func wanted(items []*item) (names []string, each [][]string) {
	names = items[0].req.Outputs
	for _, it := range items[1:] {
		if slices.Equal(names, it.req.Outputs) {
			continue
		}

		each = make([][]string, len(items))
		for i := range items {
			each[i] = slices.Clone(items[i].req.Outputs)
		}

		return nil, each
	}

	return slices.Clone(names), nil
}

// scatter cuts the outputs of a run into the results of its items.
func (x *executor) scatter(w *work, s span, out []engine.Tensor, release func(), o *outcome) error {
	items := w.items[s.from:s.to]
	whole := len(items) == 1 && s.rows == items[0].rows
	mem := &memory{release: release}
	mem.refs.Store(int32(len(items)) + 1)

	defer mem.done()

	if !whole {
		for i := range out {
			if len(out[i].Shape) == 0 || out[i].Shape[0] != int64(s.rows) {
				mem.refs.Store(1)

				return errNotBatched
			}
		}
	}

	at := 0

	for i, it := range items {
		r := &o.results[s.from+i]
		r.memory = mem

		if whole {
			r.Outputs = out
		} else {
			r.Outputs = rowsOf(out, s.rows, at, it.rows)
		}

		if o.each != nil && len(o.each[s.from+i]) > 0 {
			names := o.each[s.from+i]
			if r.Outputs = choose(r.Outputs, names); len(r.Outputs) != len(names) {
				o.errs[s.from+i] = fault.New(fault.BadTensor, "Model %q does not have all of the outputs %q.", x.b.cfg.Name, names)
			}
		}

		at += it.rows
	}

	return nil
}

// rowsOf gives rows [at, at+n) of each tensor of out, which has total rows.
func rowsOf(out []engine.Tensor, total, at, n int) []engine.Tensor {
	part := make([]engine.Tensor, len(out))
	shapes := 0

	for k := range out {
		shapes += len(out[k].Shape)
	}

	shape := make([]int64, 0, shapes)

	for k := range out {
		t := &out[k]
		start := len(shape)
		shape = append(shape, t.Shape...)
		own := shape[start:len(shape):len(shape)]
		own[0] = int64(n)

		var from, to int

		if t.Type == engine.Bytes {
			row := engine.Elements(t.Shape[1:])
			from = skipBytes(t.Data, int64(at)*row)
			to = from + skipBytes(t.Data[from:], int64(n)*row)
		} else {
			size := len(t.Data) / total
			from, to = at*size, (at+n)*size
		}

		part[k] = engine.Tensor{Name: t.Name, Type: t.Type, Shape: own, Data: t.Data[from:to:to]}
	}

	return part
}

func choose(out []engine.Tensor, names []string) []engine.Tensor {
	chosen := make([]engine.Tensor, 0, len(names))

	for _, name := range names {
		if i := slices.IndexFunc(out, func(t engine.Tensor) bool { return t.Name == name }); i >= 0 {
			chosen = append(chosen, out[i])
		}
	}

	return chosen
}

// finish answers the items and cuts the next batch for this executor.
func (x *executor) finish(w *work, o *outcome, start time.Time) *work {
	b := x.b
	now := time.Now()
	info := Info{
		BatchRows: w.rows, BatchRequests: len(w.items), Reason: w.reason,
		CopyIn: o.in, Run: o.run, CopyOut: o.out, Executor: x.id,
	}

	release, answer := x.release[:0], x.answer[:0]

	b.mu.Lock()
	b.active = slices.DeleteFunc(b.active, func(a *work) bool { return a == w })
	good := 0

	for i, it := range w.items {
		r := &o.results[i]
		r.Info = info
		r.Info.Rows = it.rows
		r.Info.Queue = w.waited(it)

		if r.memory != nil && (it.stage != running || o.errs[i] != nil) {
			release = append(release, r)
		}

		if it.stage != running {
			o.errs[i] = it.err

			continue
		}

		answer = append(answer, it)

		if o.errs[i] != nil {
			b.decide(it, nil, b.runFault(o.errs[i]))

			continue
		}

		good += it.rows
		b.stats.success(&r.Info, now.Sub(it.enqueued))
		b.decide(it, r, nil)
	}

	if good > 0 {
		b.stats.batch(&info, good, now)
	}

	if good == w.rows && !o.split {
		b.guess.observe(w.cost, now.Sub(start))
	}

	next := b.nextFor(now)
	b.mu.Unlock()

	b.deliver(answer)

	for _, r := range release {
		r.Release()
	}

	clear(release)
	clear(answer)

	x.release, x.answer = release, answer

	if b.hooks.Finished != nil {
		for i := range w.items {
			b.hooks.Finished(o.results[i].Info, o.errs[i])
		}
	}

	return next
}

// nextFor gives a finished executor its next batch or makes it idle. Caller holds mu.
func (b *Batcher) nextFor(now time.Time) *work {
	if b.stopped {
		return nil
	}

	w := b.form(now)
	if w == nil {
		b.idle++
	}

	return w
}

// runFault is what a caller that still waits is told about a failed run.
func (b *Batcher) runFault(err error) error {
	if errors.Is(err, context.Canceled) {
		return fault.Wrap(fault.ShuttingDown, err, "Model %q is being unloaded.", b.cfg.Name)
	}

	return err
}

// runAlone stops batching for good: the model does not keep rows apart.
func (b *Batcher) runAlone() {
	b.mu.Lock()
	b.policy.Single = true
	b.mu.Unlock()
}
