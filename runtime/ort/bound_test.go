package ort_test

import (
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/ortlib"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

func TestTheBindingRunsWhatItCarries(t *testing.T) {
	t.Parallel()

	dims := onnxgen.Shape(-1, 2)
	mixed := new(onnxgen.Model).Input("x", onnxgen.Float, dims).
		Output("y", onnxgen.Float, dims).Output("half", onnxgen.Float16, dims).
		Node("Neg", []string{"x"}, []string{"y"}).
		Node("Cast", []string{"x"}, []string{"half"}, onnxgen.Int("to", int64(onnxgen.Float16)))

	models := map[string]struct {
		model *onnxgen.Model
		bound bool
	}{
		"network":       {onnxgen.MLP(1, 4, 4, 2), true},
		"several types": {onnxgen.Cast(onnxgen.Float, onnxgen.Int64, dims), true},
		"16-bit input":  {onnxgen.Cast(onnxgen.Float16, onnxgen.Float, dims), false},
		"16-bit output": {mixed, false},
		"scalar output": {onnxgen.Binary("Add", onnxgen.Float, onnxgen.Shape()), false},
		"without an input": {new(onnxgen.Model).Output("y", onnxgen.Float, onnxgen.Shape(2)).
			Floats("c", []int64{2}, []float32{1, 2}).Node("Neg", []string{"c"}, []string{"y"}), false},
		"a sequence beside": {new(onnxgen.Model).Input("x", onnxgen.Float, dims).
			SequenceOutput("s", onnxgen.Float).Output("y", onnxgen.Float, dims).
			Node("SequenceConstruct", []string{"x"}, []string{"s"}).Node("Neg", []string{"x"}, []string{"y"}), true},
	}
	for _, el := range elems {
		models[el.dt.String()] = struct {
			model *onnxgen.Model
			bound bool
		}{onnxgen.Identity(el.onnx, dims), !slices.Contains([]engine.DataType{engine.FP16, engine.BF16, engine.Bytes}, el.dt)}
	}

	for name, tc := range models {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			s := load(t, tc.model)
			if got := ort.Bound(s); got != tc.bound {
				t.Errorf("run by the binding: %v, want %v", got, tc.bound)
			}
		})
	}
}

func TestScalarsOfEveryTypeReachTheModel(t *testing.T) {
	t.Parallel()

	for _, el := range elems {
		if el.dt == engine.Bytes {
			continue
		}

		t.Run(el.dt.String(), func(t *testing.T) {
			t.Parallel()

			// A scalar goes in; what comes out has one dimension, so that the binding can carry it.
			s := load(t, new(onnxgen.Model).Input("x", el.onnx, onnxgen.Shape()).Output("y", el.onnx, onnxgen.Shape(1)).
				Int64s("axes", []int64{1}, 0).Node("Unsqueeze", []string{"x", "axes"}, []string{"y"}))

			data := make([]byte, el.dt.Size()+1)
			for i := range data {
				data[i] = byte(3*i + 1)
			}

			if el.dt == engine.Bool {
				data[1] = 1
			}

			x := engine.Tensor{Type: el.dt, Data: data[1:]} // at an odd address

			out, release, err := s.Run(t.Context(), []engine.Tensor{x}, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer release()

			if string(out[0].Data) != string(data[1:]) || !slices.Equal(out[0].Shape, []int64{1}) {
				t.Errorf("%v became %+v", data[1:], out[0])
			}
		})
	}
}

// A model whose output has other dimensions than it declares is the model's fault, and the
// session lives on.
func TestAnOutputOtherThanDeclared(t *testing.T) {
	t.Parallel()

	s := load(t, new(onnxgen.Model).Input("x", onnxgen.Float, onnxgen.Shape(-1)).Input("shape", onnxgen.Int64, onnxgen.Shape(-1)).
		Output("y", onnxgen.Float, onnxgen.Shape(-1)).Node("Reshape", []string{"x", "shape"}, []string{"y"}))
	if !ort.Bound(s) {
		t.Fatal("not run by the binding")
	}

	x := engine.Tensor{Type: engine.FP32, Shape: []int64{1}, Data: floats(7)}

	_, _, err := s.Run(t.Context(), []engine.Tensor{x, {Type: engine.Int64, Shape: []int64{0}}}, nil)
	if f := fault.From(err); f == nil || f.Code != fault.BackendFailed || !strings.Contains(f.Message(), "declares") {
		t.Errorf("got %v", err)
	}

	one := engine.Tensor{Type: engine.Int64, Shape: []int64{1}, Data: []byte{1, 0, 0, 0, 0, 0, 0, 0}}

	out, release, err := s.Run(t.Context(), []engine.Tensor{x, one}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer release()

	if string(out[0].Data) != string(floats(7)) {
		t.Errorf("got %+v", out[0])
	}
}

func TestOneLibraryForEachProcess(t *testing.T) {
	t.Parallel()

	newEngine(t)

	library, err := ortlib.Find()
	if err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}

	other := filepath.Join(t.TempDir(), "libonnxruntime.so")
	writeFile(t, other, string(data))

	if _, err := ort.New(ort.Config{Library: other}, slog.New(slog.DiscardHandler)); err == nil ||
		!strings.Contains(err.Error(), "has opened") {
		t.Errorf("a second library: %v", err)
	}

	link := filepath.Join(t.TempDir(), "link.so")
	if err := os.Symlink(library, link); err != nil {
		t.Fatal(err)
	}

	e, err := ort.New(ort.Config{Library: link}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("the same library by another name: %v", err)
	}

	if err := e.Close(); err != nil {
		t.Error(err)
	}
}

func TestSymbolsAreReadFromTheFile(t *testing.T) {
	t.Parallel()

	dims := []onnxgen.Dim{{Name: "batch"}, {Size: -1}, {Size: 3}}
	// The large constant lies between what is read.
	m := onnxgen.Identity(onnxgen.Float, dims).Floats("unused", []int64{50000}, make([]float32, 50000)).Bytes()

	for _, tc := range []struct {
		name string
		rank int
		want []string
	}{{"x", 3, []string{"batch", "", ""}}, {"y", 3, []string{"batch", "", ""}}, {"x", 2, nil}, {"unused", 1, nil}, {"z", 3, nil}} {
		got, err := ort.Symbols(m, tc.name, tc.rank)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%s: %q, %v", tc.name, got, err)
		}
	}

	for n := range len(m) - 1 {
		if n > 300 && n < len(m)-300 {
			continue
		}

		if _, err := ort.Symbols(m[:n], "x", 3); err != nil && n == 0 {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
}

// FuzzSymbols reads the declarations of any bytes.
func FuzzSymbols(f *testing.F) {
	f.Add(onnxgen.MLP(1, 4, 4, 2).Bytes())
	f.Add(onnxgen.Identity(onnxgen.String, []onnxgen.Dim{{Name: "n"}}).Bytes())
	f.Add([]byte{0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f})
	f.Fuzz(func(t *testing.T, model []byte) {
		if s, err := ort.Symbols(model, "x", 1); err != nil && s != nil {
			t.Errorf("%q with %v", s, err)
		}
	})
}
