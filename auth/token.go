package auth

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-gateway/sluice/internal/fault"
)

const (
	maxTokenBytes = 4 << 10
	// notBeforeLeeway lets a token in that was issued by a machine whose clock is ahead.
	notBeforeLeeway = time.Minute
)

// TokenClaims is what a token says. A token is a compact JWT signed with Ed25519.
type TokenClaims struct {
	ID        string   // jti, what a revocation names
	UserID    string   // sub
	DomainID  string   // dom
	ProjectID string   // prj; empty for a domain-scoped token
	Methods   []string // mth: how the user proved who it is ("password", "hw_ak_sk")
	IssuedAt  time.Time
	NotBefore time.Time // zero means IssuedAt
	ExpiresAt time.Time
	// Generation of the user's tokens, see spec.User.
	Generation int64
}

// wireClaims is TokenClaims as JSON. Times have milliseconds, because User.TokensValidFrom has.
type wireClaims struct {
	ID        string   `json:"jti"`
	UserID    string   `json:"sub"`
	DomainID  string   `json:"dom,omitempty"`
	ProjectID string   `json:"prj,omitempty"`
	Methods   []string `json:"mth,omitempty"`
	IssuedAt  millis   `json:"iat"`
	NotBefore millis   `json:"nbf,omitzero"`
	ExpiresAt millis   `json:"exp"`

	Generation int64 `json:"gen,omitempty"`
}

// millis is ms since the epoch, written as a JWT date: seconds with three decimals.
type millis int64

// MarshalJSON implements json.Marshaler.
func (m *millis) MarshalJSON() ([]byte, error) {
	return strconv.AppendFloat(nil, float64(*m)/1e3, 'f', -1, 64), nil
}

// maxMillis bounds dates to what a time.Time prints (year 9999).
const maxMillis = 253402300799999

// UnmarshalJSON implements json.Unmarshaler.
func (m *millis) UnmarshalJSON(b []byte) error {
	f, err := strconv.ParseFloat(string(b), 64)
	if err != nil || f < 0 || f > maxMillis/1e3 {
		return fmt.Errorf("not a date: %q", b)
	}

	*m = millis(f*1e3 + 0.5)

	return nil
}

func (m *millis) time() time.Time { return milliTime(int64(*m)) }

// The methods of jwt.Claims. Times are checked here, against the clock of the request.

// GetExpirationTime implements jwt.Claims.
func (c *wireClaims) GetExpirationTime() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(c.ExpiresAt.time()), nil
}

// GetIssuedAt implements jwt.Claims.
func (c *wireClaims) GetIssuedAt() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(c.IssuedAt.time()), nil
}

// GetNotBefore implements jwt.Claims.
func (c *wireClaims) GetNotBefore() (*jwt.NumericDate, error) {
	return jwt.NewNumericDate(c.NotBefore.time()), nil
}

// GetIssuer implements jwt.Claims.
func (c *wireClaims) GetIssuer() (string, error) { return "", nil }

// GetSubject implements jwt.Claims.
func (c *wireClaims) GetSubject() (string, error) { return c.UserID, nil }

// GetAudience implements jwt.Claims.
func (c *wireClaims) GetAudience() (jwt.ClaimStrings, error) { return nil, nil }

// Errors of IssueToken.
var (
	ErrTokenKey    = errors.New("auth: the token key is not usable")
	ErrTokenClaims = errors.New("auth: a token needs an id, a user, and an expiry after its issue")
)

// IssueToken signs a token. kid names the key in Snapshot.TokenKeys.
func IssueToken(key ed25519.PrivateKey, kid string, c TokenClaims) (string, error) {
	if len(key) != ed25519.PrivateKeySize || kid == "" {
		return "", ErrTokenKey
	}

	if c.ID == "" || c.UserID == "" || !c.ExpiresAt.After(c.IssuedAt) || c.IssuedAt.IsZero() {
		return "", ErrTokenClaims
	}

	w := wireClaims{
		ID: c.ID, UserID: c.UserID, DomainID: c.DomainID, ProjectID: c.ProjectID, Methods: c.Methods,
		IssuedAt: millis(c.IssuedAt.UnixMilli()), ExpiresAt: millis(c.ExpiresAt.UnixMilli()),
		Generation: c.Generation,
	}

	if !c.NotBefore.IsZero() {
		w.NotBefore = millis(c.NotBefore.UnixMilli())
	}

	t := jwt.NewWithClaims(jwt.SigningMethodEdDSA, &w)
	t.Header = map[string]any{"alg": jwt.SigningMethodEdDSA.Alg(), "kid": kid}

	text, err := t.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}

	if len(text) > maxTokenBytes {
		return "", fmt.Errorf("%w: %d bytes are too many", ErrTokenClaims, len(text))
	}

	return text, nil
}

// KeyFunc gives the public key with an id, nil if there is none.
type KeyFunc func(kid string) ed25519.PublicKey

// ParseToken checks the form and the signature of a token, and its times against now. It does not
// know revocations; Verifier does. The error is a *fault.Error.
func ParseToken(text string, keys KeyFunc, now time.Time) (TokenClaims, error) {
	c, _, err := parseToken(text, keys)
	if err != nil {
		return TokenClaims{}, err
	}

	return c, checkTimes(&c, now)
}

// parseToken also returns the key that verified the token.
func parseToken(text string, keys KeyFunc) (TokenClaims, signedBy, error) {
	if len(text) > maxTokenBytes {
		return TokenClaims{}, signedBy{}, errTokenInvalid
	}

	var (
		w  wireClaims
		by signedBy
	)

	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithoutClaimsValidation(),
		jwt.WithStrictDecoding(),
	)

	_, err := parser.ParseWithClaims(text, &w, func(t *jwt.Token) (any, error) {
		by.kid, _ = t.Header["kid"].(string)
		if by.key = keys(by.kid); by.key == nil {
			return nil, errors.New("unknown key id")
		}

		return by.key, nil
	})
	if err != nil {
		return TokenClaims{}, signedBy{}, fault.Wrap(fault.TokenInvalid, err, "")
	}

	if w.ID == "" || w.UserID == "" || w.ExpiresAt == 0 {
		return TokenClaims{}, signedBy{}, errTokenInvalid
	}

	return TokenClaims{
		ID: w.ID, UserID: w.UserID, DomainID: w.DomainID, ProjectID: w.ProjectID, Methods: w.Methods,
		IssuedAt: w.IssuedAt.time(), NotBefore: w.NotBefore.time(), ExpiresAt: w.ExpiresAt.time(), Generation: w.Generation,
	}, by, nil
}

type signedBy struct {
	kid string
	key ed25519.PublicKey
}

func checkTimes(c *TokenClaims, now time.Time) error {
	if !now.Before(c.ExpiresAt) {
		return errTokenExpired(c.ExpiresAt)
	}

	start := c.NotBefore
	if start.IsZero() {
		start = c.IssuedAt
	}

	if now.Add(notBeforeLeeway).Before(start) {
		return errTokenEarly
	}

	return nil
}

func errTokenExpired(at time.Time) error {
	return fault.New(fault.TokenExpired, "Incorrect IAM authentication information: token expires, expires_at: %s",
		at.UTC().Format("2006-01-02T15:04:05.000000Z"))
}

var (
	errTokenInvalid = fault.New(fault.TokenInvalid, "")
	errTokenRevoked = fault.New(fault.TokenRevoked, "")
	errTokenEarly   = fault.New(fault.TokenInvalid, "Incorrect IAM authentication information: token is not valid yet")
	errUserDisabled = fault.New(fault.TokenInvalid, "Incorrect IAM authentication information: the user is disabled or does not exist")
)
