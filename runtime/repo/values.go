package repo

import (
	"encoding/binary"
	"math"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// appendRow appends n elements of made-up data: small floats that the seed decides on,
// and zeros, false and empty strings for everything that may be an index or a key.
func appendRow(data []byte, t engine.DataType, n int, seed uint64) []byte {
	le := binary.LittleEndian

	for range n {
		seed = seed*6364136223846793005 + 1442695040888963407
		x := float64(seed>>40) / (1 << 24)

		switch t { //nolint:exhaustive // the rest is zeros
		case engine.FP32:
			data = le.AppendUint32(data, math.Float32bits(float32(x)))
		case engine.FP64:
			data = le.AppendUint64(data, math.Float64bits(x))
		case engine.FP16:
			data = le.AppendUint16(data, 0x3800|uint16(seed>>50)&0x3ff)
		case engine.BF16:
			data = le.AppendUint16(data, 0x3f00|uint16(seed>>50)&0x7f)
		case engine.Bytes:
			data = le.AppendUint32(data, 0)
		default:
			data = append(data, make([]byte, t.Size())...)
		}
	}

	return data
}

// sameValues compares two tensors of a type: floats nearly, everything else exactly.
func sameValues(t engine.DataType, a, b []byte) bool {
	size := t.Size()
	if len(a) != len(b) {
		return false
	}

	switch t { //nolint:exhaustive // the rest is exact
	case engine.FP32, engine.FP64, engine.FP16, engine.BF16:
	default:
		return string(a) == string(b)
	}

	for i := 0; i < len(a); i += size {
		x, y := float(t, a[i:]), float(t, b[i:])
		if x == y || math.IsNaN(x) && math.IsNaN(y) {
			continue
		}

		if !(math.Abs(x-y) <= tolerance(t)*(0.01+max(math.Abs(x), math.Abs(y)))) {
			return false
		}
	}

	return true
}

// tolerance leaves room for the other order of additions in a larger matrix product.
func tolerance(t engine.DataType) float64 {
	if t == engine.FP16 || t == engine.BF16 {
		return 0.1
	}

	return 0.01
}

func float(t engine.DataType, b []byte) float64 {
	le := binary.LittleEndian

	switch t { //nolint:exhaustive // called for floats only
	case engine.FP64:
		return math.Float64frombits(le.Uint64(b))
	case engine.BF16:
		return float64(math.Float32frombits(uint32(le.Uint16(b)) << 16))
	case engine.FP16:
		return half(le.Uint16(b))
	default:
		return float64(math.Float32frombits(le.Uint32(b)))
	}
}

func half(h uint16) float64 {
	sign := 1.0
	if h&0x8000 != 0 {
		sign = -1
	}

	exp, frac := int(h>>10)&0x1f, float64(h&0x3ff)

	switch {
	case exp == 0:
		return sign * math.Ldexp(frac, -24)
	case exp == 31 && frac != 0:
		return math.NaN()
	case exp == 31:
		return math.Inf(int(sign))
	default:
		return sign * math.Ldexp(1024+frac, exp-25)
	}
}
