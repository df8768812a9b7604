package openinference

import (
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

func appendElement(dst, elem []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(elem)))

	return append(dst, elem...)
}

// AppendResponse appends the answer to r. header is the length of its JSON part, or -1 when
// nothing binary follows. outs holds the outputs asked for, or all of them.
func AppendResponse(dst []byte, r *Request, m *Model, outs []engine.Tensor) (body []byte, header int, err error) {
	start := len(dst)
	dst = append(dst, '{')

	if len(r.ID) > 0 {
		dst = append(dst, `"id":`...)
		dst = codec.AppendString(dst, r.ID)
		dst = append(dst, ',')
	}

	dst = append(dst, `"model_name":`...)
	dst = codec.AppendString(dst, m.Name)
	dst = append(dst, `,"model_version":`...)
	dst = codec.AppendString(dst, m.Version)
	dst = append(dst, `,"outputs":[`...)

	tail := 0

	for i := range r.count(m) {
		want := r.want(i)

		t, err := find(m, outs, want.Index)
		if err != nil {
			return dst, -1, err
		}

		if want.Classes > 0 {
			if t, err = classify(m, t, want.Classes); err != nil {
				return dst, -1, err
			}
		}

		if i > 0 {
			dst = append(dst, ',')
		}

		if dst, err = appendOutput(dst, t, want.Binary); err != nil {
			return dst, -1, err
		}

		if want.Binary {
			tail += len(t.Data)
		}
	}

	dst = append(dst, ']', '}')
	if tail == 0 {
		return dst, -1, nil
	}

	header = len(dst) - start
	dst = slices.Grow(dst, tail)

	for i := range r.count(m) {
		if want := r.want(i); want.Binary {
			if dst, err = r.appendBinary(dst, m, outs, want); err != nil {
				return dst, -1, err
			}
		}
	}

	return dst, header, nil
}

func (r *Request) appendBinary(dst []byte, m *Model, outs []engine.Tensor, want Output) ([]byte, error) {
	t, err := find(m, outs, want.Index)
	if err != nil {
		return dst, err
	}

	if want.Classes > 0 {
		if t, err = classify(m, t, want.Classes); err != nil {
			return dst, err
		}
	}

	return append(dst, t.Data...), nil
}

func (r *Request) count(m *Model) int {
	if len(r.Outputs) > 0 {
		return len(r.Outputs)
	}

	return len(m.Outputs)
}

func (r *Request) want(i int) Output {
	if len(r.Outputs) > 0 {
		return r.Outputs[i]
	}

	return Output{Index: i, Binary: r.BinaryOutput}
}

func find(m *Model, outs []engine.Tensor, index int) (*engine.Tensor, error) {
	name := m.Outputs[index].Name
	for i := range outs {
		if outs[i].Name == name {
			return &outs[i], nil
		}
	}

	return nil, fault.New(fault.Internal, "The model gave no output '%s'.", name)
}

func appendOutput(dst []byte, t *engine.Tensor, raw bool) ([]byte, error) { //nolint:revive // raw is what the caller asked for
	dst = append(dst, `{"name":`...)
	dst = codec.AppendString(dst, t.Name)
	dst = append(dst, `,"datatype":"`...)
	dst = append(dst, t.Type.String()...)
	dst = append(dst, `","shape":[`...)

	for i, d := range t.Shape {
		if i > 0 {
			dst = append(dst, ',')
		}

		dst = strconv.AppendInt(dst, d, 10)
	}

	if raw {
		dst = append(dst, `],"parameters":{"binary_data_size":`...)
		dst = strconv.AppendInt(dst, int64(len(t.Data)), 10)

		return append(dst, '}', '}'), nil
	}

	dst = append(dst, `],"data":`...)

	dst, err := codec.AppendValues(dst, t)
	if err != nil {
		return dst, err
	}

	return append(dst, '}'), nil
}

// classify is the classification extension: the k largest values of each row as "value:index[:label]".
func classify(m *Model, t *engine.Tensor, k int) (*engine.Tensor, error) {
	size := t.Type.Size()
	if size == 0 || t.Type == engine.Bool {
		return nil, fault.New(fault.InvalidArgument, "output '%s' of type %s cannot be classified", t.Name, t.Type)
	}

	rows, n := 1, len(t.Data)/size
	if m.Batchable && len(t.Shape) > 0 && t.Shape[0] > 0 {
		rows = int(t.Shape[0])
		n /= rows
	}

	k = min(k, n)
	out := &engine.Tensor{Name: t.Name, Type: engine.Bytes, Shape: []int64{int64(k)}}

	if m.Batchable {
		out.Shape = []int64{int64(rows), int64(k)}
	}

	var text []byte

	order := make([]int, n)
	values := make([]float64, n)

	for row := range rows {
		data := t.Data[row*n*size:]
		for i := range n {
			order[i] = i
			values[i] = codec.Scalar(t.Type, data[i*size:])
		}

		codec.TopK(order, values, k)

		for _, i := range order[:k] {
			text = appendClass(text[:0], m, t.Type, data[i*size:], i)
			out.Data = appendElement(out.Data, text)
		}
	}

	return out, nil
}

func appendClass(dst []byte, m *Model, typ engine.DataType, data []byte, index int) []byte {
	switch typ { //nolint:exhaustive // the others are integers
	case engine.FP32, engine.FP64, engine.FP16, engine.BF16:
		dst = strconv.AppendFloat(dst, codec.Scalar(typ, data), 'f', 6, 64)
	default:
		dst = codec.AppendScalar(dst, typ, data)
	}

	dst = append(dst, ':')
	dst = strconv.AppendInt(dst, int64(index), 10)

	if index < len(m.Labels) {
		dst = append(dst, ':')
		dst = append(dst, m.Labels[index]...)
	}

	return dst
}
