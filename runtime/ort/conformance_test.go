package ort_test

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// TestONNXNodeModels runs the test models of ONNX and of PyTorch, as Debian's libonnx-testdata has
// them, and compares what it gives with what it should. SLUICE_ONNX_TESTDATA names another place.
func TestONNXNodeModels(t *testing.T) {
	t.Parallel()

	root := cmp.Or(os.Getenv("SLUICE_ONNX_TESTDATA"), "/usr/share/libonnx-testdata/data")

	dirs, err := filepath.Glob(filepath.Join(root, "*", "*", "model.onnx"))
	if err != nil || len(dirs) == 0 {
		t.Skipf("no models in %s (Debian package libonnx-testdata)", root)
	}

	e := newEngine(t)
	count := map[string]int{}
	refused := map[string]int{}

	for _, path := range dirs {
		dir := filepath.Dir(path)

		verdict, detail := conform(t, e, dir)
		count[verdict]++

		switch verdict {
		case "refused":
			refused[reason(detail)]++
		case "wrong", "failed":
			t.Logf("%s: %s: %s", filepath.Base(dir), verdict, detail)
		}
	}

	t.Logf("%d models: %v", len(dirs), count)

	for why, n := range refused {
		t.Logf("refused %3d: %s", n, why)
	}

	if count["right"] < len(dirs)*85/100 {
		t.Errorf("only %d of %d models are right", count["right"], len(dirs))
	}
}

// reason shortens a refusal to its kind.
func reason(text string) string {
	for _, key := range []string{
		"sequence", "optional value", "element type outside", "NOT_IMPLEMENTED", "Could not find an implementation",
		"is not a registered function/op", "No Op registered", "Type Error", "opset",
	} {
		if strings.Contains(text, key) {
			return key
		}
	}

	return text
}

func conform(t *testing.T, e *ort.Engine, dir string) (verdict, detail string) {
	t.Helper()

	s, err := e.Load(t.Context(), engine.LoadSpec{Path: filepath.Join(dir, "model.onnx")})
	if err != nil {
		if fault.From(err).Code != fault.ModelInvalid {
			t.Errorf("%s: %v", dir, err)
		}

		return "refused", err.Error()
	}
	defer s.Close()

	in, err := tensors(dir, "input", len(s.Inputs()))
	if err != nil {
		return "unusable", err.Error()
	}

	out, release, err := s.Run(t.Context(), in, nil)
	if err != nil {
		return "failed", err.Error()
	}
	defer release()

	want, err := tensors(dir, "output", len(out))
	if err != nil {
		return "unusable", err.Error()
	}

	for i := range out {
		if why := compare(out[i], want[i]); why != "" {
			return "wrong", out[i].Name + ": " + why
		}
	}

	return "right", ""
}

func tensors(dir, kind string, n int) ([]engine.Tensor, error) {
	out := make([]engine.Tensor, n)

	for i := range out {
		data, err := os.ReadFile(filepath.Join(dir, "test_data_set_0", fmt.Sprintf("%s_%d.pb", kind, i)))
		if err != nil {
			return nil, err
		}

		p, err := onnxgen.ParseTensor(data)
		if err != nil {
			return nil, err
		}

		j := slices.IndexFunc(elems, func(e struct {
			onnx onnxgen.Type
			dt   engine.DataType
		},
		) bool {
			return e.onnx == p.Type
		})
		if j < 0 {
			return nil, fmt.Errorf("%s %d has the type %d", kind, i, p.Type)
		}

		out[i] = engine.Tensor{Name: p.Name, Type: elems[j].dt, Shape: p.Shape, Data: p.Raw}
	}

	return out, nil
}

func compare(got, want engine.Tensor) string {
	if got.Type != want.Type || !slices.Equal(got.Shape, want.Shape) || len(got.Data) != len(want.Data) {
		return fmt.Sprintf("%v %v of %d bytes, want %v %v of %d", got.Type, got.Shape, len(got.Data), want.Type, want.Shape, len(want.Data))
	}

	tolerance := 1e-3

	var read func(b []byte) float64

	switch got.Type { //nolint:exhaustive // the rest is compared exactly
	case engine.FP32:
		read = func(b []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(b))) }
	case engine.FP64:
		read = func(b []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(b)) }
	case engine.FP16, engine.BF16: // one unit in the last place is more than the tolerance
		read = func(b []byte) float64 { return float64(int16(binary.LittleEndian.Uint16(b))) }
		tolerance = 1e-2
	default:
		if string(got.Data) != string(want.Data) {
			return "values differ"
		}

		return ""
	}

	for i, size := 0, got.Type.Size(); i < len(got.Data); i += size {
		g, w := read(got.Data[i:]), read(want.Data[i:])
		if g == w || math.IsNaN(g) && math.IsNaN(w) || math.Abs(g-w) <= 1e-7+tolerance*math.Abs(w) {
			continue
		}

		return fmt.Sprintf("value %d is %v, want %v", i/size, g, w)
	}

	return ""
}
