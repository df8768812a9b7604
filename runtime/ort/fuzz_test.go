package ort_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// FuzzStrings gives the engine string tensors of any bytes: they come back as they are or are
// the caller's fault, and C never reads past them.
func FuzzStrings(f *testing.F) {
	s := load(f, onnxgen.Identity(onnxgen.String, onnxgen.Shape(-1)))

	f.Add(int64(1), texts("abc"))
	f.Add(int64(2), texts("", "\x00"))
	f.Add(int64(1), []byte{255, 255, 255, 255})
	f.Add(int64(0), []byte{})
	f.Fuzz(func(t *testing.T, n int64, data []byte) {
		out, release, err := s.Run(t.Context(), []engine.Tensor{{Type: engine.Bytes, Shape: []int64{n}, Data: data}}, nil)
		if err != nil {
			if fault.From(err).Code != fault.BadTensor {
				t.Fatal(err)
			}

			return
		}
		defer release()

		if string(out[0].Data) != string(data) {
			t.Errorf("%q came back as %q", data, out[0].Data)
		}
	})
}

// FuzzModel gives the engine damaged models: each is refused, and the process lives.
func FuzzModel(f *testing.F) {
	e := newEngine(f)

	f.Add(onnxgen.MLP(1, 4, 4, 2).Bytes())
	f.Add(onnxgen.Identity(onnxgen.String, onnxgen.Shape(-1)).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		path := t.TempDir() + "/model.onnx"
		writeFile(t, path, string(data))

		s, err := e.Load(t.Context(), engine.LoadSpec{Path: path})
		if err != nil {
			if fault.From(err).Code != fault.ModelInvalid {
				t.Fatal(err)
			}

			return
		}

		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}
