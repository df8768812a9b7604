package codec

import (
	"errors"
	"math"
	"strconv"
	"unsafe"
)

type numState uint8

const (
	numOK      numState = iota
	numSyntax           // not a number
	numRange            // a number that does not fit
	numInteger          // a number, but not an integer
)

// decimal is mant * 10^exp; more says that digits were dropped.
type decimal struct {
	mant uint64
	exp  int
	neg  bool
	more bool
	frac bool // written with a point or an exponent
}

const maxExp = 100_000 // any exponent beyond it means the same

// scanNumber reads a number in JSON's grammar. Beside it, NaN, Infinity and -Infinity are left to the caller.
func scanNumber(b []byte, i int) (decimal, int, numState) {
	var d decimal

	if i < len(b) && b[i] == '-' {
		d.neg = true
		i++
	}

	start := i
	i = d.digits(b, i, 0)

	if i == start || (b[start] == '0' && i > start+1) {
		return d, i, numSyntax
	}

	if i < len(b) && b[i] == '.' {
		d.frac = true
		dot := i + 1
		i = d.digits(b, dot, -1)

		if i == dot {
			return d, i, numSyntax
		}
	}

	if i < len(b) && b[i]|0x20 == 'e' {
		d.frac = true

		return d.exponent(b, i+1)
	}

	return d, i, numOK
}

// digits accumulates digits; step is what each one kept does to the exponent.
func (d *decimal) digits(b []byte, i, step int) int {
	const keep = math.MaxUint64/10 - 1

	for ; i < len(b); i++ {
		c := b[i] - '0'
		if c > 9 {
			break
		}

		if d.mant < keep {
			d.mant = d.mant*10 + uint64(c)
			d.exp += step
		} else {
			d.more = d.more || c != 0
			d.exp += step + 1
		}
	}

	return i
}

func (d *decimal) exponent(b []byte, i int) (decimal, int, numState) {
	neg := false

	if i < len(b) && (b[i] == '+' || b[i] == '-') {
		neg = b[i] == '-'
		i++
	}

	start, e := i, 0

	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		if e < maxExp {
			e = e*10 + int(b[i]-'0')
		}
	}

	if i == start {
		return *d, i, numSyntax
	}

	if neg {
		e = -e
	}

	d.exp += e

	return *d, i, numOK
}

//nolint:gochecknoglobals // a constant table
var pow10 = [...]float64{
	1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11,
	1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22,
}

// parseFloat reads a number, NaN, Infinity or -Infinity (as Triton does), correctly rounded.
func parseFloat(b []byte, i int) (float64, int, numState) {
	d, next, st := scanNumber(b, i)
	if st != numOK {
		return parseSpecial(b, i)
	}

	f, st := d.float(b[i:next], 64)

	return f, next, st
}

// float converts; text is the number as written and used when the short way is not exact.
func (d *decimal) float(text []byte, bits int) (float64, numState) {
	// Both factors are exact in float64, so one operation rounds once (Clinger).
	if !d.more && d.mant < 1<<53 && d.exp >= -22 && d.exp <= 22 {
		f := float64(d.mant)
		if d.exp < 0 {
			f /= pow10[-d.exp]
		} else {
			f *= pow10[d.exp]
		}

		if d.neg {
			f = -f
		}

		return f, numOK
	}

	f, err := strconv.ParseFloat(view(text), bits)
	if errors.Is(err, strconv.ErrRange) {
		return f, numRange
	}

	return f, numOK
}

// parseFloat32 is correctly rounded to float32.
func parseFloat32(b []byte, i int) (float32, int, numState) {
	d, next, st := scanNumber(b, i)
	if st != numOK {
		f, next, st := parseSpecial(b, i)

		return float32(f), next, st
	}

	f, st := d.float(b[i:next], 64)
	if st != numOK {
		return 0, next, st
	}

	// A float64 half-way between two float32 may come from rounding; then decide on the text. Where float32
	// is subnormal, half-way is somewhere else.
	const low, half, normal = 1<<29 - 1, 1 << 28, 0x1p-126
	if math.Float64bits(f)&low == half || (math.Abs(f) < normal && f != 0) {
		f, _ = strconv.ParseFloat(view(b[i:next]), 32)
	}

	v := float32(f)
	if math.IsInf(float64(v), 0) {
		return v, next, numRange
	}

	return v, next, numOK
}

func parseSpecial(b []byte, i int) (float64, int, numState) {
	switch rest := b[i:]; {
	case hasPrefix(rest, "NaN"):
		return math.NaN(), i + 3, numOK
	case hasPrefix(rest, "Infinity"):
		return math.Inf(1), i + 8, numOK
	case hasPrefix(rest, "-Infinity"):
		return math.Inf(-1), i + 9, numOK
	default:
		return 0, i, numSyntax
	}
}

func hasPrefix(b []byte, p string) bool { return len(b) >= len(p) && string(b[:len(p)]) == p }

func parseUint(b []byte, i int) (uint64, int, numState) {
	start := i

	var v uint64

	for ; i < len(b) && b[i]-'0' <= 9; i++ {
		c := uint64(b[i] - '0')
		if v > (math.MaxUint64-c)/10 {
			return 0, i, numRange
		}

		v = v*10 + c
	}

	switch {
	case i == start:
		return 0, i, notInteger(b, start)
	case b[start] == '0' && i > start+1:
		return 0, i, numSyntax
	case i < len(b) && (b[i] == '.' || b[i]|0x20 == 'e'):
		return 0, i, notInteger(b, start)
	default:
		return v, i, numOK
	}
}

// notInteger tells text that is no number from a number that is no (or a negative) integer.
func notInteger(b []byte, i int) numState {
	d, _, st := scanNumber(b, i)

	switch {
	case st != numOK:
		return numSyntax
	case d.frac:
		return numInteger
	default:
		return numRange
	}
}

func parseInt(b []byte, i int) (int64, int, numState) {
	neg := i < len(b) && b[i] == '-'
	if neg {
		i++
	}

	v, next, st := parseUint(b, i)

	switch {
	case st != numOK:
		if neg && i < len(b) && b[i] == '-' {
			return 0, next, numSyntax
		}

		return 0, next, st
	case neg && v <= 1<<63:
		return -int64(v), next, numOK
	case neg || v > math.MaxInt64:
		return 0, next, numRange
	default:
		return int64(v), next, numOK
	}
}

// view is the text as a string for strconv, which keeps it in its errors only, and those are dropped.
func view(b []byte) string {
	return unsafe.String(unsafe.SliceData(b), len(b)) // not kept; saves an allocation per value
}
