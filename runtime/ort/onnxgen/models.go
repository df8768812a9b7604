package onnxgen

import (
	"fmt"
	"math/rand/v2"
)

// Identity copies "x" to "y".
func Identity(t Type, dims []Dim) *Model {
	return new(Model).Input("x", t, dims).Output("y", t, dims).Node("Identity", []string{"x"}, []string{"y"})
}

// Unary applies one operator to "x" and gives "y" of the same type and shape.
func Unary(op string, t Type, dims []Dim, attrs ...Attr) *Model {
	return new(Model).Input("x", t, dims).Output("y", t, dims).Node(op, []string{"x"}, []string{"y"}, attrs...)
}

// Binary applies one operator to "a" and "b" and gives "y".
func Binary(op string, t Type, dims []Dim, attrs ...Attr) *Model {
	return new(Model).Input("a", t, dims).Input("b", t, dims).Output("y", t, dims).
		Node(op, []string{"a", "b"}, []string{"y"}, attrs...)
}

// Cast converts "x" to "y" of another type.
func Cast(from, to Type, dims []Dim) *Model {
	return new(Model).Input("x", from, dims).Output("y", to, dims).
		Node("Cast", []string{"x"}, []string{"y"}, Int("to", int64(to)))
}

// MLP is a chain of dense layers with ReLU between them and a dynamic batch: "x" of
// sizes[0] floats a row to "y" of the last size. The weights are random and small.
func MLP(seed uint64, sizes ...int64) *Model {
	m := new(Model).Input("x", Float, Batch(sizes[0]))
	rng := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // weights of a test model
	in := "x"

	for i := 1; i < len(sizes); i++ {
		k, n := sizes[i-1], sizes[i]
		w, out := make([]float32, k*n), fmt.Sprintf("h%d", i)

		for j := range w {
			w[j] = float32(rng.NormFloat64()) / float32(k)
		}

		if i == len(sizes)-1 {
			out = "y"
		}

		weight := fmt.Sprintf("w%d", i)
		m.Floats(weight, []int64{k, n}, w)

		if out == "y" {
			m.Node("MatMul", []string{in, weight}, []string{out})

			break
		}

		m.Node("MatMul", []string{in, weight}, []string{out + "m"})
		m.Node("Relu", []string{out + "m"}, []string{out})
		in = out
	}

	return m.Output("y", Float, Batch(sizes[len(sizes)-1]))
}

// Work is a model whose time grows with its row count and not with its weights: steps
// times "x" of size floats is multiplied by one matrix.
func Work(seed uint64, size int64, steps int) *Model {
	rng := rand.New(rand.NewPCG(seed, 2)) //nolint:gosec // weights of a test model
	w := make([]float32, size*size)

	for i := range w {
		w[i] = float32(rng.NormFloat64()) / float32(size)
	}

	m := new(Model).Input("x", Float, Batch(size)).Floats("w", []int64{size, size}, w)
	in := "x"

	for i := range steps {
		out := fmt.Sprintf("s%d", i)
		if i == steps-1 {
			out = "y"
		}

		m.Node("MatMul", []string{in, "w"}, []string{out + "m"})
		m.Node("Tanh", []string{out + "m"}, []string{out})
		in = out
	}

	return m.Output("y", Float, Batch(size))
}
