package wire

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// route checks host and target together and cuts path and query.
func (h *Head) route(scheme string) *fault.Error {
	if h.seen&seenHost == 0 && !h.HTTP10 {
		return errHostMissing
	}

	target := h.Target

	switch {
	case target[0] == '/':
	case string(target) == "*" && string(h.Method) == "OPTIONS":
		h.Path = target

		return nil
	default:
		rest, err := h.absolute(scheme)
		if err != nil {
			return err
		}

		target = rest
	}

	if err := characters(target); err != nil {
		return err
	}

	h.Path = target
	if i := bytes.IndexByte(target, '?'); i >= 0 {
		h.Path, h.Query = target[:i:i], target[i+1:]
	}

	return path(h.Path)
}

// absolute handles "GET http://host/path": the authority must be the one of the Host header, so
// that nobody can be shown one host and route by the other.
func (h *Head) absolute(scheme string) ([]byte, *fault.Error) {
	i := bytes.Index(h.Target, []byte("://"))
	if i < 1 {
		return nil, errTargetForm
	}

	if !equalFold(h.Target[:i], scheme) {
		return nil, errScheme
	}

	authority := h.Target[i+3:]

	slash := bytes.IndexByte(authority, '/')
	if slash < 1 {
		return nil, errTargetForm
	}

	rest := authority[slash:]
	authority = authority[:slash]

	if bytes.IndexByte(authority, '@') >= 0 {
		return nil, errUserinfo
	}

	if err := checkHost(authority); err != nil {
		return nil, err
	}

	if h.seen&seenHost == 0 {
		h.Host = authority
	} else if !bytes.EqualFold(authority, h.Host) {
		return nil, errHostMismatch
	}

	return rest, nil
}

// characters lets through what RFC 3986 allows in path and query, with whole percent-encodings.
func characters(target []byte) *fault.Error {
	for i, b := range target {
		if class[b]&classTarget == 0 {
			return errTarget
		}

		if b == '%' && (i+2 >= len(target) || class[target[i+1]]&classHex == 0 || class[target[i+2]]&classHex == 0) {
			return errPercent
		}
	}

	return nil
}

// path refuses every spelling that could name another path after normalisation: encoded slashes,
// backslashes and control characters, empty segments in the middle, dot segments in any encoding
// and with parameters.
func path(p []byte) *fault.Error {
	if bytes.IndexByte(p, '%') >= 0 {
		for i := 0; i+2 < len(p); i++ {
			if p[i] != '%' {
				continue
			}

			c := byte(hexValue(p[i+1])<<4 | hexValue(p[i+2]))
			if c < 0x20 || c == 0x7f || c == '/' || c == '\\' || c == '?' || c == '#' || c == ';' {
				return errPathHidden
			}
		}
	}

	for at := 1; at <= len(p); {
		end := bytes.IndexByte(p[at:], '/')
		last := end < 0

		if last {
			end = len(p)
		} else {
			end += at
		}

		if end == at && !last || dotSegment(p[at:end]) {
			return errPathDots
		}

		at = end + 1
	}

	return nil
}

// dotSegment reports "." and "..", encoded or not, with or without parameters after ";".
func dotSegment(s []byte) bool {
	dots := 0

	for len(s) > 0 && s[0] != ';' {
		switch {
		case s[0] == '.':
			s = s[1:]
		case len(s) >= 3 && s[0] == '%' && s[1] == '2' && s[2]|0x20 == 'e':
			s = s[3:]
		default:
			return false
		}

		dots++
	}

	return dots == 1 || dots == 2
}
