package openinference

import (
	"fmt"
	"strings"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// binary hands the part after the JSON header to the inputs that declared a size, in their order.
func (r *Request) binary(m *Model, rest []byte) error {
	for i := range r.given {
		in := &r.given[i]
		if in.binary < 0 {
			continue
		}

		if !r.header {
			return fault.New(fault.InvalidArgument,
				"must specify valid 'Inference-Header-Content-Length' in request header and 'binary_data_size' when "+
					"passing inputs in binary data format: input '%s'", r.label(in))
		}

		if in.binary > int64(len(rest)) {
			return fault.New(fault.InvalidArgument,
				"unexpected size for input '%s', expecting %d additional bytes for model '%s'",
				r.label(in), in.binary-int64(len(rest)), m.Name)
		}

		in.data = rest[:in.binary:in.binary]
		rest = rest[in.binary:]
	}

	if len(rest) > 0 {
		return fault.New(fault.InvalidArgument, "unexpected additional input data for model '%s'", m.Name)
	}

	return nil
}

// bind puts the inputs into the model's order and checks them against the model.
func (r *Request) bind(m *Model) error {
	for range m.Inputs {
		r.order = append(r.order, -1)
	}

	for k := range r.given {
		in := &r.given[k]
		if r.order[in.index] >= 0 {
			return fault.New(fault.InvalidArgument, "input '%s' already exists in request", r.label(in))
		}

		r.order[in.index] = k
	}

	for i := range m.Inputs {
		if r.order[i] < 0 {
			return r.missing(m)
		}

		in := &r.given[r.order[i]]
		if err := check(m, in); err != nil {
			return err
		}

		r.Inputs = append(r.Inputs, engine.Tensor{Name: m.Inputs[i].Name, Type: in.typ, Shape: in.shape, Data: in.data})
		r.Picture = append(r.Picture, in.picture)
	}

	return r.rows(m)
}

func (r *Request) missing(m *Model) error {
	var got, want []string

	for i := range m.Inputs {
		if name := "'" + m.Inputs[i].Name + "'"; r.order[i] < 0 {
			want = append(want, name)
		} else {
			got = append(got, name)
		}
	}

	return fault.New(fault.BadTensor, "expected %d inputs but got %d inputs for model '%s'. Got input(s) [%s], "+
		"but missing required input(s) [%s]. Please provide all required input(s).",
		len(m.Inputs), len(r.given), m.Name, strings.Join(got, ","), strings.Join(want, ","))
}

func check(m *Model, in *input) error {
	info := &m.Inputs[in.index]

	if in.picture {
		return CheckSize(info.Name, m.Name, &engine.Tensor{Type: in.typ, Shape: in.shape, Data: in.data})
	}

	if in.typ != info.Type {
		return fault.New(fault.BadTensor, "inference input '%s' data-type is '%s', but model '%s' expects '%s'",
			info.Name, in.typ, m.Name, info.Type)
	}

	if !fits(info.Shape, in.shape) {
		return fault.New(fault.BadTensor, "unexpected shape for input '%s' for model '%s'. Expected %s, got %s. ",
			info.Name, m.Name, shapeText(info.Shape), shapeText(in.shape))
	}

	return CheckSize(info.Name, m.Name, &engine.Tensor{Type: in.typ, Shape: in.shape, Data: in.data})
}

// Check compares a tensor with what the model wants of the input with this index.
func Check(m *Model, index int, t *engine.Tensor) error {
	return check(m, &input{index: index, typ: t.Type, shape: t.Shape, data: t.Data})
}

// CheckSize tells whether data holds as many elements as the shape says.
func CheckSize(name, model string, t *engine.Tensor) error {
	n := engine.Elements(t.Shape)

	if t.Type == engine.Bytes {
		got := codec.CountBytes(t.Data)
		if got < 0 {
			return fault.New(fault.BadTensor, "incomplete string data for inference input '%s': an element's length runs over the end", name)
		}

		if int64(got) != n {
			return fault.New(fault.BadTensor, "unexpected number of string elements %d for inference input '%s', expecting %d", got, name, n)
		}

		return nil
	}

	if want := n * int64(t.Type.Size()); int64(len(t.Data)) != want {
		return fault.New(fault.BadTensor, "unexpected total byte size %d for input '%s', expecting %d for model '%s'",
			len(t.Data), name, want, model)
	}

	if t.Type == engine.Bool {
		for _, b := range t.Data {
			if b > 1 {
				return fault.New(fault.BadTensor, "input '%s' has a BOOL byte of value %d; only 0 and 1 are allowed", name, b)
			}
		}
	}

	return nil
}

func fits(want, got []int64) bool {
	if len(want) != len(got) {
		return false
	}

	for i, d := range want {
		if d >= 0 && d != got[i] {
			return false
		}
	}

	return true
}

// rows finds the batch size.
func (r *Request) rows(m *Model) error {
	r.Rows = 1
	if !m.Batchable {
		return nil
	}

	for i := range r.Inputs {
		t := &r.Inputs[i]
		if len(t.Shape) == 0 {
			return fault.New(fault.BadTensor, "unexpected shape for input '%s' for model '%s'. Expected %s, got []. ",
				t.Name, m.Name, shapeText(m.Inputs[i].Shape))
		}

		if i > 0 && int(t.Shape[0]) != r.Rows {
			return fault.New(fault.BadTensor, "input '%s' batch size does not match other inputs for '%s'", t.Name, m.Name)
		}

		r.Rows = int(t.Shape[0])
	}

	if r.Rows < 1 {
		return fault.New(fault.BadTensor, "inference request batch-size must be >= 1 for '%s'", m.Name)
	}

	if m.MaxBatchSize > 0 && r.Rows > m.MaxBatchSize {
		return fault.New(fault.BadTensor, "inference request batch-size must be <= %d for '%s'", m.MaxBatchSize, m.Name)
	}

	return nil
}

// raw takes the whole body as the only input.
func (r *Request) raw(m *Model, body []byte) error {
	if len(m.Inputs) != 1 {
		return fault.New(fault.InvalidArgument, "Raw request must only have 1 input (found %d) to be deduced but model '%s' has more",
			len(m.Inputs), m.Name)
	}

	info := &m.Inputs[0]
	in := input{binary: int64(len(body)), data: body, hasShape: true, typ: info.Type, name: info.Name}
	r.BinaryOutput = true

	switch {
	case info.Type == engine.Bytes || m.picturesOnly(body):
		r.buf = appendElement(r.buf, body)
		in.data = r.buf
		in.picture = info.Type != engine.Bytes
		in.typ = engine.Bytes

		for range max(1, len(info.Shape)) {
			r.dims = append(r.dims, 1)
		}

		in.shape = r.dims
	default:
		shape, err := deduce(m, info, r.dims, len(body))
		if err != nil {
			return err
		}

		in.shape, r.dims = shape, shape
	}

	r.given = append(r.given, in)

	return r.bind(m)
}

// picturesOnly tells whether a raw body is a picture for a model that takes pictures.
func (m *Model) picturesOnly(body []byte) bool {
	return len(m.Pictures) > 0 && (strings.HasPrefix(string(body[:min(4, len(body))]), "\x89PNG") ||
		strings.HasPrefix(string(body[:min(3, len(body))]), "\xff\xd8\xff") ||
		strings.HasPrefix(string(body[:min(4, len(body))]), "RIFF"))
}

// deduce finds the one dynamic dimension, beside the batch, from the size of the body.
func deduce(m *Model, info *engine.Info, dims []int64, size int) ([]int64, error) {
	free, known := -1, int64(info.Type.Size())

	for i, d := range info.Shape {
		if i == 0 && m.Batchable {
			d = 1
		}

		dims = append(dims, d)

		switch {
		case d >= 0:
			known *= d
		case free >= 0:
			return nil, fault.New(fault.BadTensor,
				"The shape of the raw input '%s' can not be deduced because there are more than one variable-sized dimension", info.Name)
		default:
			free = i
		}
	}

	if free >= 0 {
		if known == 0 || int64(size)%known != 0 {
			return nil, fault.New(fault.BadTensor, "unexpected total byte size %d for input '%s', expecting a multiple of %d for model '%s'",
				size, info.Name, known, m.Name)
		}

		dims[free] = int64(size) / known
	}

	return dims, nil
}

func shapeText(shape []int64) string {
	return strings.ReplaceAll(fmt.Sprint(shape), " ", ",")
}
