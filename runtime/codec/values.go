package codec

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Values reads a JSON array, nested in any way, of exactly n elements and appends their binary
// form to dst. It allocates nothing when dst is large enough. name appears in errors.
func (s *Scanner) Values(dst []byte, name string, t engine.DataType, n int) ([]byte, error) {
	if t == engine.FP16 || t == engine.BF16 {
		return dst, fault.New(fault.BadTensor, "receiving %s data via JSON is not supported. "+
			"Please use the binary data format for input %s", t, name)
	}

	if t == engine.Bytes {
		return s.byteValues(dst, name, n)
	}

	size := t.Size()
	if size == 0 {
		return dst, fault.New(fault.BadTensor, "input '%s' has no known datatype", name)
	}

	v := filler{name: name, typ: t, n: n, size: size}
	v.dst, dst = window(dst, n*size)

	return dst, s.walk(&v)
}

// window lengthens dst by n bytes and returns them.
func window(dst []byte, n int) (tail, whole []byte) {
	at := len(dst)
	if cap(dst)-at < n {
		grown := make([]byte, at, at+max(n, at/4))
		copy(grown, dst)
		dst = grown
	}

	dst = dst[:at+n]

	return dst[at:], dst
}

// filler takes one element after the other.
type filler struct {
	dst  []byte
	name string
	typ  engine.DataType
	n    int
	k    int
	size int
}

func (s *Scanner) walk(v *filler) error {
	if s.Peek() != '[' {
		if err := s.element(v); err != nil {
			return err
		}

		return v.complete()
	}

	base := s.depth

	for {
		s.fast(v)

		if s.Peek() == '[' {
			if err := s.begin('[', ""); err != nil {
				return err
			}

			if s.Peek() != ']' {
				continue
			}
		} else if err := s.element(v); err != nil {
			return err
		}

		done, err := s.closeArrays(base)
		if err != nil {
			return err
		}

		if done {
			return v.complete()
		}
	}
}

// closeArrays consumes closing brackets and then a comma; done when the outermost array ended.
func (s *Scanner) closeArrays(base int) (bool, error) {
	for {
		switch s.Peek() {
		case ',':
			s.i++

			return false, nil
		case ']':
			s.i++
			s.depth--
			s.first = false

			if s.depth == base {
				return true, nil
			}
		default:
			return false, s.fail("',' or ']' is expected")
		}
	}
}

func (v *filler) complete() error {
	if v.k != v.n {
		return fault.New(fault.BadTensor,
			"Failed to parse 'data' field of input '%s': shape does not match true shape: %d elements given, %d expected",
			v.name, v.k, v.n)
	}

	return nil
}

// element reads one number or bool.
func (s *Scanner) element(v *filler) error {
	if v.k >= v.n {
		return fault.New(fault.BadTensor,
			"Shape does not match true shape of 'data' field of input '%s': more than %d elements given", v.name, v.n)
	}

	next, st := put(v.dst[v.k*v.size:], v.typ, s.b, s.i)
	if st != numOK {
		return s.badElement(v, st)
	}

	s.i = next
	s.first = false
	v.k++

	return nil
}

func (s *Scanner) badElement(v *filler, st numState) error {
	if s.i >= len(s.b) {
		return s.fail("the data of input '" + v.name + "' does not end")
	}

	probe := s.From(s.i)
	text, err := probe.Raw()

	if err != nil && st == numSyntax {
		return fault.New(fault.BadJSON, "invalid JSON at byte %d: element %d of input '%s' is not a value", s.i, v.k, v.name)
	}

	if len(text) > 32 {
		text = append(append([]byte(nil), text[:32]...), "..."...)
	}

	why := "is not a number"

	switch {
	case v.typ == engine.Bool:
		why = "is not true or false"
	case st == numRange:
		why = "is out of range"
	case st == numInteger:
		why = "is not an integer"
	}

	return fault.New(fault.BadTensor, "element %d of input '%s', %s, %s for datatype %s", v.k, v.name,
		strconv.QuoteToASCII(string(text)), why, v.typ)
}

// put writes the value at b[i:] and returns where it ends.
func put(dst []byte, t engine.DataType, b []byte, i int) (int, numState) {
	switch t { //nolint:exhaustive // the others are signed integers
	case engine.FP32:
		f, next, st := parseFloat32(b, i)
		binary.LittleEndian.PutUint32(dst, math.Float32bits(f))

		return next, st
	case engine.FP64:
		f, next, st := parseFloat(b, i)
		binary.LittleEndian.PutUint64(dst, math.Float64bits(f))

		return next, st
	case engine.Bool:
		return putBool(dst, b, i)
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64:
		v, next, st := parseUint(b, i)
		if st == numOK && t != engine.Uint64 && v>>(8*t.Size()) != 0 {
			st = numRange
		}

		putInt(dst, t.Size(), v)

		return next, st
	default:
		v, next, st := parseInt(b, i)
		if bits := 8*t.Size() - 1; st == numOK && bits < 63 && (v >= 1<<bits || v < -1<<bits) {
			st = numRange
		}

		putInt(dst, t.Size(), uint64(v))

		return next, st
	}
}

func putBool(dst, b []byte, i int) (int, numState) {
	switch rest := b[min(i, len(b)):]; {
	case hasPrefix(rest, "true"):
		dst[0] = 1

		return i + 4, numOK
	case hasPrefix(rest, "false"):
		dst[0] = 0

		return i + 5, numOK
	default:
		return i, numSyntax
	}
}

func putInt(dst []byte, size int, v uint64) {
	switch size {
	case 1:
		dst[0] = byte(v)
	case 2:
		binary.LittleEndian.PutUint16(dst, uint16(v))
	case 4:
		binary.LittleEndian.PutUint32(dst, uint32(v))
	default:
		binary.LittleEndian.PutUint64(dst, v)
	}
}

// byteValues reads strings: per element a length and the bytes.
func (s *Scanner) byteValues(dst []byte, name string, n int) ([]byte, error) {
	base := s.depth
	v := filler{name: name, typ: engine.Bytes, n: n}

	if s.Peek() != '[' {
		dst, err := s.appendString(dst, &v)
		if err != nil {
			return dst, err
		}

		return dst, v.complete()
	}

	for {
		if s.Peek() == '[' {
			if err := s.begin('[', ""); err != nil {
				return dst, err
			}

			if s.Peek() != ']' {
				continue
			}
		} else {
			var err error
			if dst, err = s.appendString(dst, &v); err != nil {
				return dst, err
			}
		}

		done, err := s.closeArrays(base)
		if err != nil {
			return dst, err
		}

		if done {
			return dst, v.complete()
		}
	}
}

func (s *Scanner) appendString(dst []byte, v *filler) ([]byte, error) {
	if v.k >= v.n {
		return dst, fault.New(fault.BadTensor,
			"Shape does not match true shape of 'data' field of input '%s': more than %d elements given", v.name, v.n)
	}

	if s.Peek() != '"' {
		return dst, fault.New(fault.BadTensor, "element %d of input '%s' is not a string, as datatype BYTES wants", v.k, v.name)
	}

	text, err := s.String()
	if err != nil {
		return dst, err
	}

	v.k++
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(text)))

	return append(dst, text...), nil
}
