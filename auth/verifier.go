package auth

import (
	"crypto/ed25519"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// Hooks report what a Verifier does. Nil fields are skipped. They are called on the request path.
type Hooks struct {
	// Rejected is called for each request that does not authenticate.
	Rejected func(code fault.Code)
	// TokenCache is called for each token, with whether its signature had been verified before.
	TokenCache func(hit bool)
	// Locked is called when a key is locked for a source.
	Locked func(accessKey string, source netip.Prefix)
	// ReplayEvicted is called when the replay cache is too small for what it should remember.
	ReplayEvicted func()
}

// Verifier verifies credentials. It is safe for concurrent use.
type Verifier struct {
	cfg     Config
	hooks   Hooks
	tokens  *tokenCache
	locks   *lockout
	replay  *replayCache // nil when off
	turns   *turns
	scratch sync.Pool // of *scratch
	began   time.Time
}

// NewVerifier returns a Verifier.
func NewVerifier(cfg Config, hooks Hooks) (*Verifier, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("auth: %w", err)
	}

	cfg = cfg.Defaults()

	v := &Verifier{cfg: cfg, hooks: hooks, tokens: newTokenCache(cfg.TokenCache), locks: newLockout(cfg), turns: newTurns(cfg), began: time.Now()}

	if cfg.ReplayEntries > 0 {
		v.replay = newReplayCache(cfg.ReplayEntries)
	}

	return v, nil
}

//nolint:gochecknoglobals // constant values
var (
	anonymous         = Principal{Method: MethodNone}
	errTypeNotAllowed = fault.New(fault.AuthTypeNotAllowed, "")
	errForeignScheme  = fault.New(fault.AuthFormat, "")
	errManySuspects   = fault.New(fault.TooManyRequests, "Too many requests from this network failed to authenticate.").After(time.Second)
)

// Verify tells who sends r. allowed is what the service accepts. The error is a *fault.Error.
// For a service that accepts NONE, a request without credentials gives a Principal with
// MethodNone and an empty Key.
func (v *Verifier) Verify(d *Directory, r *Request, allowed AuthSet) (*Principal, error) {
	p, err := v.verify(d, r, allowed)
	if err != nil {
		if v.hooks.Rejected != nil {
			v.hooks.Rejected(fault.From(err).Code)
		}

		return nil, err
	}

	return p, nil
}

// verify picks the first credential of an allowed kind; its verdict is final.
func (v *Verifier) verify(d *Directory, r *Request, allowed AuthSet) (*Principal, error) {
	otherKind := false // a credential of a kind that is not allowed

	if token := r.Header.Get("x-auth-token"); len(token) > 0 {
		if allowed.Has(AllowToken) {
			return v.verifyToken(d, token, r)
		}

		otherKind = true
	}

	authorization := r.Header.Get("authorization")
	if sign.IsSignature(authorization) {
		if allowed.Has(AllowAKSK | AllowApp) {
			if p, err := v.verifySigned(d, r, allowed); err != errOtherKind { //nolint:errorlint // the very value
				return p, err
			}
		}

		otherKind = true
	}

	if code := r.Header.Get("x-apig-appcode"); len(code) > 0 {
		if allowed.Has(AllowApp) {
			return v.verifyAppCode(d, r, code)
		}

		otherKind = true
	}

	if key := r.Header.Get("apikey"); len(key) > 0 && !v.cfg.RefuseAppKeys {
		if allowed.Has(AllowApp) {
			return v.verifyAppKey(d, r, key)
		}

		otherKind = true
	}

	switch {
	case allowed.Has(AllowNone):
		return &anonymous, nil
	case otherKind:
		return nil, errTypeNotAllowed
	case len(authorization) > 0:
		return nil, errForeignScheme
	}

	return nil, errNoCredentials
}

func (v *Verifier) verifyToken(d *Directory, token []byte, r *Request) (*Principal, error) {
	now := r.Now
	hash, e := v.tokens.get(token)

	if v.hooks.TokenCache != nil {
		v.hooks.TokenCache(e != nil)
	}

	if e == nil {
		var err error
		if e, err = v.prove(d, token, hash, r); err != nil {
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

// prove verifies the signature of a token that is not remembered.
func (v *Verifier) prove(d *Directory, token []byte, hash uint64, r *Request) (*tokenEntry, error) {
	if r.Suspect {
		if !v.turns.take() {
			return nil, errManySuspects
		}
		defer v.turns.give()
	}

	return newTokenEntry(d, token, hash, r.Now)
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

	if withdrawn(&e.claims, u.spec.TokensValidFrom, u.spec.TokenGeneration) {
		return errTokenRevoked
	}

	return nil
}

// withdrawn reports whether all tokens of the user were taken back after this one was issued. Dates are
// for users of whom an earlier release took them back: a clock that was set makes them wrong.
func withdrawn(c *TokenClaims, validFrom, generation int64) bool {
	if generation > 0 {
		return c.Generation < generation
	}

	return c.IssuedAt.UnixMilli() < validFrom
}
