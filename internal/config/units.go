package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time.Duration written as "1m30s" or "250ms".
type Duration time.Duration //nolint:recvcheck // reading needs a pointer, the rest a value

// D returns the standard type.
func (d Duration) D() time.Duration { return time.Duration(d) }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms, 10s or 2m", b)
	}

	if v < 0 {
		return fmt.Errorf("%q is negative", b)
	}

	*d = Duration(v)

	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// ByteSize is a number of bytes written as 4096, "64KiB", "12MB" or "1.5GiB".
type ByteSize int64

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *ByteSize) UnmarshalText(b []byte) error {
	text := strings.TrimSpace(string(b))
	cut := strings.IndexFunc(text, func(r rune) bool { return (r < '0' || r > '9') && r != '.' })

	unit := ""
	if cut >= 0 {
		text, unit = text[:cut], strings.TrimSpace(text[cut:])
	}

	factor, ok := byteUnit(unit)
	n, err := strconv.ParseFloat(text, 64)

	if err != nil || !ok || n*factor > math.MaxInt64/2 {
		return fmt.Errorf("%q is not a size such as 4096, 64KiB or 12MB", b)
	}

	*s = ByteSize(n * factor)

	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (s ByteSize) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(s), 10), nil }

func byteUnit(unit string) (float64, bool) {
	switch strings.ToLower(unit) {
	case "", "b":
		return 1, true
	case "kb":
		return 1e3, true
	case "mb":
		return 1e6, true
	case "gb":
		return 1e9, true
	case "kib", "k":
		return 1 << 10, true
	case "mib", "m":
		return 1 << 20, true
	case "gib", "g":
		return 1 << 30, true
	default:
		return 0, false
	}
}
