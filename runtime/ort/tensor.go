package ort

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unsafe"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// maxRank bounds the dimensions of a tensor.
const maxRank = 16

// Kinds of values as ONNX Runtime numbers them.
const kindTensor = 1

//nolint:gochecknoglobals // a constant table, by ONNX Runtime's number of the element type
var elemTypes = [...]engine.DataType{
	1: engine.FP32, 2: engine.Uint8, 3: engine.Int8, 4: engine.Uint16, 5: engine.Int16, 6: engine.Int32,
	7: engine.Int64, 8: engine.Bytes, 9: engine.Bool, 10: engine.FP16, 11: engine.FP64, 12: engine.Uint32,
	13: engine.Uint64, 16: engine.BF16,
}

var errClosed = errors.New("session is closed")

func dataType(elem int) engine.DataType {
	if elem < 0 || elem >= len(elemTypes) {
		return engine.Invalid
	}

	return elemTypes[elem]
}

// carried reports whether the protocol can carry such a value.
func carried(kind, rank, elem int) bool {
	return kind == kindTensor && rank <= maxRank && dataType(elem) != engine.Invalid
}

// kindName says what a value is that is not carried.
func kindName(kind, rank int) string {
	kinds := [...]string{"unknown value", "tensor", "sequence", "map", "opaque value", "sparse tensor", "optional value"}

	switch {
	case kind < 0 || kind >= len(kinds):
		return kinds[0]
	case kind != kindTensor:
		return kinds[kind]
	case rank > maxRank:
		return "tensor of too many dimensions"
	default:
		return "tensor of an element type outside the protocol"
	}
}

// checkInput checks what memory safety needs and gives the number of elements; ONNX Runtime
// checks shapes against the graph.
func checkInput(want *engine.Info, t *engine.Tensor) (int64, error) {
	if t.Type != want.Type {
		return 0, fault.New(fault.BadTensor, "Input %q has the type %s, the model expects %s.", want.Name, t.Type, want.Type)
	}

	n := engine.Elements(t.Shape)
	if n < 0 || len(t.Shape) > maxRank {
		return 0, fault.New(fault.BadTensor, "Input %q has the impossible shape %v.", want.Name, t.Shape)
	}

	if t.Type == engine.Bytes && !validBytes(t.Data, n) ||
		t.Type != engine.Bytes && int64(len(t.Data)) != n*int64(t.Type.Size()) {
		return 0, fault.New(fault.BadTensor, "Input %q holds %d bytes, which is not what the shape %v of %s takes.",
			want.Name, len(t.Data), t.Shape, t.Type)
	}

	return n, nil
}

// validBytes reports whether data is exactly n length-prefixed elements.
func validBytes(data []byte, n int64) bool {
	for ; n > 0; n-- {
		if len(data) < 4 {
			return false
		}

		size := int64(binary.LittleEndian.Uint32(data))
		if size > int64(len(data)-4) {
			return false
		}

		data = data[4+size:]
	}

	return len(data) == 0
}

// aligned gives the data of t where its element type may be read, copied if need be.
func aligned(t *engine.Tensor) []byte {
	size := t.Type.Size()
	if size > 1 && uintptr(unsafe.Pointer(unsafe.SliceData(t.Data)))%uintptr(size) != 0 {
		return slices.Clone(t.Data) // the heap aligns to 8 and more
	}

	return t.Data
}

// choose gives the places of the wanted outputs; none named means all.
func choose(have []engine.Info, names []string) ([]int, error) {
	if len(names) > len(have) {
		return nil, fault.New(fault.BadTensor, "%d outputs are wanted, the model has %d.", len(names), len(have))
	}

	chosen := make([]int, 0, len(have))

	if len(names) == 0 {
		for i := range have {
			chosen = append(chosen, i)
		}
	}

	for _, name := range names {
		i := slices.IndexFunc(have, func(o engine.Info) bool { return o.Name == name })
		if i < 0 {
			return nil, fault.New(fault.BadTensor, "The model has no output %q.", name)
		}

		chosen = append(chosen, i)
	}

	return chosen, nil
}

// runError classifies a failed run. ONNX Runtime says "fail" for inputs that an operator
// cannot work on as well as for itself being out of memory; only the text tells.
func runError(ctx context.Context, text string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("run model: %w", err)
	}

	text = cleanText(text)

	for _, own := range []string{"allocate memory", "bad_alloc", "bad allocation", "out of memory", "CUDA", "CUDNN", "CUBLAS"} {
		if strings.Contains(text, own) {
			return fault.Wrap(fault.BackendFailed, fmt.Errorf("onnxruntime: %s", text), "The model could not be run.")
		}
	}

	return fault.New(fault.BadTensor, "The model cannot work on this input: %s", text)
}

// watch terminates a run when ctx ends. The returned function stops watching and takes the
// termination back.
func watch(ctx context.Context, terminate func(on bool)) (finish func()) {
	if ctx.Done() == nil {
		return func() {}
	}

	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		terminate(true)
		close(ended)
	})

	return func() {
		if !stop() {
			<-ended
			terminate(false)
		}
	}
}
