package sign

import (
	"crypto/sha256"

	"github.com/emmansun/gmsm/sm3"
)

// Algorithm is a way of signing.
type Algorithm uint8

// The algorithms. The zero value is none of them.
const (
	// HMACSHA256 is SDK-HMAC-SHA256, what every client uses unless told otherwise.
	HMACSHA256 Algorithm = iota + 1
	// HMACSM3 is SDK-HMAC-SM3: the same with SM3 in place of SHA-256 everywhere.
	HMACSM3
	// V11 is V11-HMAC-SHA256: the key is derived for a day, a region and a service.
	V11
)

// UnsignedPayload stands in the content header, and in the canonical request, for a body that
// the signature does not cover.
const UnsignedPayload = "UNSIGNED-PAYLOAD"

// DateHeader carries the time of signing. It must be signed.
const DateHeader = "x-sdk-date"

const (
	digestSize = 32 // of both hashes
	hexSize    = 2 * digestSize
	blockSize  = 64 // of both hashes
)

// String is the name of the algorithm in the Authorization header.
func (a Algorithm) String() string {
	switch a {
	case HMACSHA256:
		return "SDK-HMAC-SHA256"
	case HMACSM3:
		return "SDK-HMAC-SM3"
	case V11:
		return "V11-HMAC-SHA256"
	}

	return "unknown"
}

// ParseAlgorithm finds an algorithm by its name; zero means that there is none.
func ParseAlgorithm(name []byte) Algorithm {
	switch string(name) {
	case "SDK-HMAC-SHA256":
		return HMACSHA256
	case "SDK-HMAC-SM3":
		return HMACSM3
	case "V11-HMAC-SHA256":
		return V11
	}

	return 0
}

// ContentHeader is the header that may carry the digest of the body, in lower case.
func (a Algorithm) ContentHeader() string {
	if a == HMACSM3 {
		return "x-sdk-content-sm3"
	}

	return "x-sdk-content-sha256"
}

// Digest is the hash of the algorithm.
func (a Algorithm) Digest(b []byte) [32]byte {
	if a == HMACSM3 {
		return sm3.Sum(b)
	}

	return sha256.Sum256(b)
}
