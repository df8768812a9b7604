package gateway

import (
	"bytes"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Handler is what a door hands its calls to. Gateway implements it.
type Handler interface {
	// Do answers the call through c.Out, errors included, and never panics.
	Do(c *Call)
}

// WriteFault answers c with the fault in err: the body is error_code, error_msg and
// request_id, under /v2 it is the V2 body. Doors use it for faults of their own; the
// door itself adds X-Request-Id to every answer, so that this function does not.
func WriteFault(c *Call, err error) {
	f := fault.From(err)
	if f == nil {
		f = fault.New(fault.Internal, "")
	}

	c.Record.Err = err
	c.Record.Status = f.Code.Status()

	if f.RetryAfter > 0 {
		var buf [20]byte

		c.Out.AddHeader("Retry-After", strconv.AppendInt(buf[:0], retrySeconds(f.RetryAfter), 10))
	}

	v2 := isV2(c.Path)
	if v2 {
		// The V2 body has no room for the code.
		c.Out.AddHeader("X-Error-Code", []byte(f.Code.Wire()))
	}

	c.Out.AddHeader("Content-Type", []byte("application/json"))
	c.Out.Set(f.Code.Status(), FaultBody(nil, f, c.ID, v2))
}

// FaultBody appends the JSON body of a fault to dst.
//
//nolint:revive // the two bodies are one decision of the caller, and share nothing but this name
func FaultBody(dst []byte, f *fault.Error, requestID string, v2 bool) []byte {
	if v2 {
		dst = append(dst, `{"error":`...)
		dst = appendJSONString(dst, f.Message())

		return append(dst, '}')
	}

	dst = append(dst, `{"error_code":`...)
	dst = appendJSONString(dst, f.Code.Wire())
	dst = append(dst, `,"error_msg":`...)
	dst = appendJSONString(dst, f.Message())
	dst = append(dst, `,"request_id":`...)
	dst = appendJSONString(dst, requestID)

	return append(dst, '}')
}

// retrySeconds rounds up: a caller that waits exactly as long as told must not come too early.
func retrySeconds(d time.Duration) int64 {
	return int64((d + time.Second - 1) / time.Second)
}

// isV2 reports whether the path behind the service id belongs to the V2 protocol.
func isV2(path []byte) bool {
	rest, found := bytes.CutPrefix(path, []byte("/v1/infers/"))
	if !found {
		return false
	}

	// The id, or in the old form cluster and service id, come first.
	for range 2 {
		i := bytes.IndexByte(rest, '/')
		if i < 0 {
			return false
		}

		rest = rest[i:]
		if bytes.HasPrefix(rest, []byte("/v2/")) || string(rest) == "/v2" {
			return true
		}

		rest = rest[1:]
	}

	return false
}

const hexDigits = "0123456789abcdef"

// appendJSONString appends s as a JSON string; invalid UTF-8 becomes U+FFFD.
func appendJSONString(dst []byte, s string) []byte {
	dst = append(dst, '"')

	for i := 0; i < len(s); {
		b := s[i]

		switch {
		case b == '"' || b == '\\':
			dst = append(dst, '\\', b)
		case b < 0x20 || b == 0x7f || b == '<' || b == '>' || b == '&':
			dst = append(dst, '\\', 'u', '0', '0', hexDigits[b>>4], hexDigits[b&15])
		case b < utf8.RuneSelf:
			dst = append(dst, b)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			dst = utf8.AppendRune(dst, r)
			i += size

			continue
		}

		i++
	}

	return append(dst, '"')
}
