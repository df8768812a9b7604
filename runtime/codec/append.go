package codec

import (
	"encoding/binary"
	"math"
	"strconv"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// AppendValues appends a flat JSON array with the values of t. FP16 and BF16 cannot travel
// in JSON under the V2 protocol, nor can BYTES that are not UTF-8: these are faults.
// NaN and infinities are written as NaN, Infinity and -Infinity, as Triton does.
func AppendValues(dst []byte, t *engine.Tensor) ([]byte, error) {
	switch t.Type { //nolint:exhaustive // the others are numbers
	case engine.FP16, engine.BF16:
		return dst, fault.New(fault.BadTensor, "sending %s data via JSON is not supported. "+
			"Please use the binary data format for output %s", t.Type, t.Name)
	case engine.Bytes:
		return appendByteValues(dst, t)
	case engine.Invalid:
		return dst, fault.New(fault.Internal, "output %s has no type", t.Name)
	default:
	}

	dst = append(dst, '[')
	size := t.Type.Size()

	for at := 0; at+size <= len(t.Data); at += size {
		if at > 0 {
			dst = append(dst, ',')
		}

		dst = AppendScalar(dst, t.Type, t.Data[at:])
	}

	return append(dst, ']'), nil
}

// AppendScalar appends the first element of data as JSON. t is not BYTES.
func AppendScalar(dst []byte, t engine.DataType, data []byte) []byte {
	switch t {
	case engine.FP32:
		return AppendFloat(dst, float64(math.Float32frombits(binary.LittleEndian.Uint32(data))), 32)
	case engine.FP64:
		return AppendFloat(dst, math.Float64frombits(binary.LittleEndian.Uint64(data)), 64)
	case engine.Bool:
		return strconv.AppendBool(dst, data[0] != 0)
	case engine.Uint8:
		return strconv.AppendUint(dst, uint64(data[0]), 10)
	case engine.Uint16:
		return strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint16(data)), 10)
	case engine.Uint32:
		return strconv.AppendUint(dst, uint64(binary.LittleEndian.Uint32(data)), 10)
	case engine.Uint64:
		return strconv.AppendUint(dst, binary.LittleEndian.Uint64(data), 10)
	case engine.Int8:
		return strconv.AppendInt(dst, int64(int8(data[0])), 10)
	case engine.Int16:
		return strconv.AppendInt(dst, int64(int16(binary.LittleEndian.Uint16(data))), 10)
	case engine.Int32:
		return strconv.AppendInt(dst, int64(int32(binary.LittleEndian.Uint32(data))), 10)
	case engine.Int64:
		return strconv.AppendInt(dst, int64(binary.LittleEndian.Uint64(data)), 10)
	case engine.FP16, engine.BF16:
		return AppendFloat(dst, Scalar(t, data), 32)
	case engine.Bytes, engine.Invalid:
		panic("BUG: AppendScalar of " + t.String())
	}

	return dst
}

// AppendFloat appends the shortest text that reads back as f.
func AppendFloat(dst []byte, f float64, bits int) []byte {
	switch {
	case math.IsNaN(f):
		return append(dst, "NaN"...)
	case math.IsInf(f, 1):
		return append(dst, "Infinity"...)
	case math.IsInf(f, -1):
		return append(dst, "-Infinity"...)
	default:
		return strconv.AppendFloat(dst, f, 'g', -1, bits)
	}
}

// Scalar is the first element of data as a float64. t is not BYTES.
func Scalar(t engine.DataType, data []byte) float64 {
	switch t {
	case engine.FP32:
		return float64(math.Float32frombits(binary.LittleEndian.Uint32(data)))
	case engine.FP64:
		return math.Float64frombits(binary.LittleEndian.Uint64(data))
	case engine.FP16:
		return float64(Float16(binary.LittleEndian.Uint16(data)))
	case engine.BF16:
		return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(data)) << 16))
	case engine.Bool, engine.Uint8:
		return float64(data[0])
	case engine.Uint16:
		return float64(binary.LittleEndian.Uint16(data))
	case engine.Uint32:
		return float64(binary.LittleEndian.Uint32(data))
	case engine.Uint64:
		return float64(binary.LittleEndian.Uint64(data))
	case engine.Int8:
		return float64(int8(data[0]))
	case engine.Int16:
		return float64(int16(binary.LittleEndian.Uint16(data)))
	case engine.Int32:
		return float64(int32(binary.LittleEndian.Uint32(data)))
	case engine.Int64:
		return float64(int64(binary.LittleEndian.Uint64(data)))
	case engine.Bytes, engine.Invalid:
		panic("BUG: Scalar of " + t.String())
	}

	return 0
}

// EachBytes calls f for every element of a BYTES tensor's data. It returns false if data is malformed or f said so.
func EachBytes(data []byte, f func(elem []byte) bool) bool {
	for len(data) > 0 {
		if len(data) < 4 {
			return false
		}

		n := int(binary.LittleEndian.Uint32(data))
		if n > len(data)-4 || !f(data[4:4+n]) {
			return false
		}

		data = data[4+n:]
	}

	return true
}

// CountBytes is the number of elements in a BYTES tensor's data; -1 if it is malformed.
func CountBytes(data []byte) int {
	n := 0

	for len(data) > 0 {
		if len(data) < 4 {
			return -1
		}

		size := uint64(binary.LittleEndian.Uint32(data))
		if size > uint64(len(data)-4) {
			return -1
		}

		data = data[4+size:]
		n++
	}

	return n
}

func appendByteValues(dst []byte, t *engine.Tensor) ([]byte, error) {
	dst = append(dst, '[')

	for data := t.Data; len(data) > 0; {
		if len(data) < 4 || uint64(binary.LittleEndian.Uint32(data)) > uint64(len(data)-4) {
			return dst, fault.New(fault.Internal, "output %s is malformed", t.Name)
		}

		n := int(binary.LittleEndian.Uint32(data))
		elem := data[4 : 4+n]
		data = data[4+n:]

		if !utf8.Valid(elem) {
			return dst, fault.New(fault.BadTensor,
				"output %s holds bytes that are not UTF-8. Please use the binary data format for it", t.Name)
		}

		if dst[len(dst)-1] != '[' {
			dst = append(dst, ',')
		}

		dst = AppendString(dst, elem)
	}

	return append(dst, ']'), nil
}

// AppendString appends text as a JSON string. Bytes that are not UTF-8 become U+FFFD.
func AppendString[T ~string | ~[]byte](dst []byte, text T) []byte {
	const hex = "0123456789abcdef"

	dst = append(dst, '"')

	for i := 0; i < len(text); {
		switch c := text[i]; {
		case c == '"' || c == '\\':
			dst = append(dst, '\\', c)
			i++
		case c == '\n':
			dst = append(dst, '\\', 'n')
			i++
		case c < ' ':
			dst = append(dst, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			dst = append(dst, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(string(text[i:min(i+utf8.UTFMax, len(text))]))
			dst = utf8.AppendRune(dst, r)
			i += n
		}
	}

	return append(dst, '"')
}

// Float16 converts an IEEE 754 half.
func Float16(h uint16) float32 {
	sign := uint32(h>>15) << 31
	exp := uint32(h>>10) & 31
	frac := uint32(h) & 1023

	switch exp {
	case 0:
		f := float32(frac) / (1 << 24)
		if sign != 0 {
			f = -f
		}

		if frac == 0 {
			return math.Float32frombits(sign)
		}

		return f
	case 31:
		return math.Float32frombits(sign | 255<<23 | frac<<13)
	default:
		return math.Float32frombits(sign | (exp+112)<<23 | frac<<13)
	}
}

// Half converts to an IEEE 754 half, rounding to nearest even.
func Half(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits>>16) & 0x8000
	exp := int(bits>>23) & 255
	frac := bits & (1<<23 - 1)

	switch {
	case exp == 255 && frac != 0:
		return sign | 0x7e00
	case exp > 142: // 2^16 and above, infinities
		return sign | 0x7c00
	case exp < 102: // rounds to zero
		return sign
	case exp < 113: // subnormal
		return sign | roundShift(frac|1<<23, 126-exp)
	default:
		return sign | uint16(uint32(exp-112)<<10+uint32(roundShift(frac, 13)))
	}
}

// roundShift is v>>n to nearest even. n is 1..25.
func roundShift(v uint32, n int) uint16 {
	half := uint32(1) << (n - 1)
	odd := v >> n & 1

	return uint16((v + half - 1 + odd) >> n)
}

// Brain converts to bfloat16, rounding to nearest even.
func Brain(f float32) uint16 {
	bits := math.Float32bits(f)
	if f != f {
		return uint16(bits>>16) | 1<<6
	}

	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

// AppendRounded appends v as an element of an integer type, rounded and kept within its range.
func AppendRounded(dst []byte, t engine.DataType, v float64) []byte {
	v = math.RoundToEven(v)
	bits := 8 * t.Size()
	at := len(dst)
	dst = append(dst, make([]byte, t.Size())...)

	switch t { //nolint:exhaustive // the others are signed
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64:
		most := math.Ldexp(1, bits)

		switch {
		case !(v > 0):
			putInt(dst[at:], t.Size(), 0)
		case v >= most:
			putInt(dst[at:], t.Size(), math.MaxUint64)
		default:
			putInt(dst[at:], t.Size(), uint64(v))
		}
	default:
		most := math.Ldexp(1, bits-1)

		switch {
		case v >= most:
			putInt(dst[at:], t.Size(), 1<<(bits-1)-1)
		case v < -most || v != v:
			putInt(dst[at:], t.Size(), 1<<(bits-1))
		default:
			putInt(dst[at:], t.Size(), uint64(int64(v)))
		}
	}

	return dst
}
