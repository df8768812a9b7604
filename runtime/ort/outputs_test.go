package ort_test

import (
	"encoding/binary"
	"slices"
	"testing"
	"unsafe"

	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

func int64s(v ...int64) []byte {
	var b []byte
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, uint64(x))
	}

	return b
}

// ask runs s and gives a copy of its only output, and where it lay.
func ask(t *testing.T, s engine.Session, in ...engine.Tensor) (got engine.Tensor, at uintptr) {
	t.Helper()

	out, release, err := s.Run(t.Context(), in, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	got = out[0]
	got.Data, got.Shape = slices.Clone(out[0].Data), slices.Clone(out[0].Shape)

	return got, uintptr(unsafe.Pointer(unsafe.SliceData(out[0].Data)))
}

// TestOutputsGoIntoMemoryOfTheSession shows that a model writes where the last released output lay,
// so there is neither a copy nor new memory.
func TestOutputsGoIntoMemoryOfTheSession(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		dims []onnxgen.Dim
		runs int // after which it is known
	}{
		"fixed":             {onnxgen.Shape(2, 3), 0},
		"named like inputs": {onnxgen.Batch(3), 0},
		"seen before":       {onnxgen.Shape(-1, 3), 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := load(t, onnxgen.Unary("Neg", onnxgen.Float, tc.dims))
			x := engine.Tensor{Type: engine.FP32, Shape: []int64{2, 3}, Data: floats(1, 2, 3, 4, 5, 6)}

			for range tc.runs {
				ask(t, s, x)
			}

			_, first := ask(t, s, x)
			got, second := ask(t, s, x)

			if first != second {
				t.Error("the second output is not where the first was")
			}

			if string(got.Data) != string(floats(-1, -2, -3, -4, -5, -6)) || !slices.Equal(got.Shape, []int64{2, 3}) {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestOutputsOfRunsSideBySideAreApart(t *testing.T) {
	t.Parallel()

	s := load(t, onnxgen.Unary("Neg", onnxgen.Float, onnxgen.Batch(2)))
	run := func(v float32) ([]engine.Tensor, func()) {
		out, release, err := s.Run(t.Context(), []engine.Tensor{{Type: engine.FP32, Shape: []int64{1, 2}, Data: floats(v, v)}}, nil)
		if err != nil {
			t.Fatal(err)
		}

		return out, release
	}

	a, freeA := run(1)
	b, freeB := run(2)

	freeB()
	freeB() // again is harmless

	c, freeC := run(3)
	d, freeD := run(4)

	for i, out := range [][]engine.Tensor{a, c, d} {
		if want := floats(-[]float32{1, 3, 4}[i], -[]float32{1, 3, 4}[i]); string(out[0].Data) != string(want) {
			t.Errorf("output %d is overwritten", i)
		}
	}

	_ = b

	freeA()
	freeC()
	freeD()
}

// TestShapesThatDependOnValues has the same input shapes with other output shapes, which nothing
// in the model tells.
func TestShapesThatDependOnValues(t *testing.T) {
	t.Parallel()

	s := load(t, new(onnxgen.Model).Input("x", onnxgen.Float, onnxgen.Shape(-1)).Input("shape", onnxgen.Int64, onnxgen.Shape(2)).
		Output("y", onnxgen.Float, onnxgen.Shape(-1, -1)).Node("Reshape", []string{"x", "shape"}, []string{"y"}))
	if !ort.Bound(s) {
		t.Fatal("not run by the binding")
	}

	x := engine.Tensor{Type: engine.FP32, Shape: []int64{6}, Data: floats(1, 2, 3, 4, 5, 6)}

	for _, shape := range [][]int64{{2, 3}, {2, 3}, {3, 2}, {6, 1}, {2, 3}} {
		got, _ := ask(t, s, x, engine.Tensor{Type: engine.Int64, Shape: []int64{2}, Data: int64s(shape...)})
		if !slices.Equal(got.Shape, shape) || string(got.Data) != string(x.Data) {
			t.Errorf("for %v: got %v %v", shape, got.Shape, got.Data)
		}
	}
}

func TestNumberOfResultsThatDependsOnValues(t *testing.T) {
	t.Parallel()

	s := load(t, new(onnxgen.Model).Input("x", onnxgen.Float, onnxgen.Shape(4)).
		Output("y", onnxgen.Int64, onnxgen.Shape(1, -1)).Node("NonZero", []string{"x"}, []string{"y"}))

	for _, tc := range []struct{ in, want []byte }{
		{floats(1, 0, 0, 1), int64s(0, 3)},
		{floats(1, 0, 0, 1), int64s(0, 3)},
		{floats(0, 5, 0, 0), int64s(1)},
		{floats(1, 1, 1, 1), int64s(0, 1, 2, 3)},
		{floats(0, 0, 0, 0), nil},
	} {
		got, _ := ask(t, s, engine.Tensor{Type: engine.FP32, Shape: []int64{4}, Data: tc.in})
		if string(got.Data) != string(tc.want) {
			t.Errorf("got %v, want %v", got.Data, tc.want)
		}
	}
}

// TestNamesOfDimensionsThatLie declares the same name for dimensions that differ.
func TestNamesOfDimensionsThatLie(t *testing.T) {
	t.Parallel()

	s := load(t, new(onnxgen.Model).Input("x", onnxgen.Float, onnxgen.Batch(2)).Input("k", onnxgen.Int64, onnxgen.Shape(1)).
		Int64s("zero", []int64{1}, 0).Output("y", onnxgen.Float, onnxgen.Batch(2)).
		Node("Slice", []string{"x", "zero", "k"}, []string{"y"}))

	x := engine.Tensor{Type: engine.FP32, Shape: []int64{3, 2}, Data: floats(1, 2, 3, 4, 5, 6)}

	for _, k := range []int64{3, 1, 2} {
		got, _ := ask(t, s, x, engine.Tensor{Type: engine.Int64, Shape: []int64{1}, Data: int64s(k)})
		if !slices.Equal(got.Shape, []int64{k, 2}) || string(got.Data) != string(x.Data[:8*k]) {
			t.Errorf("%d rows: got %v %v", k, got.Shape, got.Data)
		}
	}
}
