package platform

import (
	"math"
	"slices"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

const defaultTopK = 5

// Answer builds the body of a response, item by item in order.
type Answer struct {
	r   *Request
	out []byte
	n   int
}

// Answer starts an answer that is appended to dst.
func (r *Request) Answer(dst []byte) *Answer {
	a := &Answer{r: r, out: dst}
	if r.form == formData {
		a.out = append(a.out, `{"data":{"resp_data":[`...)
	} else if a.array() {
		a.out = append(a.out, '[')
	}

	return a
}

func (a *Answer) array() bool { return a.r.form == formArray || a.r.Items() != 1 }

// Add appends the answers for rows items that one run gave.
func (a *Answer) Add(outs []engine.Tensor, rows int) error {
	for i := range rows {
		if a.n > 0 {
			a.out = append(a.out, ',')
		}

		a.n++

		var err error
		if a.out, err = a.r.m.appendItem(a.out, outs, i, rows); err != nil {
			return err
		}
	}

	return nil
}

// Bytes closes the answer.
func (a *Answer) Bytes() []byte {
	switch {
	case a.r.form == formData:
		return append(a.out, `]}}`...)
	case a.array():
		return append(a.out, ']')
	default:
		return a.out
	}
}

func (m *Model) appendItem(dst []byte, outs []engine.Tensor, item, rows int) ([]byte, error) {
	dst = append(dst, '{')
	start := len(dst)

	for k := range m.answers {
		ans := &m.answers[k]

		at := slices.IndexFunc(outs, func(t engine.Tensor) bool { return t.Name == ans.Output })
		if at < 0 {
			return dst, fault.New(fault.Internal, "The model gave no output %q.", ans.Output)
		}

		t, err := m.cut(&outs[at], item, rows)
		if err != nil {
			return dst, err
		}

		if len(dst) > start {
			dst = append(dst, ',')
		}

		if ans.Kind == "classification" {
			dst = m.appendClasses(dst, ans, t)
		} else {
			dst = m.appendTensor(dst, ans, t)
		}
	}

	return append(dst, '}'), nil
}

// cut is one row of an output. Of a model without batching it is the whole output, without a leading 1.
func (m *Model) cut(t *engine.Tensor, item, rows int) (*engine.Tensor, error) {
	if !m.meta.Batchable {
		if len(t.Shape) > 1 && t.Shape[0] == 1 {
			return &engine.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape[1:], Data: t.Data}, nil
		}

		return t, nil
	}

	if len(t.Shape) == 0 || t.Shape[0] != int64(rows) {
		return nil, fault.New(fault.Internal, "The model's output %q has shape %v, which does not hold %d rows.", t.Name, t.Shape, rows)
	}

	out := &engine.Tensor{Name: t.Name, Type: t.Type, Shape: t.Shape[1:]}

	if t.Type == engine.Bytes {
		out.Data = cutBytes(t.Data, item, engine.Elements(out.Shape))
	} else {
		size := len(t.Data) / rows
		out.Data = t.Data[item*size : (item+1)*size]
	}

	return out, nil
}

func cutBytes(data []byte, item int, per int64) []byte {
	from, at, k := -1, 0, int64(0)

	if first := int64(item) * per; first == 0 {
		from = 0
	}

	codec.EachBytes(data, func(elem []byte) bool {
		at += 4 + len(elem)
		k++

		if k == int64(item)*per {
			from = at
		}

		return k < int64(item+1)*per
	})

	if from < 0 || per == 0 {
		return nil
	}

	return data[from:at]
}

// floats converts a row and applies the activation.
func floats(ans *answer, t *engine.Tensor) []float64 {
	size := t.Type.Size()
	v := make([]float64, len(t.Data)/size)

	for i := range v {
		v[i] = codec.Scalar(t.Type, t.Data[i*size:])
	}

	switch ans.Activation {
	case "softmax":
		softmax(v, int(lastDim(t)))
	case "sigmoid":
		for i, x := range v {
			v[i] = 1 / (1 + math.Exp(-x))
		}
	}

	return v
}

func lastDim(t *engine.Tensor) int64 {
	if len(t.Shape) == 0 {
		return 1
	}

	return t.Shape[len(t.Shape)-1]
}

// softmax over groups of n.
func softmax(v []float64, n int) {
	for ; n > 0 && len(v) >= n; v = v[n:] {
		group := v[:n]
		top := slices.Max(group)

		var sum float64

		for i, x := range group {
			group[i] = math.Exp(x - top)
			sum += group[i]
		}

		for i := range group {
			group[i] /= sum
		}
	}
}

// appendClasses writes predicted_label and scores.
func (m *Model) appendClasses(dst []byte, ans *answer, t *engine.Tensor) []byte {
	flat := engine.Tensor{Name: t.Name, Type: t.Type, Shape: []int64{int64(len(t.Data) / t.Type.Size())}, Data: t.Data}
	v := floats(ans, &flat)

	if len(v) == 1 && len(m.meta.Labels) == 2 { // one probability of the second of two classes
		v = []float64{1 - v[0], v[0]}
	}

	order := make([]int, len(v))
	for i := range order {
		order[i] = i
	}

	k := ans.TopK
	if k <= 0 {
		k = defaultTopK
	}

	k = min(k, len(v))
	codec.TopK(order, v, k)

	if ans.Field != "" {
		dst = codec.AppendString(dst, ans.Field)
		dst = append(dst, ':', '{')
	}

	dst = append(dst, `"predicted_label":`...)

	if len(order) == 0 || v[order[0]] < ans.Threshold {
		dst = append(dst, `""`...)
	} else {
		dst = m.appendLabel(dst, order[0])
	}

	dst = append(dst, `,"scores":[`...)

	for i, c := range order[:k] {
		if v[c] < ans.Threshold {
			break
		}

		if i > 0 {
			dst = append(dst, ',')
		}

		dst = append(dst, '[')
		dst = m.appendLabel(dst, c)
		dst = append(dst, ',', '"')
		dst = strconv.AppendFloat(dst, v[c], 'f', 3, 64)
		dst = append(dst, '"', ']')
	}

	dst = append(dst, ']')

	if ans.Field != "" {
		dst = append(dst, '}')
	}

	return dst
}

func (m *Model) appendLabel(dst []byte, class int) []byte {
	if class < len(m.meta.Labels) {
		return codec.AppendString(dst, m.meta.Labels[class])
	}

	dst = append(dst, '"')
	dst = strconv.AppendInt(dst, int64(class), 10)

	return append(dst, '"')
}

// appendTensor writes the values under the field's or the output's name, nested by shape.
func (m *Model) appendTensor(dst []byte, ans *answer, t *engine.Tensor) []byte {
	field := ans.Field
	if field == "" {
		field = ans.Output
	}

	dst = codec.AppendString(dst, field)
	dst = append(dst, ':')

	if t.Type == engine.Bytes {
		var elems [][]byte

		codec.EachBytes(t.Data, func(e []byte) bool {
			elems = append(elems, e)

			return true
		})

		return nest(dst, t.Shape, 0, func(dst []byte, i int) []byte { return codec.AppendString(dst, elems[i]) })
	}

	size := t.Type.Size()
	if ans.Activation == "" || ans.Activation == "none" {
		return nest(dst, t.Shape, 0, func(dst []byte, i int) []byte { return codec.AppendScalar(dst, t.Type, t.Data[i*size:]) })
	}

	v := floats(ans, t)

	return nest(dst, t.Shape, 0, func(dst []byte, i int) []byte { return codec.AppendFloat(dst, v[i], 64) })
}

// nest writes arrays by shape; first is the index of the first element.
func nest(dst []byte, shape []int64, first int, elem func([]byte, int) []byte) []byte {
	if len(shape) == 0 {
		return elem(dst, first)
	}

	step := int(engine.Elements(shape[1:]))
	dst = append(dst, '[')

	for i := range int(shape[0]) {
		if i > 0 {
			dst = append(dst, ',')
		}

		dst = nest(dst, shape[1:], first+i*step, elem)
	}

	return append(dst, ']')
}
