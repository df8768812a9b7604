package wire

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// maxBlankLines is how many empty lines may come before a request line: one, as RFC 9112 2.2
// asks for, and some for clients that end a body with more.
const maxBlankLines = 4

// SkipBlank returns how many bytes of leading CR LF may be dropped from the front of buf, after
// skipped bytes were dropped by earlier calls.
func SkipBlank(buf []byte, skipped int) int {
	n := 0
	for (skipped+n)/2 < maxBlankLines && len(buf) >= n+2 && buf[n] == '\r' && buf[n+1] == '\n' {
		n += 2
	}

	return n
}

// End returns the length of the head at the start of buf including its empty line, or -1
// while that has not arrived. Bytes before from were looked at by an earlier call.
func End(buf []byte, from int) int {
	from = max(0, from-3)

	i := bytes.Index(buf[from:], []byte("\r\n\r\n"))
	if i < 0 {
		return -1
	}

	return from + i + 4
}

// Premature looks at a head that has not arrived in full and refuses it as soon as it is clear that
// it never can become acceptable, instead of waiting for the rest. Bytes before from were looked at by
// an earlier call.
func Premature(buf []byte, from int, lim *Limits) *fault.Error {
	if len(buf) == 0 {
		return nil
	}

	if buf[0] == '\r' && len(buf) == 1 {
		return nil
	}

	if class[buf[0]]&classToken == 0 {
		return errNotHTTP
	}

	for i := from; i < len(buf); i++ {
		if buf[i] == '\n' && (i == 0 || buf[i-1] != '\r') {
			return errLineEnd
		}
	}

	first := bytes.IndexByte(buf, '\n')

	switch {
	case first < 0 && len(buf) > lim.Line+2, first > lim.Line+1:
		return errLineTooLong
	case len(buf) > lim.Head:
		return errHeadTooLong
	case first >= 0 && len(buf)-bytes.LastIndexByte(buf, '\n') > lim.Field+3:
		return errFieldTooLong
	}

	return nil
}
