package sign

import (
	"bytes"
	"cmp"
	"slices"
)

const upperHex = "0123456789ABCDEF"

// plain marks the bytes that stay as they are: letters, digits and "-_.~".
//
//nolint:gochecknoglobals // a constant table
var plain = func() (t [256]bool) {
	for _, c := range []byte("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.~") {
		t[c] = true
	}

	return t
}()

// AppendURI appends the canonical form of a raw path: decoded, each segment escaped, and with
// a slash at the end. A "%" that starts no escape stands for itself.
func AppendURI(dst, raw []byte) []byte {
	start := len(dst)

	for i := 0; i < len(raw); {
		run := i
		for run < len(raw) && (plain[raw[run]] || raw[run] == '/') {
			run++
		}

		dst = append(dst, raw[i:run]...)

		if run == len(raw) {
			break
		}

		var c byte
		c, i = unescape(raw, run)

		if c == '/' {
			dst = append(dst, '/')
		} else {
			dst = appendEscaped(dst, c)
		}
	}

	if len(dst) == start || dst[len(dst)-1] != '/' {
		dst = append(dst, '/')
	}

	return dst
}

// unescape returns the byte that stands at raw[i] and the index behind it.
func unescape(raw []byte, i int) (c byte, next int) {
	if raw[i] == '%' && i+2 < len(raw) {
		hi, lo := unhex(raw[i+1]), unhex(raw[i+2])
		if hi < 16 && lo < 16 {
			return hi<<4 | lo, i + 3
		}
	}

	return raw[i], i + 1
}

func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}

	return 255
}

func appendEscaped(dst []byte, c byte) []byte {
	if plain[c] {
		return append(dst, c)
	}

	return append(dst, '%', upperHex[c>>4], upperHex[c&15])
}

// AppendQuery appends the canonical form of a raw query.
func AppendQuery(dst, raw []byte) []byte {
	var s queryScratch

	return s.appendCanonical(dst, raw)
}

// queryScratch decodes and sorts the parameters of a query.
type queryScratch struct {
	decoded []byte
	pairs   []pair
}

// pair holds the bounds of a key and a value in queryScratch.decoded; the value starts where
// the key ends.
type pair struct{ start, mid, end int }

const pairSize = 24

func (s *queryScratch) appendCanonical(dst, raw []byte) []byte {
	if len(raw) == 0 {
		return dst
	}

	s.decode(raw)

	if !slices.IsSortedFunc(s.pairs, s.compare) {
		slices.SortFunc(s.pairs, s.compare)
	}

	for i, p := range s.pairs {
		if i > 0 {
			dst = append(dst, '&')
		}

		for _, c := range s.decoded[p.start:p.mid] {
			dst = appendEscaped(dst, c)
		}

		dst = append(dst, '=')

		for _, c := range s.decoded[p.mid:p.end] {
			dst = appendEscaped(dst, c)
		}
	}

	return dst
}

// decode fills s. In a query "+" means a space.
func (s *queryScratch) decode(raw []byte) {
	s.decoded, s.pairs = s.decoded[:0], s.pairs[:0]
	p := pair{mid: -1}

	for i := 0; i <= len(raw); {
		if i == len(raw) || raw[i] == '&' {
			s.endPair(p)
			p = pair{start: len(s.decoded), mid: -1}
			i++

			continue
		}

		if raw[i] == '=' && p.mid < 0 {
			p.mid = len(s.decoded)
			i++

			continue
		}

		c, next := unescape(raw, i)
		if raw[i] == '+' {
			c = ' '
		}

		s.decoded = append(s.decoded, c)
		i = next
	}
}

// endPair adds p unless it is empty ("a=1&&b=2").
func (s *queryScratch) endPair(p pair) {
	p.end = len(s.decoded)
	if p.mid < 0 {
		if p.end == p.start {
			return
		}

		p.mid = p.end
	}

	s.pairs = append(s.pairs, p)
}

// compare orders by key, then by value, both decoded, by their bytes.
func (s *queryScratch) compare(a, b pair) int {
	return cmp.Or(
		bytes.Compare(s.decoded[a.start:a.mid], s.decoded[b.start:b.mid]),
		bytes.Compare(s.decoded[a.mid:a.end], s.decoded[b.mid:b.end]),
	)
}
