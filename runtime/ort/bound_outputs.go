package ort

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	ortgo "github.com/yalue/onnxruntime_go"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

const (
	// maxPlanned bounds the memory laid out for one output before a run.
	maxPlanned = 1 << 30
	// maxSeen bounds the input shapes of which the output shapes are remembered.
	maxSeen = 256
	// keepPlanned bounds the memory that a session keeps for the outputs of later runs.
	keepPlanned = 64 << 20
)

// layout knows the shapes that outputs will have, so that a model writes them straight into
// memory that can be sent. The binding copies every output whose memory it was not given.
type layout struct {
	outputs []engine.Info
	// from tells for each dimension of each output where its size comes from.
	from [][]origin
	// declared tells that the model's declaration fixes all shapes, given those of the inputs.
	declared bool
	// off is set when a model had an output of another shape than expected: its shapes depend on
	// values, or are not what the model says.
	off  atomic.Bool
	idle buffers

	mu   sync.Mutex // guards seen
	seen map[string][][]int64
}

// origin of a dimension: a number, a dimension of an input, or not known.
type origin struct {
	fixed     bool
	size      int64
	same      bool
	input, at int
}

func newLayout(f *face) *layout {
	l := &layout{outputs: f.outputs, declared: true, seen: map[string][][]int64{}}

	for _, out := range f.outputs {
		dims := make([]origin, len(out.Shape))

		for j, size := range out.Shape {
			switch {
			case size >= 0:
				dims[j] = origin{size: size, fixed: true}
			case j < len(out.Names) && out.Names[j] != "":
				dims[j] = named(f.inputs, out.Names[j])
			}

			l.declared = l.declared && (dims[j].fixed || dims[j].same)
		}

		l.from = append(l.from, dims)
	}

	return l
}

// named finds the input dimension of a name.
func named(inputs []engine.Info, name string) origin {
	for i := range inputs {
		if j := slices.Index(inputs[i].Names, name); j >= 0 {
			return origin{input: i, at: j, same: true}
		}
	}

	return origin{}
}

// expect gives the shapes of the outputs of a run over in, or nil where they are not known.
func (l *layout) expect(in []engine.Tensor) [][]int64 {
	if l.off.Load() {
		return nil
	}

	if !l.declared {
		l.mu.Lock()
		defer l.mu.Unlock()

		return l.seen[shapesOf(in)]
	}

	shapes := make([][]int64, len(l.from))

	for k, dims := range l.from {
		shapes[k] = make([]int64, len(dims))

		for j, d := range dims {
			switch {
			case d.fixed:
				shapes[k][j] = d.size
			case d.at < len(in[d.input].Shape):
				shapes[k][j] = in[d.input].Shape[d.at]
			default:
				return nil // the run will tell what is wrong with the input
			}
		}
	}

	return shapes
}

// learn remembers the shapes that a run over in gave.
func (l *layout) learn(in []engine.Tensor, values []ortgo.Value) {
	if l.declared || l.off.Load() {
		return
	}

	shapes := make([][]int64, len(values))
	for k, v := range values {
		shapes[k] = v.GetShape()
	}

	l.mu.Lock()
	defer l.mu.Unlock()

	if len(l.seen) < maxSeen {
		l.seen[shapesOf(in)] = shapes
	}
}

func shapesOf(in []engine.Tensor) string {
	var key []byte

	for i := range in {
		key = binary.AppendUvarint(key, uint64(len(in[i].Shape)))
		for _, d := range in[i].Shape {
			key = binary.AppendVarint(key, d)
		}
	}

	return string(key)
}

// mistaken reports whether a run failed because an output has another shape than was laid out for it.
func mistaken(text string) bool {
	return strings.Contains(text, "pre-allocated output") || strings.Contains(text, "shape verification failed") ||
		strings.Contains(text, "Tensor size mismatch")
}

// plan is the memory of the outputs of one run: where data is nil, the binding makes the value.
type plan struct {
	values []ortgo.Value
	data   [][]byte
	shapes [][]int64
	some   bool
}

// plan lays out what is known of the outputs of a run over in. The memory is pinned with h.
func (l *layout) plan(in []engine.Tensor, h *inputs) *plan {
	p := &plan{values: make([]ortgo.Value, len(l.outputs))}

	if p.shapes = l.expect(in); p.shapes == nil {
		return p
	}

	p.data = make([][]byte, len(l.outputs))

	for k, shape := range p.shapes {
		n := engine.Elements(shape)
		size := n * int64(l.outputs[k].Type.Size())

		if n <= 0 || size > maxPlanned {
			continue
		}

		data := l.idle.get(int(size))
		h.pins.Pin(unsafe.SliceData(data))

		v, err := ortgo.NewCustomDataTensor(ortgo.Shape(shape), data, ortgo.TensorElementDataType(elemOf(l.outputs[k].Type)))
		if err != nil {
			continue // the binding makes one
		}

		p.values[k], p.data[k], p.some = v, data, true
	}

	return p
}

// drop forgets what was laid out, after a run that failed.
func (l *layout) drop(p *plan) {
	destroy(p.values)
	clear(p.values)
	l.free(p)

	p.data, p.some = nil, false
}

// free gives the memory to later runs.
func (l *layout) free(p *plan) {
	for _, data := range p.data {
		if data != nil {
			l.idle.put(data)
		}
	}
}

// tensor gives one output after a run.
func (l *layout) tensor(p *plan, k int) (engine.Tensor, error) {
	if p.data != nil && p.data[k] != nil {
		return engine.Tensor{Name: l.outputs[k].Name, Type: l.outputs[k].Type, Shape: p.shapes[k], Data: p.data[k]}, nil
	}

	return read(l.outputs[k].Name, p.values[k])
}

// buffers keeps memory by its size, which is a power of two.
type buffers struct {
	mu   sync.Mutex // guards all
	free [bits.UintSize][][]byte
	kept int
}

// smallest is as much as puts a block where every element type may lie.
const smallest = 64

func (b *buffers) get(n int) []byte {
	class := bits.Len(uint(max(n, smallest) - 1))

	b.mu.Lock()
	if last := len(b.free[class]) - 1; last >= 0 {
		data := b.free[class][last]
		b.free[class] = b.free[class][:last]
		b.kept -= cap(data)
		b.mu.Unlock()

		return data[:n]
	}
	b.mu.Unlock()

	return make([]byte, n, 1<<class)
}

func (b *buffers) put(data []byte) {
	if poisoned {
		for i := range data {
			data[i] = 0xCC
		}
	}

	class := bits.Len(uint(cap(data) - 1))

	b.mu.Lock()
	defer b.mu.Unlock()

	if b.kept+cap(data) <= keepPlanned {
		b.kept += cap(data)
		b.free[class] = append(b.free[class], data)
	}
}
