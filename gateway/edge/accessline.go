package edge

import (
	"errors"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// appendLine appends one line in the form of slog's JSON handler. It is written out here because a
// line stands beside every request: this takes a fifth of the time and no memory.
func appendLine(b []byte, line *logLine) []byte {
	r := &line.record

	b = append(b, `{"time":"`...)
	b = line.at.AppendFormat(b, time.RFC3339Nano)
	b = append(b, `","level":"INFO","msg":"request"`...)
	b = appendText(b, "request_id", line.id)
	b = append(b, `,"remote":"`...)
	b = line.remote.AppendTo(b)
	b = append(b, '"')
	b = appendText(b, "door", line.door.String())
	b = appendText(b, "method", line.method)
	b = appendText(b, "host", line.host)
	b = appendText(b, "path", line.path)
	b = appendInt(b, "status", int64(r.Status))
	b = appendText(b, "outcome", r.Outcome.String())
	b = appendInt(b, "bytes_in", r.BytesIn)
	b = appendInt(b, "bytes_out", r.BytesOut)
	b = appendMillis(b, "total_ms", r.Total)

	b = appendText(b, "service", r.ServiceID)
	b = appendText(b, "project", r.ProjectID)
	b = appendText(b, "model", r.Model)
	b = appendText(b, "instance", r.Instance)
	b = appendText(b, "rule", r.Rule)

	// Who called is named by id; credentials stay out of the log.
	if p := r.Principal; p != nil {
		b = appendText(b, "principal", p.Key)
		b = appendText(b, "auth", authName(p.Method))
	}

	if r.CloseCode != 0 {
		b = appendInt(b, "close_code", int64(r.CloseCode))
		b = appendInt(b, "messages_in", r.MessagesIn)
		b = appendInt(b, "messages_out", r.MessagesOut)
	}

	if r.Attempts > 1 {
		b = appendInt(b, "attempts", int64(r.Attempts))
	}

	b = appendMillis(b, "verified_ms", r.Verified)
	b = appendMillis(b, "admitted_ms", r.Admitted)
	b = appendMillis(b, "picked_ms", r.Picked)
	b = appendMillis(b, "first_byte_ms", r.FirstByte)

	if r.Err != nil {
		b = appendText(b, "error", r.Err.Error())

		var f *fault.Error
		if errors.As(r.Err, &f) {
			b = appendText(b, "error_code", f.Code.Wire())
		}
	}

	return append(b, '}', '\n')
}

func appendKey(b []byte, key string) []byte {
	b = append(b, ',', '"')
	b = append(b, key...)

	return append(b, '"', ':')
}

// appendText appends a field unless it is empty.
func appendText(b []byte, key, value string) []byte {
	if value == "" {
		return b
	}

	return appendQuoted(appendKey(b, key), value)
}

func appendInt(b []byte, key string, v int64) []byte {
	return strconv.AppendInt(appendKey(b, key), v, 10)
}

// appendMillis appends milliseconds with three digits unless there are none.
func appendMillis(b []byte, key string, d time.Duration) []byte {
	if d <= 0 {
		return b
	}

	return strconv.AppendFloat(appendKey(b, key), float64(d.Microseconds())/1000, 'f', -1, 64)
}

// appendQuoted appends s as a JSON string; bytes that are no UTF-8 become U+FFFD.
func appendQuoted(b []byte, s string) []byte {
	const hex = "0123456789abcdef"

	b = append(b, '"')

	for i := 0; i < len(s); {
		c := s[i]

		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		case c < utf8.RuneSelf:
			b = append(b, c)
		default:
			r, size := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += size

			continue
		}

		i++
	}

	return append(b, '"')
}

func authName(m auth.Method) string {
	switch m {
	case auth.MethodToken:
		return "token"
	case auth.MethodAKSK:
		return "aksk"
	case auth.MethodAppSignature:
		return "app_signature"
	case auth.MethodAppCode:
		return "app_code"
	case auth.MethodAppKey:
		return "app_key"
	case auth.MethodNone:
		return "none"
	default:
		return "unknown"
	}
}
