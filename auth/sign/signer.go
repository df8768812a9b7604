package sign

import (
	"encoding/hex"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

// Signer signs requests of a client.
type Signer struct {
	AccessKey string // AK of a user or key of an app
	Secret    spec.Secret
	// SecurityToken belongs to a temporary key.
	SecurityToken spec.Secret
	// Algorithm is HMACSHA256 unless given.
	Algorithm Algorithm
	// Region and Service are part of the key of V11.
	Region, Service string
	// UnsignedPayload leaves the body out of the signature.
	UnsignedPayload bool
	// Headers names headers that are signed beside those that always are.
	Headers []string
}

// Errors of a Signer that cannot sign.
var (
	ErrNoKey   = errors.New("sign: access key and secret are required")
	ErrNoScope = errors.New("sign: V11 needs a region and a service")
	ErrAlgo    = errors.New("sign: unknown algorithm")
)

// Prepared is a Signer with its keys made ready.
type Prepared struct {
	signer Signer
	key    *Key
}

// Prepare checks s and prepares its key.
func (s Signer) Prepare() (*Prepared, error) {
	if s.Algorithm == 0 {
		s.Algorithm = HMACSHA256
	}

	switch {
	case s.AccessKey == "" || s.Secret.Empty():
		return nil, ErrNoKey
	case s.Algorithm > V11:
		return nil, ErrAlgo
	case s.Algorithm == V11 && (s.Region == "" || s.Service == ""):
		return nil, ErrNoScope
	}

	return &Prepared{signer: s, key: NewKey([]byte(s.Secret.Reveal()))}, nil
}

// SignHTTP sets X-Sdk-Date and Authorization, and the headers that they need. body must be what
// the request will send; it may be nil. The request must not be changed afterwards.
func (s Signer) SignHTTP(req *http.Request, body []byte, now time.Time) error {
	p, err := s.Prepare()
	if err != nil {
		return err
	}

	p.SignHTTP(req, body, now)

	return nil
}

// SignHTTP is Signer.SignHTTP.
func (p *Prepared) SignHTTP(req *http.Request, body []byte, now time.Time) {
	req.Header.Del("Authorization")
	req.Header.Set(DateHeader, now.UTC().Format(DateLayout))

	if p.signer.UnsignedPayload {
		req.Header.Set(p.signer.Algorithm.ContentHeader(), UnsignedPayload)
	}

	if !p.signer.SecurityToken.Empty() {
		req.Header.Set("X-Security-Token", p.signer.SecurityToken.Reveal())
	}

	host := req.Host
	if host == "" {
		host = req.URL.Host
	}

	m := Message{
		Method: []byte(method(req)),
		Path:   []byte(req.URL.EscapedPath()),
		Query:  []byte(req.URL.RawQuery),
		Fields: p.fields(req.Header, host),
	}

	var b Builder

	req.Header.Set("Authorization", string(p.AppendAuthorization(nil, &b, &m, body)))
}

// method is what net/http sends.
func method(req *http.Request) string {
	if req.Method == "" {
		return http.MethodGet
	}

	return req.Method
}

// fields lists what is signed: the host, the content type and the headers of the platform, and
// no header that a proxy on the way or the HTTP client itself may set.
func (p *Prepared) fields(h http.Header, host string) []Field {
	fields := []Field{{Name: []byte("host"), Value: []byte(host)}}

	for name, values := range h {
		lower := strings.ToLower(name)
		if !p.signs(lower) {
			continue
		}

		values = slices.Clone(values)
		slices.Sort(values)

		for _, v := range values {
			fields = append(fields, Field{Name: []byte(lower), Value: []byte(v)})
		}
	}

	slices.SortStableFunc(fields, func(a, b Field) int { return strings.Compare(string(a.Name), string(b.Name)) })

	return fields
}

func (p *Prepared) signs(lower string) bool {
	switch lower {
	case "content-type", "x-project-id", "x-domain-id", "x-security-token", "x-stage":
		return true
	case "host", "authorization":
		return false
	}

	return strings.HasPrefix(lower, "x-sdk-") ||
		slices.ContainsFunc(p.signer.Headers, func(h string) bool { return strings.EqualFold(h, lower) })
}

// AppendAuthorization appends the Authorization header for m. m.Fields must be sorted by name
// and hold x-sdk-date; if they hold the content header, its value is signed in place of the
// digest of body. SignedHeaders is written for fields of different names only once.
// With a Builder that is reused it does not allocate beyond the growth of dst.
func (p *Prepared) AppendAuthorization(dst []byte, b *Builder, m *Message, body []byte) []byte {
	a := p.signer.Algorithm
	auth := Authorization{Algorithm: a, Access: b.keep(p.signer.AccessKey)}
	scope := Scope{Algorithm: a, AccessKey: auth.Access}

	b.list = b.list[:0]
	m.BodyHash = nil

	for i, f := range m.Fields {
		if i == 0 || string(m.Fields[i-1].Name) != string(f.Name) {
			if i > 0 {
				b.list = append(b.list, ';')
			}

			b.list = append(b.list, f.Name...)
		}

		switch string(f.Name) {
		case DateHeader:
			scope.Date = f.Value
		case a.ContentHeader():
			m.BodyHash = f.Value
		}
	}

	if len(m.BodyHash) == 0 {
		sum := a.Digest(body)
		b.bodyHash = hex.AppendEncode(b.bodyHash[:0], sum[:])
		m.BodyHash = b.bodyHash
	}

	if a == V11 && len(scope.Date) >= 8 {
		b.info = append(b.info[:0], scope.Date[:8]...)
		b.info = append(append(b.info, '/'), p.signer.Region...)
		b.info = append(append(b.info, '/'), p.signer.Service...)
		scope.Info, auth.Info = b.info, b.info
	}

	m.SignedHeaders, auth.SignedHeaders = b.list, b.list
	auth.Signature = b.Sign(p.key, &scope, b.Canonical(m))

	return AppendAuthorization(dst, &auth)
}

// keep copies a string into the Builder's own buffer.
func (b *Builder) keep(s string) []byte {
	b.access = append(b.access[:0], s...)

	return b.access
}
