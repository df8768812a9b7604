package wsframe

import (
	"bytes"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // what the protocol prescribes; nothing secret depends on it
	"encoding/base64"
)

// Version is the one version of the protocol.
const Version = "13"

// guid is appended to the key of a handshake (RFC 6455 1.3).
const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// NewKey makes the Sec-WebSocket-Key of a handshake.
func NewKey() string {
	var raw [16]byte

	_, _ = rand.Read(raw[:]) // never fails

	return base64.StdEncoding.EncodeToString(raw[:])
}

// ValidKey reports whether a Sec-WebSocket-Key is the base64 form of 16 bytes.
func ValidKey(key []byte) bool {
	if len(key) != 24 {
		return false
	}

	var raw [18]byte

	n, err := base64.StdEncoding.Strict().Decode(raw[:], key)

	return err == nil && n == 16
}

// AppendAccept appends the Sec-WebSocket-Accept that answers key.
func AppendAccept(b, key []byte) []byte {
	h := sha1.New() //nolint:gosec // see above
	h.Write(key)
	h.Write([]byte(guid))

	var sum [sha1.Size]byte

	return base64.StdEncoding.AppendEncode(b, h.Sum(sum[:0]))
}

// HasToken reports whether a comma-separated list names token, in any case.
func HasToken(list []byte, token string) bool {
	for item := range bytes.SplitSeq(list, []byte{','}) {
		if bytes.EqualFold(bytes.Trim(item, " \t"), []byte(token)) {
			return true
		}
	}

	return false
}
