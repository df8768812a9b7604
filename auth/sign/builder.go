package sign

import (
	"bytes"
	"encoding/hex"
)

// Field is a header field that is signed; Name is in lower case.
type Field struct{ Name, Value []byte }

// Message is what a signature covers.
type Message struct {
	Method []byte
	Path   []byte // raw, as on the request line
	Query  []byte // raw, without "?"
	// Fields are the lines of the signed headers, in the order of SignedHeaders.
	Fields []Field
	// SignedHeaders is the list as the Authorization header states it: "host;x-sdk-date".
	SignedHeaders []byte
	// BodyHash is the lower-case hex digest of the body, or the value of the content header.
	BodyHash []byte
}

// Scope is what a signature is made with, beside the key.
type Scope struct {
	Algorithm Algorithm
	Date      []byte // value of X-Sdk-Date
	AccessKey []byte // V11 only: salt of the derived key
	Info      []byte // V11 only: "yyyymmdd/region/service"
}

// Builder computes canonical requests and signatures in buffers that it reuses.
type Builder struct {
	canonical []byte
	text      []byte // one key block and the text that is hashed behind it
	query     queryScratch

	// Buffers of the side that signs.
	list, bodyHash, info, access []byte
}

// maxKept bounds what a Builder that goes back to a pool may hold on to.
const maxKept = 64 << 10

// Trim drops buffers that a rare huge request has blown up.
func (b *Builder) Trim() {
	if cap(b.canonical)+cap(b.text)+cap(b.query.decoded)+cap(b.query.pairs)*pairSize > maxKept {
		*b = Builder{}
	}
}

// Canonical returns the canonical request of m. It is valid until the next call.
func (b *Builder) Canonical(m *Message) []byte {
	c := b.canonical[:0]
	c = append(c, m.Method...)
	c = append(c, '\n')
	c = AppendURI(c, m.Path)
	c = append(c, '\n')
	c = b.query.appendCanonical(c, m.Query)
	c = append(c, '\n')

	for i := range m.Fields {
		c = append(c, m.Fields[i].Name...)
		c = append(c, ':')
		c = append(c, bytes.TrimSpace(m.Fields[i].Value)...)
		c = append(c, '\n')
	}

	c = append(c, '\n')
	c = append(c, m.SignedHeaders...)
	c = append(c, '\n')
	c = append(c, m.BodyHash...)
	b.canonical = c

	return c
}

// Sign returns the signature over a canonical request.
func (b *Builder) Sign(k *Key, s *Scope, canonical []byte) [32]byte {
	digest := s.Algorithm.Digest(canonical)
	inner, outer := b.keyBlocks(k, s)

	t := b.text[:0]
	t = append(t, inner[:]...)
	t = append(t, s.Algorithm.String()...)
	t = append(t, '\n')
	t = append(t, s.Date...)
	t = append(t, '\n')

	if s.Algorithm == V11 {
		t = append(t, s.Info...)
		t = append(t, '\n')
	}

	b.text = hex.AppendEncode(t, digest[:])

	return b.finish(s.Algorithm, &outer)
}

// StringToSign returns the text that is signed, for people who debug a signer.
func StringToSign(s *Scope, canonical []byte) []byte {
	digest := s.Algorithm.Digest(canonical)
	t := append([]byte(s.Algorithm.String()), '\n')
	t = append(append(t, s.Date...), '\n')

	if s.Algorithm == V11 {
		t = append(append(t, s.Info...), '\n')
	}

	return hex.AppendEncode(t, digest[:])
}

func (b *Builder) keyBlocks(k *Key, s *Scope) (inner, outer [blockSize]byte) {
	switch s.Algorithm {
	case HMACSHA256:
		return k.inner, k.outer
	case HMACSM3:
		return pads(HMACSM3, k.secret)
	case V11:
		return pads(V11, b.derive(k, s))
	}

	return k.inner, k.outer
}

// derive gives the key of V11: the hex text of HKDF-SHA256 (RFC 5869) with the access key as salt.
func (b *Builder) derive(k *Key, s *Scope) []byte {
	inner, outer := pads(V11, s.AccessKey)
	b.text = append(append(b.text[:0], inner[:]...), k.secret...)
	prk := b.finish(V11, &outer)

	inner, outer = pads(V11, prk[:])
	b.text = append(append(b.text[:0], inner[:]...), s.Info...)
	b.text = append(b.text, 1)
	okm := b.finish(V11, &outer)
	b.text = hex.AppendEncode(b.text[:0], okm[:])

	return b.text
}

// finish completes an HMAC whose inner key block and message are in b.text.
func (b *Builder) finish(a Algorithm, outer *[blockSize]byte) [32]byte {
	sum := a.Digest(b.text)
	b.text = append(append(b.text[:0], outer[:]...), sum[:]...)

	return a.Digest(b.text)
}
