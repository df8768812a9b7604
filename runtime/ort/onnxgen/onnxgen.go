// Package onnxgen writes small ONNX models, for tests and benchmarks.
//
// A Model is built by adding inputs, constants, nodes and outputs, in any order, and is
// not safe for concurrent use.
package onnxgen

import (
	"fmt"
	"math"
	"os"

	"google.golang.org/protobuf/encoding/protowire"
)

// Type is an ONNX element type.
type Type int32

// The element types by their ONNX numbers.
const (
	Float    Type = 1
	Uint8    Type = 2
	Int8     Type = 3
	Uint16   Type = 4
	Int16    Type = 5
	Int32    Type = 6
	Int64    Type = 7
	String   Type = 8
	Bool     Type = 9
	Float16  Type = 10
	Double   Type = 11
	Uint32   Type = 12
	Uint64   Type = 13
	Complex  Type = 14
	BFloat16 Type = 16
)

// Dim is one dimension: a fixed size, or a name when Name is set, or neither (Size -1).
type Dim struct {
	Size int64
	Name string
}

// Shape makes fixed dimensions; -1 is a dimension without a name.
func Shape(sizes ...int64) []Dim {
	dims := make([]Dim, len(sizes))
	for i, s := range sizes {
		dims[i] = Dim{Size: s}
	}

	return dims
}

// Batch makes a dynamic first dimension named "batch" before fixed ones.
func Batch(sizes ...int64) []Dim {
	return append([]Dim{{Name: "batch"}}, Shape(sizes...)...)
}

// Model is a model under construction.
type Model struct {
	// Opset version; 0 means 17. IR version; 0 means 8.
	Opset, IR int64

	nodes, constants, inputs, outputs [][]byte
}

// Attr is an attribute of a node; make it with Int, Ints, Flt, Str or Tensor.
type Attr []byte

func attr(name string, kind uint64, field func(b []byte) []byte) Attr {
	b := str(nil, 1, name)
	b = field(b)

	return num(b, 20, kind)
}

// Int is an integer attribute.
func Int(name string, v int64) Attr {
	return attr(name, 2, func(b []byte) []byte { return num(b, 3, uint64(v)) })
}

// Ints is a list of integers.
func Ints(name string, vs ...int64) Attr {
	return attr(name, 7, func(b []byte) []byte {
		for _, v := range vs {
			b = num(b, 8, uint64(v))
		}

		return b
	})
}

// Flt is a float attribute.
func Flt(name string, v float32) Attr {
	return attr(name, 1, func(b []byte) []byte {
		return protowire.AppendFixed32(protowire.AppendTag(b, 2, protowire.Fixed32Type), math.Float32bits(v))
	})
}

// Str is a string attribute.
func Str(name, v string) Attr {
	return attr(name, 3, func(b []byte) []byte { return str(b, 4, v) })
}

// Graph is a sub-graph attribute, such as the body of a Loop.
func Graph(name string, body *Model) Attr {
	return attr(name, 5, func(b []byte) []byte { return msg(b, 6, body.graph(name)) })
}

// Node adds an operator.
func (m *Model) Node(op string, inputs, outputs []string, attrs ...Attr) *Model {
	return m.DomainNode("", op, inputs, outputs, attrs...)
}

// DomainNode adds an operator of another domain, such as "ai.onnx.ml".
func (m *Model) DomainNode(domain, op string, inputs, outputs []string, attrs ...Attr) *Model {
	var b []byte
	for _, in := range inputs {
		b = str(b, 1, in)
	}

	for _, out := range outputs {
		b = str(b, 2, out)
	}

	b = str(b, 3, fmt.Sprintf("%s_%d", op, len(m.nodes)))
	b = str(b, 4, op)

	for _, a := range attrs {
		b = msg(b, 5, a)
	}

	if domain != "" {
		b = str(b, 7, domain)
	}

	m.nodes = append(m.nodes, b)

	return m
}

// Input adds a tensor input.
func (m *Model) Input(name string, t Type, dims []Dim) *Model {
	m.inputs = append(m.inputs, valueInfo(name, tensorType(t, dims)))

	return m
}

// Output adds a tensor output. Nil dims leave the shape open.
func (m *Model) Output(name string, t Type, dims []Dim) *Model {
	m.outputs = append(m.outputs, valueInfo(name, tensorType(t, dims)))

	return m
}

// SequenceInput adds an input that is a sequence of tensors.
func (m *Model) SequenceInput(name string, t Type) *Model {
	m.inputs = append(m.inputs, valueInfo(name, msg(nil, 4, msg(nil, 1, tensorType(t, nil)))))

	return m
}

// SequenceOutput adds an output that is a sequence of tensors.
func (m *Model) SequenceOutput(name string, t Type) *Model {
	m.outputs = append(m.outputs, valueInfo(name, msg(nil, 4, msg(nil, 1, tensorType(t, nil)))))

	return m
}

// Constant adds an initializer; raw is little-endian.
func (m *Model) Constant(name string, t Type, shape []int64, raw []byte) *Model {
	var b []byte
	for _, d := range shape {
		b = num(b, 1, uint64(d))
	}

	b = num(b, 2, uint64(t))
	b = str(b, 8, name)
	b = protowire.AppendBytes(protowire.AppendTag(b, 9, protowire.BytesType), raw)
	m.constants = append(m.constants, b)

	return m
}

// Floats adds a float initializer.
func (m *Model) Floats(name string, shape []int64, values []float32) *Model {
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = protowire.AppendFixed32(raw, math.Float32bits(v))
	}

	return m.Constant(name, Float, shape, raw)
}

// Int64s adds an int64 initializer.
func (m *Model) Int64s(name string, shape []int64, values ...int64) *Model {
	raw := make([]byte, 0, 8*len(values))
	for _, v := range values {
		raw = protowire.AppendFixed64(raw, uint64(v))
	}

	return m.Constant(name, Int64, shape, raw)
}

// Bytes is the serialised model.
func (m *Model) Bytes() []byte {
	ir, opset := m.IR, m.Opset
	if ir == 0 {
		ir = 8
	}

	if opset == 0 {
		opset = 17
	}

	b := num(nil, 1, uint64(ir))
	b = str(b, 2, "sluice-onnxgen")
	b = msg(b, 7, m.graph("g"))
	b = msg(b, 8, num(str(nil, 1, ""), 2, uint64(opset)))
	b = msg(b, 8, num(str(nil, 1, "ai.onnx.ml"), 2, 3))

	return b
}

// WriteFile writes the model to path.
func (m *Model) WriteFile(path string) error {
	if err := os.WriteFile(path, m.Bytes(), 0o600); err != nil {
		return fmt.Errorf("write model: %w", err)
	}

	return nil
}

func (m *Model) graph(name string) []byte {
	var b []byte

	for _, n := range m.nodes {
		b = msg(b, 1, n)
	}

	b = str(b, 2, name)

	for _, c := range m.constants {
		b = msg(b, 5, c)
	}

	for _, in := range m.inputs {
		b = msg(b, 11, in)
	}

	for _, out := range m.outputs {
		b = msg(b, 12, out)
	}

	return b
}

func valueInfo(name string, typ []byte) []byte { return msg(str(nil, 1, name), 2, typ) }

func tensorType(t Type, dims []Dim) []byte {
	b := num(nil, 1, uint64(t))

	if dims != nil {
		var shape []byte

		for _, d := range dims {
			var dim []byte

			switch {
			case d.Name != "":
				dim = str(nil, 2, d.Name)
			case d.Size >= 0:
				dim = num(nil, 1, uint64(d.Size))
			}

			shape = msg(shape, 1, dim)
		}

		b = msg(b, 2, shape)
	}

	return msg(nil, 1, b)
}

func num(b []byte, field protowire.Number, v uint64) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}

func str(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

func msg(b []byte, field protowire.Number, v []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}
