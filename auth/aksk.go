package auth

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// maxHeaderLines bounds the search for signed headers.
const maxHeaderLines = 512

// signedFaults are the faults of one family of signing credentials.
type signedFaults struct {
	prefix                              string
	mismatch, expired, locked, replayed fault.Code
}

//nolint:gochecknoglobals // constant tables
var (
	iamFaults = signedFaults{
		prefix:   "Incorrect IAM authentication information: ",
		mismatch: fault.SignatureMismatch, expired: fault.SignatureExpired,
		locked: fault.AccessKeyLocked, replayed: fault.SignatureReplayed,
	}
	appFaults = signedFaults{
		prefix:   "Incorrect app authentication information: ",
		mismatch: fault.AppSignature, expired: fault.AppSignatureExpired,
		locked: fault.AppLocked, replayed: fault.SignatureReplayed,
	}
)

// credential is what an access key or app key stands for.
type credential struct {
	key       *sign.Key
	principal *Principal
	faults    *signedFaults
	// tokenHash, if set, is the SHA-256 of the security token that must come along.
	tokenHash []byte
}

// scratch is what one check of a signature needs; pooled, so that a check allocates nothing.
type scratch struct {
	fields  []sign.Field // all header lines
	tooMany bool
	visit   func(name, value []byte) bool // s.add, bound once

	auth    sign.Authorization
	message sign.Message
	scope   sign.Scope
	builder sign.Builder
	digest  [2 * sha256.Size]byte // in hex
	given   [sha256.Size]byte     // digest that the client stated
}

func newScratch() *scratch {
	s := &scratch{}
	s.visit = s.add

	return s
}

func (s *scratch) add(name, value []byte) bool {
	if len(s.fields) == maxHeaderLines {
		s.tooMany = true

		return false
	}

	s.fields = append(s.fields, sign.Field{Name: name, Value: value})

	return true
}

// release drops every reference into the request.
func (v *Verifier) release(s *scratch) {
	clear(s.fields)
	clear(s.message.Fields)
	s.fields, s.tooMany = s.fields[:0], false
	s.message = sign.Message{Fields: s.message.Fields[:0]}
	s.auth, s.scope = sign.Authorization{}, sign.Scope{}
	s.builder.Trim()
	v.scratch.Put(s)
}

// verifySigned checks a signature of a user's access key or of an app. It returns errOtherKind
// when the key belongs to a kind that is not allowed.
func (v *Verifier) verifySigned(d *Directory, r *Request, allowed AuthSet) (*Principal, error) {
	s, ok := v.scratch.Get().(*scratch)
	if !ok {
		s = newScratch()
	}

	defer v.release(s)

	r.Header.Each(s.visit)

	if err := s.parse(); err != nil {
		return nil, err
	}

	c, err := d.credential(s.auth.Access, allowed, r.Now)
	if err != nil {
		return nil, err
	}

	if err := s.checkSecurityToken(&c); err != nil {
		return nil, err
	}

	date, err := v.checkDate(s, &c, r.Now)
	if err != nil {
		return nil, err
	}

	if err := v.checkSignature(s, &c, r); err != nil {
		return nil, err
	}

	return c.principal, v.checkReplay(s, &c, date, r.Now)
}

// parse reads the one Authorization header.
func (s *scratch) parse() error {
	value, count := s.find([]byte("authorization"))

	if s.tooMany || count != 1 {
		return errAuthFormat("want one Authorization header and a sane number of others")
	}

	var err error
	if s.auth, err = sign.ParseAuthorization(value); err != nil {
		return fault.Wrap(fault.AuthFormat, err, "Incorrect authorization request header format: %s.", err)
	}

	return nil
}

func errAuthFormat(text string) error {
	return fault.New(fault.AuthFormat, "Incorrect authorization request header format: %s.", text)
}

// find returns the first value of a header and how often the header came.
func (s *scratch) find(lower []byte) (value []byte, count int) {
	for i := range s.fields {
		if equalFold(s.fields[i].Name, lower) {
			if count == 0 {
				value = s.fields[i].Value
			}

			count++
		}
	}

	return value, count
}

// equalFold compares a header name with one in lower case, in ASCII.
func equalFold(name, lower []byte) bool {
	if len(name) != len(lower) {
		return false
	}

	for i, c := range name {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}

		if c != lower[i] {
			return false
		}
	}

	return true
}

// credential finds a signing key: an access key of a user first, then an app.
func (d *Directory) credential(access []byte, allowed AuthSet, now time.Time) (credential, error) {
	if k := d.keys.keys.find(access); k != nil {
		if !allowed.Has(AllowAKSK) {
			return credential{}, errOtherKind
		}

		if !k.enabled || k.expires != 0 && now.UnixMilli() >= k.expires {
			return credential{}, errUnknownAccessKey(access)
		}

		return credential{key: &k.key, principal: &k.principal, faults: &iamFaults, tokenHash: k.tokenHash}, nil
	}

	a := d.apps.byKey[string(access)]

	switch {
	case a != nil && !allowed.Has(AllowApp):
		return credential{}, errOtherKind
	case a != nil && a.spec.Enabled && a.key != nil:
		return credential{key: a.key, principal: &a.bySignature, faults: &appFaults}, nil
	case a != nil || !allowed.Has(AllowAKSK):
		return credential{}, errUnknownApp(access)
	}

	return credential{}, errUnknownAccessKey(access)
}

func errUnknownAccessKey(access []byte) error {
	return fault.New(fault.AccessKeyUnknown, "%sGet secretKey failed,ak:%s,err:ak not exist", iamFaults.prefix, access)
}

func errUnknownApp(access []byte) error {
	return fault.New(fault.AppUnknown, "%sapp not found, appkey %s", appFaults.prefix, access)
}

// checkSecurityToken holds a temporary key to its token; the token need not be signed.
func (s *scratch) checkSecurityToken(c *credential) error {
	if len(c.tokenHash) == 0 {
		return nil
	}

	token, _ := s.find([]byte("x-security-token"))
	sum := sha256.Sum256(token)

	if subtle.ConstantTimeCompare(sum[:], c.tokenHash) != 1 {
		return errSecurityToken
	}

	return nil
}

// checkDate wants X-Sdk-Date once, signed, and near now. It returns seconds since the epoch.
func (v *Verifier) checkDate(s *scratch, c *credential, now time.Time) (int64, error) {
	value, count := s.find([]byte(sign.DateHeader))

	date, ok := sign.ParseDate(value)
	if !ok || count != 1 {
		return 0, errAuthFormat("want one X-Sdk-Date of the form 20060102T150405Z")
	}

	if !sign.Lists(s.auth.SignedHeaders, []byte(sign.DateHeader)) {
		return 0, errAuthFormat("x-sdk-date is not signed")
	}

	if s.auth.Algorithm == sign.V11 && !bytes.Equal(s.auth.Info[:8], value[:8]) {
		return 0, errAuthFormat("the credential is for another day than X-Sdk-Date")
	}

	if apart := now.Sub(time.Unix(date, 0)); apart > v.cfg.Skew || apart < -v.cfg.Skew {
		return 0, fault.New(c.faults.expired, "%ssignature expired, signature time:%s,server time:%s",
			c.faults.prefix, value, now.UTC().Format(sign.DateLayout))
	}

	s.scope = sign.Scope{Algorithm: s.auth.Algorithm, Date: value, AccessKey: s.auth.Access, Info: s.auth.Info}

	return date, nil
}

// checkSignature verifies the signature, and the body against the digest that it covers.
func (v *Verifier) checkSignature(s *scratch, c *credential, r *Request) error {
	id := v.locks.id(s.auth.Access, r.Remote)

	left, failed := v.locks.check(id, r.Now)
	if left > 0 {
		return fault.New(c.faults.locked, "").After(left)
	}

	if err := s.collect(r, c.faults); err != nil {
		return err
	}

	given, err := v.bodyHash(s, c, r)
	if err != nil {
		return err
	}

	if !s.signatureMatches(c.key) && !s.matchesWithoutBody(c.key) {
		if v.locks.fail(id, r.Now) && v.hooks.Locked != nil {
			v.hooks.Locked(string(s.auth.Access), v.locks.source(r.Remote))
		}

		return fault.New(c.faults.mismatch, "%sverify %s fail, canonicalRequest:%s",
			c.faults.prefix, c.faults.what(), showCanonical(s.builder.Canonical(&s.message)))
	}

	// A digest that the client gave is checked last: a stranger cannot make us read a body.
	if given != nil {
		digest, err := v.hashBody(s.auth.Algorithm, r)
		if err != nil {
			return err
		}

		if subtle.ConstantTimeCompare(digest[:], given[:]) != 1 {
			return fault.New(c.faults.mismatch, "%sverify %s fail, the body does not have the digest in %s",
				c.faults.prefix, c.faults.what(), s.auth.Algorithm.ContentHeader())
		}
	}

	if failed {
		v.locks.clear(id)
	}

	return nil
}

func (s *scratch) signatureMatches(key *sign.Key) bool {
	want := s.builder.Sign(key, &s.scope, s.builder.Canonical(&s.message))

	return subtle.ConstantTimeCompare(want[:], s.auth.Signature[:]) == 1
}

// matchesWithoutBody makes up for the Python client: it states UNSIGNED-PAYLOAD for every content
// type but JSON, yet signs the digest of nothing when there is no body. That signature covers
// more than it must, so taking it does no harm.
func (s *scratch) matchesWithoutBody(key *sign.Key) bool {
	if string(s.message.BodyHash) != sign.UnsignedPayload {
		return false
	}

	length, _ := s.find([]byte("content-length"))
	if _, chunked := s.find([]byte("transfer-encoding")); chunked > 0 || len(length) > 0 && string(length) != "0" {
		return false
	}

	digest := s.auth.Algorithm.Digest(nil)
	stated := s.message.BodyHash
	s.message.BodyHash = hex.AppendEncode(s.digest[:0], digest[:])
	ok := s.signatureMatches(key)
	s.message.BodyHash = stated

	return ok
}

func (f *signedFaults) what() string {
	if f == &appFaults {
		return "signature"
	}

	return "aksk signature"
}

// collect fills the message from the raw request and the headers that the client signed.
func (s *scratch) collect(r *Request, f *signedFaults) error {
	m := &s.message
	m.Method, m.Path, m.Query, m.SignedHeaders = r.Method, r.Path, r.Query, s.auth.SignedHeaders

	for rest := s.auth.SignedHeaders; rest != nil; {
		var name []byte

		name, rest = sign.NextName(rest)
		first := len(m.Fields)

		if string(name) == "host" {
			if len(r.Host) > 0 {
				m.Fields = append(m.Fields, sign.Field{Name: name, Value: r.Host})
			}
		} else {
			for i := range s.fields {
				if equalFold(s.fields[i].Name, name) {
					m.Fields = append(m.Fields, sign.Field{Name: name, Value: s.fields[i].Value})
				}
			}
		}

		switch lines := m.Fields[first:]; {
		case len(lines) == 0:
			return fault.New(f.mismatch, "%sverify %s fail, the signed header %s is missing", f.prefix, f.what(), name)
		case len(lines) > 1:
			slices.SortFunc(lines, func(a, b sign.Field) int { return bytes.Compare(a.Value, b.Value) })
		}
	}

	return nil
}

// bodyHash fills the last line of the canonical request. If the client stated a digest, that is
// the line, and it is returned, because the body must be held against it.
func (v *Verifier) bodyHash(s *scratch, c *credential, r *Request) (given *[32]byte, err error) {
	name := []byte(s.auth.Algorithm.ContentHeader())

	value, count := s.find(name)
	value = bytes.TrimSpace(value)

	switch {
	case count > 1:
		return nil, errAuthFormat("the digest of the body is stated twice")
	case string(value) == sign.UnsignedPayload:
		if !sign.Lists(s.auth.SignedHeaders, name) {
			return nil, fault.New(c.faults.mismatch, "%sverify %s fail, %s is not signed", c.faults.prefix, c.faults.what(), s.auth.Algorithm.ContentHeader())
		}

		s.message.BodyHash = value

		return nil, nil
	case len(value) > 0:
		stated, ok := sign.ParseDigest(value)
		if !ok {
			return nil, errAuthFormat("the digest of the body is neither UNSIGNED-PAYLOAD nor 64 lower-case hex digits")
		}

		s.message.BodyHash = value
		s.given = stated

		return &s.given, nil
	}

	digest, err := v.hashBody(s.auth.Algorithm, r)
	if err != nil {
		return nil, err
	}

	s.message.BodyHash = hex.AppendEncode(s.digest[:0], digest[:])

	return nil, nil
}

func (v *Verifier) hashBody(a sign.Algorithm, r *Request) ([32]byte, error) {
	if r.Body == nil {
		return a.Digest(nil), nil
	}

	body, err := r.Body()
	if err != nil {
		return [32]byte{}, err
	}

	if int64(len(body)) > v.cfg.MaxSignedBody {
		return [32]byte{}, fault.New(fault.BodyTooLarge, "A signed body may have %d bytes at most; use a token or UNSIGNED-PAYLOAD.", v.cfg.MaxSignedBody)
	}

	return a.Digest(body), nil
}

func (v *Verifier) checkReplay(s *scratch, c *credential, date int64, now time.Time) error {
	if v.replay == nil {
		return nil
	}

	// now reads the clock that nobody sets, too, unless a test made it up.
	at := moment{now.Unix(), steadyBase + int64(now.Sub(v.began)/time.Second)}

	fresh, evicted := v.replay.use(&s.auth.Signature, at, date+int64(v.cfg.Skew/time.Second))
	if evicted && v.hooks.ReplayEvicted != nil {
		v.hooks.ReplayEvicted()
	}

	if !fresh {
		return fault.New(c.faults.replayed, "%ssignature already used", c.faults.prefix)
	}

	return nil
}

const maxShown = 1 << 10

// showCanonical is the canonical request as the platform tells it: in one line, with "|" for line
// breaks, so that the author of a signer can compare. Values that are secrets are left out.
func showCanonical(canonical []byte) string {
	lines := strings.Split(string(canonical[:min(len(canonical), 2*maxShown)]), "\n")
	for i, l := range lines {
		if name, _, ok := strings.Cut(l, ":"); ok && i > 2 && isSecretHeader(name) {
			lines[i] = name + ":***"
		}
	}

	text := strings.Join(lines, "|")

	return strings.ToValidUTF8(text[:min(len(text), maxShown)], "?")
}

func isSecretHeader(lower string) bool {
	switch lower {
	case "x-security-token", "x-auth-token", "x-apig-appcode", "apikey", "authorization", "cookie", "proxy-authorization":
		return true
	}

	return false
}

var (
	errSecurityToken = fault.New(fault.AccessKeyUnknown, "Incorrect IAM authentication information: the security token of the temporary access key is missing or wrong")
	// errOtherKind never leaves the package.
	errOtherKind = fault.New(fault.AuthTypeNotAllowed, "")
)
