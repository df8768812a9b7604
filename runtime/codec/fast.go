package codec

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// The loops here read runs of "value," where the general way costs a chain of calls for each
// value. They stop at whatever they do not know (brackets, exponents, long numbers, mistakes) with
// the scanner before that value, so that one place alone decides what is an error.

// fast reads a run of values that are each followed by a comma.
func (s *Scanner) fast(v *filler) {
	switch v.typ { //nolint:exhaustive // the others have no short way
	case engine.FP32:
		s.fastFloats(v, true)
	case engine.FP64:
		s.fastFloats(v, false)
	case engine.Int8, engine.Int16, engine.Int32, engine.Int64:
		bits := uint(8*v.size - 1)
		s.fastInts(v, 1<<bits-1, true)
	case engine.Uint8, engine.Uint16, engine.Uint32, engine.Uint64:
		s.fastInts(v, math.MaxUint64>>(64-8*v.size), false)
	default:
	}
}

// allDigits reports whether the eight bytes in w are ASCII digits.
func allDigits(w uint64) bool {
	return (w&(w+0x0606060606060606)&0xf0f0f0f0f0f0f0f0)^0x3030303030303030 == 0
}

// eight is the number that eight digits, first in the lowest byte, spell.
func eight(w uint64) uint64 {
	w -= 0x3030303030303030
	w = w*10 + w>>8

	const mask = 0x000000ff000000ff

	return ((w&mask)*0x000f424000000064 + (w>>16&mask)*0x0000271000000001) >> 32
}

// digitRun reads digits onto mant and returns where they end.
func digitRun(b []byte, i int, mant uint64) (uint64, int) {
	for i+8 <= len(b) {
		w := binary.LittleEndian.Uint64(b[i:])
		if !allDigits(w) {
			break
		}

		mant = mant*100_000_000 + eight(w)
		i += 8
	}

	for ; i < len(b); i++ {
		c := b[i] - '0'
		if c > 9 {
			break
		}

		mant = mant*10 + uint64(c)
	}

	return mant, i
}

func (s *Scanner) fastFloats(v *filler, single bool) { //nolint:revive // one loop for both widths
	const mostDigits = 19 // fit uint64

	b, width := s.b, 64
	if single {
		width = 32
	}

	for i := s.i; v.k < v.n; v.k++ {
		start := i
		if i < len(b) && b[i] == '-' {
			i++
		}

		first := i

		mant, i1 := digitRun(b, i, 0)
		if i1 == first || (b[first] == '0' && i1 > first+1) {
			return
		}

		i = i1
		digits, frac := i-first, 0

		if i < len(b) && b[i] == '.' {
			dot := i + 1

			mant, i = digitRun(b, dot, mant)
			if frac = i - dot; frac == 0 {
				return
			}

			digits += frac
		}

		end := i
		if i = comma(b, i); i < 0 || digits > mostDigits {
			return
		}

		f, ok := quotient(mant, frac, single)
		if !ok {
			f, _ = strconv.ParseFloat(view(b[start:end]), width)
		} else if b[start] == '-' {
			f = -f
		}

		if single {
			binary.LittleEndian.PutUint32(v.dst[4*v.k:], math.Float32bits(float32(f)))
		} else {
			binary.LittleEndian.PutUint64(v.dst[8*v.k:], math.Float64bits(f))
		}

		s.i = i
	}
}

// quotient is mant / 10^frac if that is certain to round correctly. frac is at most 19.
func quotient(mant uint64, frac int, single bool) (float64, bool) { //nolint:revive // one loop for both widths
	f := float64(mant) / pow10[frac]
	if !single {
		return f, mant < 1<<53 // both operands are exact, so there was one rounding
	}

	// Two roundings at most were done, which moved f by less than two units in its last place; that
	// matters to float32 only next to the middle between two of them.
	const low, half, near = 1<<29 - 1, 1 << 28, 2

	d := int64(math.Float64bits(f)&low) - half

	return f, d > near || d < -near
}

// comma skips white space, a comma and white space; -1 if there is no comma.
func comma(b []byte, i int) int {
	if i+1 < len(b) && b[i] == ',' && b[i+1] > ' ' {
		return i + 1
	}

	for i < len(b) && space(b[i]) {
		i++
	}

	if i == len(b) || b[i] != ',' {
		return -1
	}

	for i++; i < len(b) && space(b[i]); i++ {
	}

	return i
}

func space(c byte) bool { return c == ' ' || c == '\n' || c == '\r' || c == '\t' }

func (s *Scanner) fastInts(v *filler, most uint64, signed bool) {
	const mostDigits = 18

	b := s.b

	for i := s.i; v.k < v.n; v.k++ {
		neg := signed && i < len(b) && b[i] == '-'
		if neg {
			i++
		}

		first := i

		var u uint64
		for ; i < len(b) && b[i]-'0' <= 9; i++ {
			u = u*10 + uint64(b[i]-'0')
		}

		digits := i - first
		if digits == 0 || digits > mostDigits || (b[first] == '0' && digits > 1) {
			return
		}

		if i = comma(b, i); i < 0 {
			return
		}

		switch {
		case neg && u <= most+1:
			u = -u
		case neg || u > most:
			return
		}

		putInt(v.dst[v.k*v.size:], v.size, u)

		s.i = i
	}
}
