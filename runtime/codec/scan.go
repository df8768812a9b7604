package codec

import (
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// MaxDepth is how deeply objects and arrays may nest.
const MaxDepth = 100

// Scanner reads one JSON text front to back without building a tree. Strings without
// escapes alias the text; all others are written to a scratch buffer of the scanner and
// hold until the next string is read.
type Scanner struct {
	b       []byte
	i       int
	depth   int
	first   bool
	scratch []byte
}

// Reset starts over with another text and keeps the scratch buffer.
func (s *Scanner) Reset(text []byte) {
	*s = Scanner{b: text, scratch: s.scratch[:0]}
}

// Offset is the position of the next byte.
func (s *Scanner) Offset() int { return s.i }

func (s *Scanner) fail(what string) error {
	return fault.New(fault.BadJSON, "invalid JSON at byte %d: %s", s.i, what)
}

// Peek skips white space and returns the next byte, 0 at the end.
func (s *Scanner) Peek() byte {
	for s.i < len(s.b) {
		switch c := s.b[s.i]; c {
		case ' ', '\t', '\n', '\r':
			s.i++
		default:
			return c
		}
	}

	return 0
}

// End checks that only white space is left.
func (s *Scanner) End() error {
	if s.Peek() != 0 || s.i < len(s.b) {
		return s.fail("text after the end of the value")
	}

	return nil
}

// BeginObject enters an object; then call NextKey.
func (s *Scanner) BeginObject() error { return s.begin('{', "an object is expected") }

// BeginArray enters an array; then call NextElem.
func (s *Scanner) BeginArray() error { return s.begin('[', "an array is expected") }

func (s *Scanner) begin(open byte, what string) error {
	if s.Peek() != open {
		return s.fail(what)
	}

	if s.depth == MaxDepth {
		return s.fail("nested more than " + strconv.Itoa(MaxDepth) + " deep")
	}

	s.i++
	s.depth++
	s.first = true

	return nil
}

// NextKey returns the next member's key, or false after the last one.
func (s *Scanner) NextKey() ([]byte, bool, error) {
	more, err := s.next('}')
	if !more || err != nil {
		return nil, false, err
	}

	if s.Peek() != '"' {
		return nil, false, s.fail("a member name is expected")
	}

	key, err := s.String()
	if err != nil {
		return nil, false, err
	}

	if s.Peek() != ':' {
		return nil, false, s.fail("':' is expected")
	}

	s.i++

	return key, true, nil
}

// NextElem reports whether another element follows; read it before the next call.
func (s *Scanner) NextElem() (bool, error) { return s.next(']') }

func (s *Scanner) next(end byte) (bool, error) {
	c := s.Peek()
	if c == end {
		s.i++
		s.depth--
		s.first = false

		return false, nil
	}

	if s.first {
		s.first = false

		return true, nil
	}

	if c != ',' {
		return false, s.fail("',' or '" + string(end) + "' is expected")
	}

	s.i++

	return true, nil
}

// String reads a string.
func (s *Scanner) String() ([]byte, error) {
	if s.Peek() != '"' {
		return nil, s.fail("a string is expected")
	}

	s.i++
	s.first = false
	start := s.i

	for s.i < len(s.b) {
		switch c := s.b[s.i]; {
		case c == '"':
			text := s.b[start:s.i]
			s.i++

			return text, s.checkUTF8(text)
		case c == '\\':
			return s.escaped(start)
		case c < ' ':
			return nil, s.fail("control character in a string")
		default:
			s.i++
		}
	}

	return nil, s.fail("a string does not end")
}

func (s *Scanner) checkUTF8(text []byte) error {
	if !utf8.Valid(text) {
		return s.fail("a string is not UTF-8")
	}

	return nil
}

// escaped finishes String after its first backslash.
func (s *Scanner) escaped(start int) ([]byte, error) {
	out := s.scratch[:0]
	out = append(out, s.b[start:s.i]...)

	for s.i < len(s.b) {
		c := s.b[s.i]

		switch {
		case c == '"':
			s.i++
			s.scratch = out

			return out, s.checkUTF8(out)
		case c < ' ':
			return nil, s.fail("control character in a string")
		case c != '\\':
			out = append(out, c)
			s.i++
		default:
			var err error
			if out, err = s.escape(out); err != nil {
				return nil, err
			}
		}
	}

	return nil, s.fail("a string does not end")
}

// escape appends the character of one escape sequence.
func (s *Scanner) escape(out []byte) ([]byte, error) {
	s.i++
	if s.i >= len(s.b) {
		return nil, s.fail("a string does not end")
	}

	c := s.b[s.i]
	s.i++

	switch c {
	case '"', '\\', '/':
		return append(out, c), nil
	case 'b':
		return append(out, '\b'), nil
	case 'f':
		return append(out, '\f'), nil
	case 'n':
		return append(out, '\n'), nil
	case 'r':
		return append(out, '\r'), nil
	case 't':
		return append(out, '\t'), nil
	case 'u':
		r, ok := s.hex4()
		if !ok {
			return nil, s.fail("bad \\u escape")
		}

		return utf8.AppendRune(out, s.surrogate(r)), nil
	default:
		return nil, s.fail("unknown escape")
	}
}

// surrogate joins r with a following low surrogate; a lone one becomes U+FFFD.
func (s *Scanner) surrogate(r rune) rune {
	if !utf16.IsSurrogate(r) {
		return r
	}

	if s.i+1 < len(s.b) && s.b[s.i] == '\\' && s.b[s.i+1] == 'u' {
		back := s.i
		s.i += 2

		if low, ok := s.hex4(); ok {
			if joined := utf16.DecodeRune(r, low); joined != utf8.RuneError {
				return joined
			}
		}

		s.i = back
	}

	return utf8.RuneError
}

func (s *Scanner) hex4() (rune, bool) {
	if s.i+4 > len(s.b) {
		return 0, false
	}

	var r rune

	for _, c := range s.b[s.i : s.i+4] {
		switch {
		case c >= '0' && c <= '9':
			r = r<<4 | rune(c-'0')
		case c >= 'a' && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case c >= 'A' && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, false
		}
	}

	s.i += 4

	return r, true
}

// Bool reads true or false.
func (s *Scanner) Bool() (bool, error) {
	s.Peek()

	if s.literal("true") {
		return true, nil
	}

	if s.literal("false") {
		return false, nil
	}

	return false, s.fail("true or false is expected")
}

// Null consumes null if it is next.
func (s *Scanner) Null() bool {
	s.Peek()

	return s.literal("null")
}

func (s *Scanner) literal(word string) bool {
	end := s.i + len(word)
	if end > len(s.b) || string(s.b[s.i:end]) != word {
		return false
	}

	s.i = end
	s.first = false

	return true
}

// Int64 reads an integer.
func (s *Scanner) Int64() (int64, error) {
	s.Peek()

	v, next, st := parseInt(s.b, s.i)
	if st != numOK {
		return 0, s.fail("an integer is expected")
	}

	s.i = next
	s.first = false

	return v, nil
}

// Uint64 reads an integer that is not negative.
func (s *Scanner) Uint64() (uint64, error) {
	s.Peek()

	v, next, st := parseUint(s.b, s.i)
	if st != numOK {
		return 0, s.fail("a non-negative integer is expected")
	}

	s.i = next
	s.first = false

	return v, nil
}

// Float64 reads a number.
func (s *Scanner) Float64() (float64, error) {
	s.Peek()

	v, next, st := parseFloat(s.b, s.i)
	if st != numOK {
		return 0, s.fail("a number is expected")
	}

	s.i = next
	s.first = false

	return v, nil
}

// Raw reads any value and returns its text.
func (s *Scanner) Raw() ([]byte, error) {
	s.Peek()
	start := s.i

	if err := s.Skip(); err != nil {
		return nil, err
	}

	return s.b[start:s.i], nil
}

// Skip reads over any value. It uses no recursion.
func (s *Scanner) Skip() error {
	var stack [MaxDepth]byte

	base := s.depth

	for {
		if err := s.skipOpen(&stack); err != nil {
			return err
		}

		for { // after a value: close what ends here
			if s.depth == base {
				return nil
			}

			more, err := s.skipNext(stack[s.depth-1])
			if err != nil {
				return err
			}

			if more {
				break
			}
		}
	}
}

// skipOpen enters containers up to and including the first scalar or empty container.
func (s *Scanner) skipOpen(stack *[MaxDepth]byte) error {
	for {
		switch c := s.Peek(); c {
		case '{', '[':
			if err := s.begin(c, ""); err != nil {
				return err
			}

			stack[s.depth-1] = c

			more, err := s.skipNext(c)
			if err != nil || !more {
				return err
			}
		default:
			return s.skipScalar(c)
		}
	}
}

func (s *Scanner) skipNext(open byte) (bool, error) {
	if open == '[' {
		return s.NextElem()
	}

	_, more, err := s.NextKey()

	return more, err
}

func (s *Scanner) skipScalar(c byte) error {
	switch c {
	case '"':
		_, err := s.String()

		return err
	case 't', 'f':
		_, err := s.Bool()

		return err
	case 'n':
		if !s.Null() {
			return s.fail("a value is expected")
		}

		return nil
	default:
		_, next, st := scanNumber(s.b, s.i)
		if st == numSyntax {
			return s.fail("a value is expected")
		}

		s.i = next
		s.first = false

		return nil
	}
}

// Left is the number of bytes not read yet.
func (s *Scanner) Left() int { return len(s.b) - s.i }

// From is a scanner over the same text that starts at offset.
func (s *Scanner) From(offset int) Scanner { return Scanner{b: s.b, i: offset, depth: s.depth} }
