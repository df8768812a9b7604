package identity

import (
	"crypto/rand"
	"encoding/hex"
)

const (
	upperDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
	letters     = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
)

// NewID makes an id of the platform's form: 32 hexadecimal digits.
func NewID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails

	return hex.EncodeToString(b[:])
}

func newAccessKey() string { return randomText(20, upperDigits) }
func newSecretKey() string { return randomText(40, letters) }

// randomText draws n characters evenly from alphabet.
func randomText(n int, alphabet string) string {
	out := make([]byte, 0, n)
	limit := 256 - 256%len(alphabet)

	for len(out) < n {
		var b [64]byte
		_, _ = rand.Read(b[:]) // never fails

		for _, c := range b {
			if int(c) < limit && len(out) < n {
				out = append(out, alphabet[int(c)%len(alphabet)])
			}
		}
	}

	return string(out)
}
