package ort

import (
	"fmt"
	"reflect"
	"runtime"
	"unsafe"

	ortgo "github.com/yalue/onnxruntime_go"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// inputs are the input values of one run. A value keeps the address of Go's memory in C, so
// the memory is pinned until the value is destroyed.
type inputs struct {
	values []ortgo.Value
	pins   runtime.Pinner
}

func (h *inputs) free() {
	destroy(h.values)
	h.pins.Unpin()
}

// destroy frees the values that are there; one that the binding could not make is a nil
// pointer. The binding's Destroy never fails.
func destroy(values []ortgo.Value) {
	for _, v := range values {
		if v != nil && !reflect.ValueOf(v).IsNil() {
			_ = v.Destroy()
		}
	}
}

func (h *inputs) fill(want []engine.Info, in []engine.Tensor) error {
	if len(in) != len(want) {
		return fault.New(fault.BadTensor, "Expected %d inputs but got %d.", len(want), len(in))
	}

	h.values = make([]ortgo.Value, 0, len(in))

	for i := range in {
		if _, err := checkInput(&want[i], &in[i]); err != nil {
			return err
		}

		v, err := h.value(&in[i])
		if err != nil {
			return fmt.Errorf("hand over input %q: %w", want[i].Name, err)
		}

		h.values = append(h.values, v)
	}

	return nil
}

func (h *inputs) value(t *engine.Tensor) (ortgo.Value, error) {
	if len(t.Shape) == 0 {
		return scalarOf(t)
	}

	data := aligned(t)
	if len(data) == 0 {
		data = make([]byte, 8) // the binding wants an address even where there is no element
	}

	h.pins.Pin(&data[0])

	v, err := ortgo.NewCustomDataTensor(ortgo.Shape(t.Shape), data, ortgo.TensorElementDataType(elemOf(t.Type)))
	if err != nil {
		return nil, fmt.Errorf("make a tensor: %s", said(err))
	}

	return v, nil
}

// elemOf is ONNX Runtime's number of an element type.
func elemOf(t engine.DataType) int {
	for i, have := range elemTypes {
		if have == t && have != engine.Invalid {
			return i
		}
	}

	return 0
}

// scalarOf makes a value without dimensions; it holds a copy of its own.
func scalarOf(t *engine.Tensor) (ortgo.Value, error) {
	switch t.Type { //nolint:exhaustive // the narrow types never come here
	case engine.Bool:
		return scalar(t.Data[0] != 0)
	case engine.Uint8:
		return scalar(load[uint8](t.Data))
	case engine.Uint16:
		return scalar(load[uint16](t.Data))
	case engine.Uint32:
		return scalar(load[uint32](t.Data))
	case engine.Uint64:
		return scalar(load[uint64](t.Data))
	case engine.Int8:
		return scalar(load[int8](t.Data))
	case engine.Int16:
		return scalar(load[int16](t.Data))
	case engine.Int32:
		return scalar(load[int32](t.Data))
	case engine.Int64:
		return scalar(load[int64](t.Data))
	case engine.FP32:
		return scalar(load[float32](t.Data))
	case engine.FP64:
		return scalar(load[float64](t.Data))
	default:
		return nil, fmt.Errorf("no scalar of %s", t.Type)
	}
}

func scalar[T ortgo.TensorData](v T) (ortgo.Value, error) {
	s, err := ortgo.NewScalar(v)
	if err != nil {
		return nil, fmt.Errorf("make a scalar: %s", said(err))
	}

	return s, nil
}

// load reads one element, aligned or not.
func load[T ortgo.TensorData](b []byte) T {
	var v T

	copy(unsafe.Slice((*byte)(unsafe.Pointer(&v)), unsafe.Sizeof(v)), b)

	return v
}

// read takes the data of an output, which stays when the value is destroyed.
func read(name string, v ortgo.Value) (engine.Tensor, error) {
	t := engine.Tensor{Name: name, Shape: v.GetShape()}

	switch v := v.(type) {
	case *ortgo.Tensor[bool]:
		t.Type, t.Data = engine.Bool, bytesOf(v)
	case *ortgo.Tensor[uint8]:
		t.Type, t.Data = engine.Uint8, bytesOf(v)
	case *ortgo.Tensor[uint16]:
		t.Type, t.Data = engine.Uint16, bytesOf(v)
	case *ortgo.Tensor[uint32]:
		t.Type, t.Data = engine.Uint32, bytesOf(v)
	case *ortgo.Tensor[uint64]:
		t.Type, t.Data = engine.Uint64, bytesOf(v)
	case *ortgo.Tensor[int8]:
		t.Type, t.Data = engine.Int8, bytesOf(v)
	case *ortgo.Tensor[int16]:
		t.Type, t.Data = engine.Int16, bytesOf(v)
	case *ortgo.Tensor[int32]:
		t.Type, t.Data = engine.Int32, bytesOf(v)
	case *ortgo.Tensor[int64]:
		t.Type, t.Data = engine.Int64, bytesOf(v)
	case *ortgo.Tensor[float32]:
		t.Type, t.Data = engine.FP32, bytesOf(v)
	case *ortgo.Tensor[float64]:
		t.Type, t.Data = engine.FP64, bytesOf(v)
	default:
		return t, fault.New(fault.BackendFailed, "The model's output %q has a type that cannot be sent.", name)
	}

	return t, nil
}

func bytesOf[T ortgo.TensorData](t *ortgo.Tensor[T]) []byte {
	data := t.GetData()

	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(data))), len(data)*int(unsafe.Sizeof(*new(T))))
}
