package auth

import (
	"crypto/ed25519"
	"fmt"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Config of a Verifier. Zero fields mean the default.
type Config struct {
	// TokenCache is how many verified tokens are remembered (default 16,384).
	TokenCache int
	// DomainTokens accepts tokens without a project. The edge does not; the management API does,
	// and Authorize then refuses them for what belongs to a project.
	DomainTokens bool
}

const defaultTokenCache = 16 << 10

func (c *Config) setDefaults() {
	if c.TokenCache == 0 {
		c.TokenCache = defaultTokenCache
	}
}

func (c *Config) validate() error {
	if c.TokenCache < 0 || c.TokenCache > 1<<24 {
		return fmt.Errorf("auth: token cache of %d entries is out of range", c.TokenCache)
	}

	return nil
}

// Hooks report what a Verifier does. Nil fields are skipped. They are called on the request path.
type Hooks struct {
	// Rejected is called for each request that does not authenticate.
	Rejected func(code fault.Code)
	// TokenCache is called for each token, with whether its signature had been verified before.
	TokenCache func(hit bool)
}

// Verifier verifies credentials. It is safe for concurrent use.
type Verifier struct {
	cfg    Config
	hooks  Hooks
	tokens *tokenCache
}

// NewVerifier returns a Verifier.
func NewVerifier(cfg Config, hooks Hooks) (*Verifier, error) {
	cfg.setDefaults()

	if err := cfg.validate(); err != nil {
		return nil, err
	}

	return &Verifier{cfg: cfg, hooks: hooks, tokens: newTokenCache(cfg.TokenCache)}, nil
}

//nolint:gochecknoglobals // a constant value
var anonymous = Principal{Method: MethodNone}

// Verify tells who sends r. allowed is what the service accepts. The error is a *fault.Error.
// For a service that accepts NONE, a request without credentials gives a Principal with
// MethodNone and an empty Key.
func (v *Verifier) Verify(d *Directory, r *Request, allowed AuthSet) (*Principal, error) {
	p, err := v.verify(d, r, allowed)
	if err != nil && v.hooks.Rejected != nil {
		v.hooks.Rejected(fault.From(err).Code)
	}

	return p, err
}

func (v *Verifier) verify(d *Directory, r *Request, allowed AuthSet) (*Principal, error) {
	if token := r.Header.Get("x-auth-token"); len(token) > 0 && allowed.Has(AllowToken) {
		return v.verifyToken(d, token, r.Now)
	}

	if allowed.Has(AllowNone) {
		return &anonymous, nil
	}

	return nil, errNoCredentials
}

func (v *Verifier) verifyToken(d *Directory, token []byte, now time.Time) (*Principal, error) {
	hash, e := v.tokens.get(token)

	if v.hooks.TokenCache != nil {
		v.hooks.TokenCache(e != nil)
	}

	if e == nil {
		var err error
		if e, err = newTokenEntry(d, token, hash, now); err != nil {
			return nil, err
		}

		if err := v.checkToken(d, e, now); err != nil {
			return nil, err
		}

		v.tokens.put(e, now.UnixNano())

		return &e.principal, nil
	}

	if err := v.checkToken(d, e, now); err != nil {
		return nil, err
	}

	return &e.principal, nil
}

// newTokenEntry verifies the signature.
func newTokenEntry(d *Directory, token []byte, hash uint64, now time.Time) (*tokenEntry, error) {
	claims, by, err := parseToken(string(token), func(kid string) ed25519.PublicKey { return d.tokenKeys[kid] })
	if err != nil {
		return nil, err
	}

	u := d.users.users[claims.UserID]
	if u == nil {
		return nil, errUserDisabled
	}

	start := claims.NotBefore
	if start.IsZero() {
		start = claims.IssuedAt
	}

	e := &tokenEntry{
		hash: hash, text: append([]byte(nil), token...), claims: claims, by: by,
		notBefore: start.Add(-notBeforeLeeway).UnixNano(), expires: claims.ExpiresAt.UnixNano(),
		principal: Principal{
			Method: MethodToken, DomainID: u.spec.DomainID, ProjectID: claims.ProjectID,
			UserID: u.spec.ID, UserName: u.spec.Name, TokenID: claims.ID,
			Key: userKey(u.spec.ID), ExpiresAt: claims.ExpiresAt,
		},
	}
	e.used.Store(now.UnixNano())

	return e, nil
}

// checkToken is done on each use: times always, the rest when the Directory is another one.
func (v *Verifier) checkToken(d *Directory, e *tokenEntry, now time.Time) error {
	ns := now.UnixNano()
	if ns >= e.expires || ns < e.notBefore {
		return checkTimes(&e.claims, now)
	}

	if e.principal.ProjectID == "" && !v.cfg.DomainTokens {
		return errTokenScope
	}

	e.touch(ns)

	if e.good.Load() == d.generation {
		return nil
	}

	if err := d.checkClaims(e); err != nil {
		return err
	}

	e.good.Store(d.generation)

	return nil
}

// checkClaims holds a verified token against what the Directory says now.
func (d *Directory) checkClaims(e *tokenEntry) error {
	if !e.by.key.Equal(d.tokenKeys[e.by.kid]) {
		return errTokenInvalid
	}

	if _, revoked := d.revoked[e.claims.ID]; revoked {
		return errTokenRevoked
	}

	u := d.users.users[e.claims.UserID]
	if u == nil || !u.spec.Enabled || u.spec.DomainID != e.principal.DomainID {
		return errUserDisabled
	}

	if e.claims.IssuedAt.UnixMilli() < u.spec.TokensValidFrom {
		return errTokenRevoked
	}

	return nil
}
