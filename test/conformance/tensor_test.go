package conformance_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/ort/onnxgen"
)

// types by ONNX's numbers.
var types = map[onnxgen.Type]engine.DataType{ //nolint:exhaustive // Complex has no type in V2
	onnxgen.Bool: engine.Bool, onnxgen.Uint8: engine.Uint8, onnxgen.Uint16: engine.Uint16, onnxgen.Uint32: engine.Uint32,
	onnxgen.Uint64: engine.Uint64, onnxgen.Int8: engine.Int8, onnxgen.Int16: engine.Int16, onnxgen.Int32: engine.Int32,
	onnxgen.Int64: engine.Int64, onnxgen.Float16: engine.FP16, onnxgen.Float: engine.FP32, onnxgen.Double: engine.FP64,
	onnxgen.BFloat16: engine.BF16, onnxgen.String: engine.Bytes,
}

// info is an input or output in V2 metadata.
type info struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// readTensors reads the tensors that come with a model, in the order of what the model declares.
func readTensors(dir, kind string, infos []info) ([]engine.Tensor, error) {
	out := make([]engine.Tensor, len(infos))

	for i := range out {
		data, err := os.ReadFile(filepath.Join(dir, "test_data_set_0", fmt.Sprintf("%s_%d.pb", kind, i)))
		if err != nil {
			return nil, err
		}

		p, err := onnxgen.ParseTensor(data)
		if err != nil {
			return nil, err
		}

		t := engine.Tensor{Name: infos[i].Name, Type: types[p.Type], Shape: p.Shape, Data: p.Raw}

		switch want := engine.ParseDataType(infos[i].Datatype); {
		case t.Type == engine.Uint16 && want == engine.BF16:
			// The files hold BF16 as UINT16, one value in a field of 32 bits or packed in 16.
			t.Type = engine.BF16
		case t.Type == engine.Invalid || t.Type != want:
			return nil, fmt.Errorf("%s %d has the type %d, the model declares %s", kind, i, p.Type, infos[i].Datatype)
		}

		if t.Shape == nil {
			t.Shape = []int64{}
		}

		if n := engine.Elements(t.Shape); t.Type == engine.BF16 && int64(len(t.Data)) == 4*n {
			for j := range n {
				copy(t.Data[2*j:], t.Data[4*j:4*j+2])
			}

			t.Data = t.Data[:2*n]
		}

		out[i] = t
	}

	return out, nil
}

// compare tells how got differs from want, or "".
func compare(got, want *engine.Tensor) string {
	if got.Type != want.Type || !slices.Equal(got.Shape, want.Shape) || len(got.Data) != len(want.Data) {
		return fmt.Sprintf("%v %v of %d bytes, want %v %v of %d",
			got.Type, got.Shape, len(got.Data), want.Type, want.Shape, len(want.Data))
	}

	size := want.Type.Size()

	switch want.Type { //nolint:exhaustive // the rest is compared exactly
	case engine.FP16, engine.BF16, engine.FP32, engine.FP64:
	default:
		if string(got.Data) != string(want.Data) {
			return "values differ"
		}

		return ""
	}

	for i := 0; i < len(want.Data); i += size {
		g, w := float(got.Type, got.Data[i:]), float(want.Type, want.Data[i:])
		if g == w || math.IsNaN(g) && math.IsNaN(w) || math.Abs(g-w) <= 1e-7+1e-3*math.Abs(w) {
			continue
		}

		return fmt.Sprintf("value %d is %v, want %v", i/size, g, w)
	}

	return ""
}

func float(t engine.DataType, b []byte) float64 {
	switch t { //nolint:exhaustive // only floats come here
	case engine.FP16:
		return half(binary.LittleEndian.Uint16(b))
	case engine.BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b)) << 16))
	case engine.FP32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(b)))
	default:
		return math.Float64frombits(binary.LittleEndian.Uint64(b))
	}
}

func half(v uint16) float64 {
	sign, exp, frac := 1.0, int(v>>10&31), float64(v&1023)
	if v>>15 == 1 {
		sign = -1
	}

	switch {
	case exp == 31 && frac != 0:
		return math.NaN()
	case exp == 31:
		return sign * math.Inf(1)
	case exp == 0:
		return sign * math.Ldexp(frac, -24)
	default:
		return sign * math.Ldexp(1024+frac, exp-25)
	}
}

// jsonable reports whether JSON can carry the values: no NaN and no infinity, strings in UTF-8.
// As at Triton, 16-bit floats travel in binary only.
func jsonable(t *engine.Tensor) bool {
	switch t.Type { //nolint:exhaustive // integers always can
	case engine.FP16, engine.BF16:
		return false
	case engine.FP32, engine.FP64:
		for i := 0; i < len(t.Data); i += t.Type.Size() {
			if v := float(t.Type, t.Data[i:]); math.IsNaN(v) || math.IsInf(v, 0) {
				return false
			}
		}
	case engine.Bytes:
		return utf8.Valid(texts(t.Data))
	}

	return true
}

// texts joins the elements of a string tensor.
func texts(data []byte) []byte {
	var all []byte

	for len(data) >= 4 {
		n := binary.LittleEndian.Uint32(data)
		all = append(all, data[4:4+n]...)
		data = data[4+n:]
	}

	return all
}

// values gives the elements as JSON, flat.
func values(t *engine.Tensor) []json.RawMessage {
	out := []json.RawMessage{}
	le := binary.LittleEndian
	size := t.Type.Size()

	for b := t.Data; len(b) > 0; {
		if t.Type == engine.Bytes {
			size = 4 + int(le.Uint32(b))
		}

		var text []byte

		switch t.Type { //nolint:exhaustive // 16-bit floats do not come here
		case engine.Bool:
			text = strconv.AppendBool(nil, b[0] != 0)
		case engine.Uint8:
			text = strconv.AppendUint(nil, uint64(b[0]), 10)
		case engine.Uint16:
			text = strconv.AppendUint(nil, uint64(le.Uint16(b)), 10)
		case engine.Uint32:
			text = strconv.AppendUint(nil, uint64(le.Uint32(b)), 10)
		case engine.Uint64:
			text = strconv.AppendUint(nil, le.Uint64(b), 10)
		case engine.Int8:
			text = strconv.AppendInt(nil, int64(int8(b[0])), 10)
		case engine.Int16:
			text = strconv.AppendInt(nil, int64(int16(le.Uint16(b))), 10)
		case engine.Int32:
			text = strconv.AppendInt(nil, int64(int32(le.Uint32(b))), 10)
		case engine.Int64:
			text = strconv.AppendInt(nil, int64(le.Uint64(b)), 10)
		case engine.FP32:
			text = strconv.AppendFloat(nil, float(t.Type, b), 'g', -1, 32)
		case engine.FP64:
			text = strconv.AppendFloat(nil, float(t.Type, b), 'g', -1, 64)
		default:
			text, _ = json.Marshal(string(b[4:size])) //nolint:errchkjson // a string
		}

		out = append(out, text)
		b = b[size:]
	}

	return out
}

// fill sets the data of t from JSON elements.
func fill(t *engine.Tensor, list []json.RawMessage) error {
	le := binary.LittleEndian

	for _, raw := range list {
		var err error

		switch t.Type { //nolint:exhaustive // 16-bit floats do not come here
		case engine.Bool:
			var v bool
			if err = json.Unmarshal(raw, &v); v {
				t.Data = append(t.Data, 1)
			} else {
				t.Data = append(t.Data, 0)
			}
		case engine.Bytes:
			var v string
			err = json.Unmarshal(raw, &v)
			t.Data = append(le.AppendUint32(t.Data, uint32(len(v))), v...)
		case engine.FP32:
			var v float32
			err = json.Unmarshal(raw, &v)
			t.Data = le.AppendUint32(t.Data, math.Float32bits(v))
		case engine.FP64:
			var v float64
			err = json.Unmarshal(raw, &v)
			t.Data = le.AppendUint64(t.Data, math.Float64bits(v))
		default:
			err = fillInteger(t, string(raw))
		}

		if err != nil {
			return fmt.Errorf("output %q: %w", t.Name, err)
		}
	}

	return nil
}

func fillInteger(t *engine.Tensor, text string) error {
	var b [8]byte

	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		binary.LittleEndian.PutUint64(b[:], u)
	} else {
		i, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return err
		}

		binary.LittleEndian.PutUint64(b[:], uint64(i))
	}

	t.Data = append(t.Data, b[:t.Type.Size()]...)

	return nil
}
