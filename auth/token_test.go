package auth_test

import (
	"crypto/ed25519"
	"encoding/base64"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

func TestTokenSaysWhoCalls(t *testing.T) {
	t.Parallel()

	d, v := compile(t, world(t), nil), verifier(t, auth.Config{})
	token := issue(t, claims())

	if len(token) >= 600 {
		t.Errorf("a token takes %d bytes", len(token))
	}

	want := &auth.Principal{
		Method: auth.MethodToken, DomainID: domainID, ProjectID: projectID, UserID: "u1", UserName: "alice",
		TokenID: "jti-1", Key: "user:u1", ExpiresAt: claims().ExpiresAt,
	}

	for range 2 { // the second time from the cache
		p, err := v.Verify(d, tokenRequest(token), auth.AllowDefault)
		if err != nil {
			t.Fatal(err)
		}

		if diff := cmp.Diff(want, p); diff != "" {
			t.Error(diff)
		}
	}
}

func TestTokenRoundTripKeepsMilliseconds(t *testing.T) {
	t.Parallel()

	c := claims()
	c.IssuedAt = time.UnixMilli(1735786845123)
	c.NotBefore = c.IssuedAt.Add(time.Millisecond)

	got, err := auth.ParseToken(issue(t, c), func(string) ed25519.PublicKey { return public(key(t, 1)) }, clock())
	if err != nil {
		t.Fatal(err)
	}

	if !got.IssuedAt.Equal(c.IssuedAt) || !got.NotBefore.Equal(c.NotBefore) || !got.ExpiresAt.Equal(c.ExpiresAt) {
		t.Errorf("got %v, want %v", got, c)
	}
}

func TestBadTokensAreRejected(t *testing.T) {
	t.Parallel()

	with := func(change func(c *auth.TokenClaims)) string {
		c := claims()
		change(&c)

		return issue(t, c)
	}

	foreign, err := auth.IssueToken(key(t, 2), "k1", claims())
	if err != nil {
		t.Fatal(err)
	}

	unknownKey, err := auth.IssueToken(key(t, 1), "k9", claims())
	if err != nil {
		t.Fatal(err)
	}

	good := issue(t, claims())
	parts := strings.Split(good, ".")
	raw := base64.RawURLEncoding.EncodeToString
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}

	tests := map[string]struct {
		token string
		code  fault.Code
	}{
		"garbage":              {"garbage", fault.TokenInvalid},
		"two dots":             {"..", fault.TokenInvalid},
		"too long":             {strings.Repeat("a", 1<<20), fault.TokenInvalid},
		"signed by a stranger": {foreign, fault.TokenInvalid},
		"unknown key id":       {unknownKey, fault.TokenInvalid},
		"algorithm none":       {raw([]byte(`{"alg":"none","kid":"k1"}`)) + "." + parts[1] + ".", fault.TokenInvalid},
		"algorithm HS256": {
			raw([]byte(`{"alg":"HS256","kid":"k1"}`)) + "." + parts[1] + "." + parts[2], fault.TokenInvalid,
		},
		"other payload": {
			parts[0] + "." + raw([]byte(strings.Replace(string(payload), `"u1"`, `"u2"`, 1))) + "." + parts[2], fault.TokenInvalid,
		},
		"no signature":   {parts[0] + "." + parts[1] + ".", fault.TokenInvalid},
		"expired":        {with(func(c *auth.TokenClaims) { c.ExpiresAt = clock() }), fault.TokenExpired},
		"not yet valid":  {with(func(c *auth.TokenClaims) { c.NotBefore = clock().Add(2 * time.Minute) }), fault.TokenInvalid},
		"domain scope":   {with(func(c *auth.TokenClaims) { c.ProjectID = "" }), fault.TokenScope},
		"unknown user":   {with(func(c *auth.TokenClaims) { c.UserID = "u99" }), fault.TokenInvalid},
		"disabled user":  {with(func(c *auth.TokenClaims) { c.UserID = "u4" }), fault.TokenInvalid},
		"trailing bytes": {good + "=", fault.TokenInvalid},
	}

	d, v := compile(t, world(t), nil), verifier(t, auth.Config{})

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			_, err := v.Verify(d, tokenRequest(test.token), auth.AllowDefault)
			wantFault(t, err, test.code)
		})
	}
}

// TestEveryCharacterOfATokenCounts changes each one: none may be without meaning.
func TestEveryCharacterOfATokenCounts(t *testing.T) {
	t.Parallel()

	d, v := compile(t, world(t), nil), verifier(t, auth.Config{})
	good := issue(t, claims())

	if _, err := v.Verify(d, tokenRequest(good), auth.AllowDefault); err != nil {
		t.Fatal(err)
	}

	for i := range good {
		for _, c := range []byte("AB.") {
			if good[i] == c {
				continue
			}

			bad := good[:i] + string(c) + good[i+1:]
			if _, err := v.Verify(d, tokenRequest(bad), auth.AllowDefault); err == nil {
				t.Fatalf("a token with %q at %d is accepted", c, i)
			}
		}
	}
}

// TestCachedTokenFollowsTheDirectory uses a token, changes the world, and uses it again.
func TestCachedTokenFollowsTheDirectory(t *testing.T) {
	t.Parallel()

	tests := map[string]struct {
		change func(s *spec.Snapshot)
		code   fault.Code
	}{
		"revoked":         {func(s *spec.Snapshot) { s.Revocations = []spec.Revocation{{TokenID: "jti-1"}} }, fault.TokenRevoked},
		"user disabled":   {func(s *spec.Snapshot) { s.Users[0].Enabled = false }, fault.TokenInvalid},
		"user deleted":    {func(s *spec.Snapshot) { s.Users = s.Users[1:] }, fault.TokenInvalid},
		"user moved":      {func(s *spec.Snapshot) { s.Users[0].DomainID = "dom-9" }, fault.TokenInvalid},
		"password change": {func(s *spec.Snapshot) { s.Users[0].TokensValidFrom = clock().UnixMilli() }, fault.TokenRevoked},
		"key removed":     {func(s *spec.Snapshot) { s.TokenKeys = nil }, fault.TokenInvalid},
		"key replaced":    {func(s *spec.Snapshot) { s.TokenKeys[0].PublicKey = public(key(t, 3)) }, fault.TokenInvalid},
	}

	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			before, v, token := compile(t, world(t), nil), verifier(t, auth.Config{}), issue(t, claims())

			if _, err := v.Verify(before, tokenRequest(token), auth.AllowDefault); err != nil {
				t.Fatal(err)
			}

			s := world(t)
			test.change(s)

			_, err := v.Verify(compile(t, s, before), tokenRequest(token), auth.AllowDefault)
			wantFault(t, err, test.code)

			if _, err := v.Verify(before, tokenRequest(token), auth.AllowDefault); err != nil {
				t.Errorf("the old directory must still take the token: %v", err)
			}
		})
	}
}

func TestCachedTokenDoesNotOutliveItsTime(t *testing.T) {
	t.Parallel()

	d, v, token := compile(t, world(t), nil), verifier(t, auth.Config{}), issue(t, claims())

	for _, step := range []struct {
		now time.Time
		ok  bool
	}{
		{clock(), true},
		{claims().ExpiresAt.Add(-time.Nanosecond), true},
		{claims().ExpiresAt, false},
	} {
		r := tokenRequest(token)
		r.Now = step.now

		_, err := v.Verify(d, r, auth.AllowDefault)
		if step.ok != (err == nil) {
			t.Errorf("at %v: %v", step.now, err)
		}
	}
}

func TestDomainTokenIsForTheManagementAPIOnly(t *testing.T) {
	t.Parallel()

	c := claims()
	c.ProjectID = ""

	d, v := compile(t, world(t), nil), verifier(t, auth.Config{DomainTokens: true})

	p, err := v.Verify(d, tokenRequest(issue(t, c)), auth.AllowDefault)
	if err != nil {
		t.Fatal(err)
	}

	if err := d.Authorize(p, auth.ActionUserList, "", ""); err != nil {
		t.Errorf("domain action: %v", err)
	}

	wantFault(t, d.Authorize(p, auth.ActionServiceList, projectID, ""), fault.TokenScope)
}

func TestTokenCacheIsBounded(t *testing.T) {
	t.Parallel()

	var hits, misses int

	v, err := auth.NewVerifier(auth.Config{TokenCache: 16}, auth.Hooks{TokenCache: func(hit bool) {
		if hit {
			hits++
		} else {
			misses++
		}
	}})
	if err != nil {
		t.Fatal(err)
	}

	d := compile(t, world(t), nil)

	const tokens = 200
	for range 2 {
		for i := range tokens {
			c := claims()
			c.ExpiresAt = c.ExpiresAt.Add(time.Duration(i) * time.Second)

			if _, err := v.Verify(d, tokenRequest(issue(t, c)), auth.AllowDefault); err != nil {
				t.Fatal(err)
			}
		}
	}

	if hits > 16 || misses < 2*tokens-16 {
		t.Errorf("%d hits and %d misses with 16 places and %d tokens in turn", hits, misses, tokens)
	}
}

func TestIssueTokenRefusesWhatWouldNotVerify(t *testing.T) {
	t.Parallel()

	for name, c := range map[string]auth.TokenClaims{
		"no id":         {UserID: "u", IssuedAt: clock(), ExpiresAt: clock().Add(1)},
		"no user":       {ID: "i", IssuedAt: clock(), ExpiresAt: clock().Add(1)},
		"no issue time": {ID: "i", UserID: "u", ExpiresAt: clock()},
		"never valid":   {ID: "i", UserID: "u", IssuedAt: clock(), ExpiresAt: clock()},
	} {
		if _, err := auth.IssueToken(key(t, 1), "k1", c); err == nil {
			t.Errorf("%s: a token is issued", name)
		}
	}

	if _, err := auth.IssueToken(nil, "k1", claims()); err == nil {
		t.Error("a token is issued without a key")
	}
}

func TestNoCredentials(t *testing.T) {
	t.Parallel()

	d, v := compile(t, world(t), nil), verifier(t, auth.Config{})

	_, err := v.Verify(d, newRequest(), auth.AllowDefault)
	wantFault(t, err, fault.NoCredentials)

	p, err := v.Verify(d, newRequest(), auth.AllowNone)
	if err != nil || p.Method != auth.MethodNone || p.Key != "" {
		t.Errorf("got %+v, %v for a public service", p, err)
	}
}
