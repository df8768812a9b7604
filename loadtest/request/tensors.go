package request

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
)

// TensorMeta is an input of a model, as V2 metadata tells it.
type TensorMeta struct {
	Name     string  `json:"name"`
	Datatype string  `json:"datatype"`
	Shape    []int64 `json:"shape"`
}

// maxElements bounds a made-up tensor: 64 Mi elements.
const maxElements = 64 << 20

// InferenceHeader is the field that tells where the JSON part of a binary request ends.
const InferenceHeader = "Inference-Header-Content-Length"

// Infer makes the body of a V2 inference with random values: small whole numbers for whole number types, 0 to 1
// for others. Open dimensions become batch (the first one) or 1, unless shapes has the input by name.
// With asBinary the tensors follow the JSON as bytes, and jsonLength tells where.
//
//nolint:revive // asBinary chooses the format, which callers know by name
func Infer(inputs []TensorMeta, shapes map[string][]int64, batch int64, asBinary bool) (body []byte, jsonLength int, err error) {
	type tensor struct {
		Name       string          `json:"name"`
		Shape      []int64         `json:"shape"`
		Datatype   string          `json:"datatype"`
		Parameters map[string]int  `json:"parameters,omitempty"`
		Data       json.RawMessage `json:"data,omitempty"`
	}

	var (
		list []tensor
		raw  []byte
		rng  = rand.New(rand.NewPCG(1, 2)) //nolint:gosec // the same values each time
	)

	for _, in := range inputs {
		shape, n, err := concrete(&in, shapes[in.Name], batch)
		if err != nil {
			return nil, 0, err
		}

		t := tensor{Name: in.Name, Shape: shape, Datatype: in.Datatype}
		at := len(raw)

		if asBinary {
			raw, err = appendBinary(raw, in.Datatype, n, rng)
			t.Parameters = map[string]int{"binary_data_size": len(raw) - at}
		} else {
			t.Data, err = appendJSON(nil, in.Datatype, n, rng)
		}

		if err != nil {
			return nil, 0, fmt.Errorf("input %s: %w", in.Name, err)
		}

		list = append(list, t)
	}

	whole := map[string]any{"inputs": list}
	if asBinary {
		whole["parameters"] = map[string]any{"binary_data_output": true}
	}

	body, err = json.Marshal(whole)
	if err != nil {
		return nil, 0, fmt.Errorf("make a request: %w", err)
	}

	return append(body, raw...), len(body), nil
}

// concrete replaces open dimensions.
func concrete(in *TensorMeta, given []int64, batch int64) (shape []int64, n int64, err error) {
	shape = slices.Clone(in.Shape)
	if given != nil {
		shape = slices.Clone(given)
	}

	n = 1

	for i, d := range shape {
		if d < 0 {
			d = 1
			if i == 0 {
				d = batch
			}
		}

		if d > maxElements || n*max(d, 1) > maxElements {
			return nil, 0, fmt.Errorf("input %s: shape %v is too large", in.Name, shape)
		}

		shape[i] = d
		n *= d
	}

	return shape, n, nil
}

func appendJSON(dst []byte, datatype string, n int64, rng *rand.Rand) ([]byte, error) {
	dst = append(dst, '[')

	for i := range n {
		if i > 0 {
			dst = append(dst, ',')
		}

		switch datatype {
		case "BOOL":
			dst = strconv.AppendBool(dst, rng.IntN(2) == 1)
		case "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64":
			dst = strconv.AppendInt(dst, rng.Int64N(100), 10)
		case "FP32", "FP64":
			dst = strconv.AppendFloat(dst, math.Round(rng.Float64()*1e4)/1e4, 'g', -1, 64)
		case "BYTES":
			dst = strconv.AppendQuote(dst, "text "+strconv.Itoa(rng.IntN(100)))
		default:
			return nil, fmt.Errorf("type %s cannot be sent as JSON", datatype)
		}
	}

	return append(dst, ']'), nil
}

func appendBinary(dst []byte, datatype string, n int64, rng *rand.Rand) ([]byte, error) {
	le := binary.LittleEndian

	for range n {
		whole, frac := rng.Uint64N(100), rng.Float64()

		switch datatype {
		case "BOOL":
			dst = append(dst, byte(whole&1))
		case "UINT8", "INT8":
			dst = append(dst, byte(whole))
		case "UINT16", "INT16":
			dst = le.AppendUint16(dst, uint16(whole))
		case "UINT32", "INT32":
			dst = le.AppendUint32(dst, uint32(whole))
		case "UINT64", "INT64":
			dst = le.AppendUint64(dst, whole)
		case "FP32":
			dst = le.AppendUint32(dst, math.Float32bits(float32(frac)))
		case "FP64":
			dst = le.AppendUint64(dst, math.Float64bits(frac))
		case "BF16":
			dst = le.AppendUint16(dst, uint16(math.Float32bits(float32(frac))>>16))
		case "FP16":
			dst = le.AppendUint16(dst, halfOf(frac))
		case "BYTES":
			text := "text " + strconv.FormatUint(whole, 10)
			dst = le.AppendUint32(dst, uint32(len(text)))
			dst = append(dst, text...)
		default:
			return nil, fmt.Errorf("type %s is not known", datatype)
		}
	}

	return dst, nil
}

// halfOf converts a number from 0 to 1 to half precision, truncating; tiny ones become zero.
func halfOf(f float64) uint16 {
	bits := math.Float32bits(float32(f))

	exp := int(bits>>23&0xff) - 127 + 15
	if exp <= 0 {
		return 0
	}

	return uint16(exp<<10) | uint16(bits>>13&0x3ff)
}
