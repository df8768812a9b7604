package fault

import "bytes"

// PlainOnTLS is the text for a request that came without TLS to a door that speaks nothing else.
const PlainOnTLS = "This port speaks HTTPS, and the request came as plain HTTP."

// SpeaksHTTP reports whether the first bytes of a TLS handshake that failed, five or so, begin a
// request of plain HTTP.
func SpeaksHTTP(first []byte) bool {
	for _, method := range [][]byte{
		[]byte("GET /"), []byte("HEAD "), []byte("POST "), []byte("PUT /"), []byte("OPTIO"),
		[]byte("PATCH"), []byte("DELET"), []byte("CONNE"), []byte("TRACE"), []byte("PUT h"), []byte("GET h"),
	} {
		if bytes.HasPrefix(first, method) {
			return true
		}
	}

	return false
}
