package sign

import (
	"bytes"
	"encoding/hex"
	"errors"
)

// Authorization is a parsed Authorization header. Its slices point into the header.
type Authorization struct {
	Algorithm     Algorithm
	Access        []byte // access key or app key
	Info          []byte // V11 only: "yyyymmdd/region/service"
	SignedHeaders []byte // "host;x-sdk-date"
	Signature     [32]byte
}

// Errors of ParseAuthorization.
var (
	ErrScheme         = errors.New("the authorization scheme is not a signature")
	ErrFormat         = errors.New("want the parameters Access, SignedHeaders and Signature")
	ErrAccess         = errors.New("the access key is malformed")
	ErrCredential     = errors.New("want Credential=AK/yyyymmdd/region/service")
	ErrSignature      = errors.New("the signature is not 64 lower-case hex digits")
	ErrSignedHeaders  = errors.New("the list of signed headers is malformed")
	ErrHeaderTwice    = errors.New("a signed header is listed twice")
	ErrTooManyHeaders = errors.New("too many signed headers")
)

// Bounds of what a header may state.
const (
	MaxSignedHeaders = 64
	maxAccessKey     = 128
	maxInfo          = 256
)

// IsSignature reports whether an Authorization header uses one of the signing schemes, known
// ones or not; other schemes belong to somebody else.
func IsSignature(value []byte) bool {
	value = bytes.TrimLeft(value, " ")

	return bytes.HasPrefix(value, []byte("SDK-")) || bytes.HasPrefix(value, []byte("V11-"))
}

// ParseAuthorization reads an Authorization header. Parameters may come in any order, each
// once; spaces after commas are optional. Everything else is strict.
func ParseAuthorization(value []byte) (Authorization, error) {
	scheme, rest, ok := bytes.Cut(bytes.Trim(value, " "), []byte{' '})

	a := Authorization{Algorithm: ParseAlgorithm(scheme)}
	if a.Algorithm == 0 || !ok {
		return a, ErrScheme
	}

	var signature []byte

	for more := true; more; {
		var param []byte

		param, rest, more = bytes.Cut(rest, []byte{','})
		name, val, found := bytes.Cut(bytes.Trim(param, " "), []byte{'='})

		target := a.param(name, &signature)
		if !found || target == nil || *target != nil || len(val) == 0 {
			return a, ErrFormat
		}

		*target = val
	}

	if a.Access == nil || a.SignedHeaders == nil || signature == nil {
		return a, ErrFormat
	}

	return a, a.check(signature)
}

// param returns where the value of a parameter goes, nil if the algorithm has no such parameter.
func (a *Authorization) param(name []byte, signature *[]byte) *[]byte {
	switch string(name) {
	case "Access":
		if a.Algorithm != V11 {
			return &a.Access
		}
	case "Credential":
		if a.Algorithm == V11 {
			return &a.Access
		}
	case "SignedHeaders":
		return &a.SignedHeaders
	case "Signature":
		return signature
	}

	return nil
}

func (a *Authorization) check(signature []byte) error {
	if a.Algorithm == V11 {
		var ok bool
		if a.Access, a.Info, ok = bytes.Cut(a.Access, []byte{'/'}); !ok || !validInfo(a.Info) {
			return ErrCredential
		}
	}

	if len(a.Access) == 0 || len(a.Access) > maxAccessKey || !all(a.Access, accessKeyByte) {
		return ErrAccess
	}

	var ok bool
	if a.Signature, ok = ParseDigest(signature); !ok {
		return ErrSignature
	}

	return checkList(a.SignedHeaders)
}

// validInfo wants yyyymmdd/region/service.
func validInfo(info []byte) bool {
	if len(info) > maxInfo || bytes.Count(info, []byte{'/'}) != 2 || len(info) < 12 || info[8] != '/' {
		return false
	}

	region, service, _ := bytes.Cut(info[9:], []byte{'/'})

	return all(info[:8], digitByte) && len(region) > 0 && len(service) > 0 &&
		all(region, accessKeyByte) && all(service, accessKeyByte)
}

// checkList wants lower-case header names joined by ";", none of them twice.
func checkList(list []byte) error {
	if bytes.Count(list, []byte{';'}) >= MaxSignedHeaders {
		return ErrTooManyHeaders
	}

	for rest := list; rest != nil; {
		var name []byte
		name, rest = NextName(rest)

		if len(name) == 0 || !all(name, nameByte) {
			return ErrSignedHeaders
		}

		if rest != nil && Lists(rest, name) {
			return ErrHeaderTwice
		}
	}

	return nil
}

// NextName cuts the first name from a list of signed headers; rest is nil behind the last one.
func NextName(list []byte) (name, rest []byte) {
	name, rest, found := bytes.Cut(list, []byte{';'})
	if !found {
		return name, nil
	}

	return name, rest
}

// Lists reports whether a list of signed headers holds a name.
func Lists(list, name []byte) bool {
	for rest := list; rest != nil; {
		var n []byte
		if n, rest = NextName(rest); bytes.Equal(n, name) {
			return true
		}
	}

	return false
}

// lowerHex is the value of each lower-case hex digit, and notHex for every other byte.
//
//nolint:gochecknoglobals // a constant table
var lowerHex = func() (t [256]byte) {
	for i := range t {
		t[i] = notHex
	}

	for i, c := range []byte("0123456789abcdef") {
		t[c] = byte(i)
	}

	return t
}()

const notHex = 0x80

// ParseDigest reads 64 lower-case hex digits. It does not branch on them: they are random, so a
// processor would guess wrong at every other one, which costs more than the rest of the parsing.
func ParseDigest(b []byte) (d [32]byte, ok bool) {
	if len(b) != hexSize {
		return d, false
	}

	bad := byte(0)

	for i := range d {
		hi, lo := lowerHex[b[2*i]], lowerHex[b[2*i+1]]
		bad |= hi | lo
		d[i] = hi<<4 | lo
	}

	return d, bad&notHex == 0
}

func all(b []byte, ok func(byte) bool) bool {
	for _, c := range b {
		if !ok(c) {
			return false
		}
	}

	return true
}

func digitByte(c byte) bool { return c >= '0' && c <= '9' }

func accessKeyByte(c byte) bool {
	return plain[c] || c == ':' || c == '+' || c == '@'
}

// nameByte reports whether c may stand in a header name in lower case (RFC 9110, token).
func nameByte(c byte) bool {
	return digitByte(c) || c >= 'a' && c <= 'z' || bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
}

// AppendAuthorization appends the value of an Authorization header.
func AppendAuthorization(dst []byte, a *Authorization) []byte {
	dst = append(dst, a.Algorithm.String()...)

	if a.Algorithm == V11 {
		dst = append(dst, " Credential="...)
		dst = append(dst, a.Access...)
		dst = append(dst, '/')
		dst = append(dst, a.Info...)
	} else {
		dst = append(dst, " Access="...)
		dst = append(dst, a.Access...)
	}

	dst = append(dst, ", SignedHeaders="...)
	dst = append(dst, a.SignedHeaders...)
	dst = append(dst, ", Signature="...)

	return hex.AppendEncode(dst, a.Signature[:])
}
