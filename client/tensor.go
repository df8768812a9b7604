package client

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"strconv"
)

// Tensor is an input or output of a model. Raw holds its values little-endian, row by row; those of
// BYTES each with their length in 4 bytes before them.
type Tensor struct {
	Name     string
	Datatype string // BOOL, UINT8 … UINT64, INT8 … INT64, FP16, FP32, FP64, BYTES
	Shape    []int64
	Raw      []byte
}

// Float32s is a tensor of FP32.
func Float32s(name string, shape []int64, values []float32) Tensor {
	raw := make([]byte, 0, 4*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}

	return Tensor{name, "FP32", shape, raw}
}

// Int64s is a tensor of INT64.
func Int64s(name string, shape, values []int64) Tensor {
	raw := make([]byte, 0, 8*len(values))
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint64(raw, uint64(v))
	}

	return Tensor{name, "INT64", shape, raw}
}

// Strings is a tensor of BYTES.
func Strings(name string, shape []int64, values []string) Tensor {
	var raw []byte
	for _, v := range values {
		raw = binary.LittleEndian.AppendUint32(raw, uint32(len(v)))
		raw = append(raw, v...)
	}

	return Tensor{name, "BYTES", shape, raw}
}

// Float32s gives the values of FP32.
func (t *Tensor) Float32s() ([]float32, error) {
	if t.Datatype != "FP32" || len(t.Raw)%4 != 0 {
		return nil, fmt.Errorf("tensor %q is %s, not FP32", t.Name, t.Datatype)
	}

	out := make([]float32, 0, len(t.Raw)/4)
	for b := t.Raw; len(b) > 0; b = b[4:] {
		out = append(out, math.Float32frombits(binary.LittleEndian.Uint32(b)))
	}

	return out, nil
}

// Int64s gives the values of INT64.
func (t *Tensor) Int64s() ([]int64, error) {
	if t.Datatype != "INT64" || len(t.Raw)%8 != 0 {
		return nil, fmt.Errorf("tensor %q is %s, not INT64", t.Name, t.Datatype)
	}

	out := make([]int64, 0, len(t.Raw)/8)
	for b := t.Raw; len(b) > 0; b = b[8:] {
		out = append(out, int64(binary.LittleEndian.Uint64(b)))
	}

	return out, nil
}

// Strings gives the values of BYTES.
func (t *Tensor) Strings() ([]string, error) {
	if t.Datatype != "BYTES" {
		return nil, fmt.Errorf("tensor %q is %s, not BYTES", t.Name, t.Datatype)
	}

	var out []string

	for b := t.Raw; len(b) > 0; {
		if len(b) < 4 || uint64(len(b)-4) < uint64(binary.LittleEndian.Uint32(b)) {
			return nil, fmt.Errorf("tensor %q breaks off", t.Name)
		}

		n := int(binary.LittleEndian.Uint32(b))
		out = append(out, string(b[4:4+n]))
		b = b[4+n:]
	}

	return out, nil
}

// size of one element in bytes; 0 for BYTES, -1 if the datatype is not known.
func (t *Tensor) size() int {
	switch t.Datatype {
	case "BOOL", "UINT8", "INT8":
		return 1
	case "UINT16", "INT16", "FP16":
		return 2
	case "UINT32", "INT32", "FP32":
		return 4
	case "UINT64", "INT64", "FP64":
		return 8
	case "BYTES":
		return 0
	default:
		return -1
	}
}

// check holds the values against the shape.
func (t *Tensor) check() error {
	size := t.size()
	if size < 0 {
		return fmt.Errorf("tensor %q has the unknown datatype %q", t.Name, t.Datatype)
	}

	n := int64(1)

	for _, d := range t.Shape {
		if d < 0 || d > 0 && n > math.MaxInt32/d {
			return fmt.Errorf("tensor %q has the shape %v", t.Name, t.Shape)
		}

		n *= d
	}

	var have int64

	if size > 0 {
		have = int64(len(t.Raw)) / int64(size)
		if len(t.Raw)%size != 0 {
			have = -1
		}
	} else {
		values, err := t.Strings()
		if err != nil {
			return err
		}

		have = int64(len(values))
	}

	if have != n {
		return fmt.Errorf("tensor %q of shape %v has %d values", t.Name, t.Shape, have)
	}

	return nil
}

// json gives the values as a flat list.
func (t *Tensor) json() (json.RawMessage, error) {
	if t.Datatype == "BYTES" {
		values, err := t.Strings()
		if err != nil {
			return nil, err
		}

		return json.Marshal(values)
	}

	out := []byte{'['}

	size := t.size()
	for i := 0; i < len(t.Raw); i += size {
		if i > 0 {
			out = append(out, ',')
		}

		var err error
		if out, err = t.appendNumber(out, t.Raw[i:i+size]); err != nil {
			return nil, err
		}
	}

	return append(out, ']'), nil
}

func (t *Tensor) appendNumber(out, b []byte) ([]byte, error) {
	var word [8]byte

	copy(word[:], b)
	u := binary.LittleEndian.Uint64(word[:])

	switch t.Datatype {
	case "BOOL":
		return strconv.AppendBool(out, u != 0), nil
	case "UINT8", "UINT16", "UINT32", "UINT64":
		return strconv.AppendUint(out, u, 10), nil
	case "INT8":
		return strconv.AppendInt(out, int64(int8(u)), 10), nil
	case "INT16":
		return strconv.AppendInt(out, int64(int16(u)), 10), nil
	case "INT32":
		return strconv.AppendInt(out, int64(int32(u)), 10), nil
	case "INT64":
		return strconv.AppendInt(out, int64(u), 10), nil
	case "FP32":
		return t.appendFloat(out, float64(math.Float32frombits(uint32(u))), 32)
	case "FP64":
		return t.appendFloat(out, math.Float64frombits(u), 64)
	default:
		return nil, fmt.Errorf("tensor %q: %s does not go as JSON", t.Name, t.Datatype)
	}
}

func (t *Tensor) appendFloat(out []byte, f float64, bits int) ([]byte, error) {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return nil, fmt.Errorf("tensor %q: %v does not go as JSON", t.Name, f)
	}

	return strconv.AppendFloat(out, f, 'g', -1, bits), nil
}

// fromJSON reads values, nested or flat.
func (t *Tensor) fromJSON(data json.RawMessage) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()

	var tree any
	if err := dec.Decode(&tree); err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}

	return t.take(tree)
}

func (t *Tensor) take(v any) error {
	switch x := v.(type) {
	case []any:
		for _, e := range x {
			if err := t.take(e); err != nil {
				return err
			}
		}

		return nil
	case bool:
		b := byte(0)
		if x {
			b = 1
		}

		t.Raw = append(t.Raw, b)

		return nil
	case string:
		if t.Datatype != "BYTES" {
			return fmt.Errorf("tensor %q: a text among values of %s", t.Name, t.Datatype)
		}

		t.Raw = binary.LittleEndian.AppendUint32(t.Raw, uint32(len(x)))
		t.Raw = append(t.Raw, x...)

		return nil
	case json.Number:
		return t.number(x.String())
	default:
		return fmt.Errorf("tensor %q: a value is no number, text or truth value", t.Name)
	}
}

func (t *Tensor) number(s string) error {
	var (
		u   uint64
		err error
	)

	switch bits := 8 * t.size(); t.Datatype {
	case "FP32", "FP64":
		var f float64
		if f, err = strconv.ParseFloat(s, bits); t.Datatype == "FP32" {
			u = uint64(math.Float32bits(float32(f)))
		} else {
			u = math.Float64bits(f)
		}
	case "UINT8", "UINT16", "UINT32", "UINT64":
		u, err = strconv.ParseUint(s, 10, bits)
	case "INT8", "INT16", "INT32", "INT64":
		var i int64
		i, err = strconv.ParseInt(s, 10, bits)
		u = uint64(i)
	default:
		return fmt.Errorf("tensor %q: a number among values of %s", t.Name, t.Datatype)
	}

	if err != nil {
		return fmt.Errorf("tensor %q: %w", t.Name, err)
	}

	var word [8]byte

	binary.LittleEndian.PutUint64(word[:], u)
	t.Raw = append(t.Raw, word[:t.size()]...)

	return nil
}
