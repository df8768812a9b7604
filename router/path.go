package router

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Prefix of every prediction path.
const Prefix = "/v1/infers/"

// CheckPath refuses paths that two parsers could read differently: encoded slashes,
// backslashes and NUL, broken escapes, dot segments in any spelling, empty segments, bytes
// that do not belong into a path. What passes is routed, authorised and forwarded as it is.
func CheckPath(path []byte) error {
	if len(path) == 0 || path[0] != '/' {
		return badPath("does not begin with a slash")
	}

	for i := 0; i < len(path); {
		// path[i] is the slash before a segment.
		end := bytes.IndexByte(path[i+1:], '/')
		if end < 0 {
			return checkSegment(path[i+1:])
		}

		if end == 0 {
			return badPath("has an empty segment")
		}

		if err := checkSegment(path[i+1 : i+1+end]); err != nil {
			return err
		}

		i += 1 + end
	}

	return nil
}

func badPath(what string) error {
	return fault.New(fault.BadRequest, "The path of the request %s.", what)
}

// checkSegment looks at the bytes between two slashes; an empty one ends the path.
func checkSegment(seg []byte) error {
	dots, plain := 0, false // dots at the start, then something else

	for i := 0; i < len(seg); i++ {
		c := seg[i]
		if c == '%' {
			hi, lo := unhex(seg, i+1), unhex(seg, i+2)
			if hi < 0 || lo < 0 {
				return badPath("has a broken escape")
			}

			c = byte(hi<<4 | lo)
			if c == '/' || c == '\\' || c < 0x20 || c == 0x7f {
				return badPath("has an escape that is not allowed")
			}

			i += 2
		} else if !pathBytes[c] {
			return badPath("has a byte that is not allowed")
		}

		if plain {
			continue
		}

		switch {
		case c == '.':
			dots++
		case c == ';' && (dots == 1 || dots == 2):
			return badPath("has a dot segment")
		default:
			plain = true
		}
	}

	if !plain && (dots == 1 || dots == 2) {
		return badPath("has a dot segment")
	}

	return nil
}

// pathBytes are unreserved, sub-delims, ":" and "@" of RFC 3986.
//
//nolint:gochecknoglobals // a constant table
var pathBytes = func() (t [256]bool) {
	for _, c := range []byte("-._~!$&'()*+,;=:@0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") {
		t[c] = true
	}

	return t
}()

func unhex(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}

	switch c := b[i]; {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

// Split cuts a prediction path into the first segment behind the prefix and the rest,
// which is empty or begins with a slash.
func Split(path []byte) (id, rest []byte, ok bool) {
	tail, ok := bytes.CutPrefix(path, []byte(Prefix))
	if !ok || len(tail) == 0 || tail[0] == '/' {
		return nil, nil, false
	}

	if i := bytes.IndexByte(tail, '/'); i >= 0 {
		return tail[:i], tail[i:], true
	}

	return tail, nil, true
}

// Table maps service ids to what is known about them.
type Table[T any] map[string]T

// Match finds the service of a prediction path, and the rest of the path for its engine.
// Both forms are known: /v1/infers/{service_id}[/rest] and, older, with a cluster id before
// the service id. If no service matches, found is false and id is what the path names.
func (t Table[T]) Match(path []byte) (service T, m Matched) {
	id, rest, ok := Split(path)
	if !ok {
		return service, m
	}

	m = Matched{ID: id, Rest: rest, Prediction: true}
	if service, m.Found = t[string(id)]; m.Found || len(rest) < 2 {
		return service, m
	}

	id, rest = rest[1:], nil
	if i := bytes.IndexByte(id, '/'); i >= 0 {
		id, rest = id[:i], id[i:]
	}

	if old, found := t[string(id)]; found {
		return old, Matched{ID: id, Rest: rest, Prediction: true, Found: true}
	}

	return service, m
}

// Matched is what Match found out.
type Matched struct {
	ID, Rest   []byte
	Prediction bool // the path has the form of a prediction
	Found      bool
}
