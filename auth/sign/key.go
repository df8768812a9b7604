package sign

import (
	"fmt"
	"log/slog"
)

const redacted = "[redacted]"

// Key is a secret key made ready for HMAC: hashing the two padded key blocks needs no look at
// the secret again. It is immutable.
type Key struct {
	secret       []byte
	inner, outer [blockSize]byte // for SHA-256
}

// NewKey prepares a secret. It copies it.
func NewKey(secret []byte) *Key {
	k := &Key{secret: append([]byte(nil), secret...)}
	k.inner, k.outer = pads(HMACSHA256, k.secret)

	return k
}

// String implements fmt.Stringer.
func (*Key) String() string { return redacted }

// GoString implements fmt.GoStringer.
func (*Key) GoString() string { return redacted }

// Format implements fmt.Formatter, so that no verb reaches the secret.
func (*Key) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(redacted)) }

// MarshalText implements encoding.TextMarshaler.
func (*Key) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// LogValue implements slog.LogValuer.
func (*Key) LogValue() slog.Value { return slog.StringValue(redacted) }

// pads returns the inner and the outer key block of HMAC (RFC 2104).
func pads(a Algorithm, key []byte) (inner, outer [blockSize]byte) {
	if len(key) > blockSize {
		sum := a.Digest(key)
		key = sum[:]
	}

	copy(inner[:], key)
	copy(outer[:], key)

	for i := range inner {
		inner[i] ^= 0x36
		outer[i] ^= 0x5c
	}

	return inner, outer
}
