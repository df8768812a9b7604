package identity

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// The body of POST /v3/auth/tokens.
type (
	authBody struct {
		Auth *struct {
			Identity *identityBody `json:"identity"`
			Scope    *scopeBody    `json:"scope"`
		} `json:"auth"`
	}

	identityBody struct {
		Methods  []string `json:"methods"`
		Password *struct {
			User *userBody `json:"user"`
		} `json:"password"`
		Token *struct {
			ID              string `json:"id"`
			DurationSeconds *int   `json:"duration_seconds"`
		} `json:"token"`
		HwAkSk *struct {
			Access keyBody `json:"access"`
			Secret keyBody `json:"secret"`
		} `json:"hw_ak_sk"`
	}

	userBody struct {
		ID       string    `json:"id"`
		Name     string    `json:"name"`
		Password string    `json:"password"`
		Domain   *nameOrID `json:"domain"`
	}

	keyBody struct {
		Key string `json:"key"`
	}

	nameOrID struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}

	scopeBody struct {
		Project *struct {
			nameOrID

			Domain *nameOrID `json:"domain"`
		} `json:"project"`
		Domain *nameOrID `json:"domain"`
	}
)

// proven is somebody who proved who he is.
type proven struct {
	user    spec.User
	method  string
	expires time.Time // latest end of the token; zero means the usual lifetime
	// project is where the credential is restricted to.
	project string
}

const maxNameBytes = 256

func (s *Service) prove(ctx context.Context, id *identityBody, from netip.Addr) (proven, error) {
	if len(id.Methods) != 1 {
		return proven{}, web.Fieldf("auth.identity.methods", "must hold exactly one method")
	}

	switch id.Methods[0] {
	case "password":
		return s.provePassword(ctx, id, from)
	case "hw_ak_sk":
		return s.proveKey(ctx, id, from)
	case "token":
		return s.proveToken(ctx, id)
	default:
		return proven{}, web.Fieldf("auth.identity.methods", "must be password, hw_ak_sk or token")
	}
}

func (s *Service) provePassword(ctx context.Context, id *identityBody, from netip.Addr) (proven, error) {
	const at = "auth.identity.password.user"

	if id.Password == nil || id.Password.User == nil {
		return proven{}, web.Required(at)
	}

	u := id.Password.User

	switch {
	case u.ID == "" && u.Name == "":
		return proven{}, web.Required(at + ".name")
	case u.Password == "":
		return proven{}, web.Required(at + ".password")
	case len(u.ID)+len(u.Name) > maxNameBytes || len(u.Password) > 1024:
		return proven{}, web.Fieldf(at, "is too long")
	}

	user, err := s.findUser(ctx, u)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return proven{}, err
	}

	who := u.ID + "\x00" + u.Name
	if user.ID != "" {
		who = user.ID // by whatever name
	}

	if err := s.mayTry(who, from); err != nil {
		return proven{}, err
	}

	// An unknown or disabled user takes the same time and gives the same answer.
	ok, err := s.hasher.verify(ctx, from, user.PasswordHash, u.Password)
	if err != nil {
		return proven{}, err
	}

	if !ok || !user.Enabled {
		s.lockout.failed(who, from)

		return proven{}, fault.New(fault.BadPassword, "")
	}

	s.lockout.succeeded(who, from)

	return proven{user: user, method: "password"}, nil
}

func (s *Service) mayTry(who string, from netip.Addr) error {
	if wait := s.lockout.lockedFor(who, from); wait > 0 {
		return fault.New(fault.BadPassword,
			"The account is locked for this source after repeated wrong passwords. Try again in %d minutes.",
			int(wait/time.Minute)+1).After(wait)
	}

	return nil
}

// findUser looks a user up by id, or by name in a domain. A user without domain is one of
// the only domain.
func (s *Service) findUser(ctx context.Context, u *userBody) (spec.User, error) {
	id := u.ID

	if id == "" {
		domain, err := s.findDomain(ctx, u.Domain)
		if err != nil {
			return spec.User{}, err
		}

		it, err := s.st.Index.Get(ctx, store.IndexKey(store.IndexUser, domain.ID, u.Name))
		if err != nil {
			return spec.User{}, fmt.Errorf("find user: %w", err)
		}

		id = it.Value
	}

	if !isID(id) {
		return spec.User{}, store.ErrNotFound
	}

	it, err := s.st.Users.Get(ctx, id)
	if err != nil {
		return spec.User{}, fmt.Errorf("find user: %w", err)
	}

	return it.Value, nil
}

func (s *Service) findDomain(ctx context.Context, d *nameOrID) (spec.Domain, error) {
	domains, _, err := s.st.Domains.Values(ctx, 0)
	if err != nil {
		return spec.Domain{}, fmt.Errorf("find domain: %w", err)
	}

	for _, have := range domains {
		if d == nil && len(domains) == 1 || d != nil && (d.ID == have.ID || d.ID == "" && d.Name == have.Name) {
			return have, nil
		}
	}

	return spec.Domain{}, store.ErrNotFound
}

func (s *Service) proveKey(ctx context.Context, id *identityBody, from netip.Addr) (proven, error) {
	const at = "auth.identity.hw_ak_sk"

	k := id.HwAkSk

	switch {
	case k == nil || k.Access.Key == "":
		return proven{}, web.Required(at + ".access.key")
	case k.Secret.Key == "":
		return proven{}, web.Required(at + ".secret.key")
	case len(k.Access.Key) > maxNameBytes || len(k.Secret.Key) > maxNameBytes:
		return proven{}, web.Fieldf(at, "is too long")
	}

	who := "ak:" + k.Access.Key
	if err := s.mayTry(who, from); err != nil {
		return proven{}, err
	}

	p, ok, err := s.checkKey(ctx, k.Access.Key, k.Secret.Key)
	if err != nil {
		return proven{}, err
	}

	if !ok {
		s.lockout.failed(who, from)

		return proven{}, fault.New(fault.BadPassword, "The access key or secret key is wrong.")
	}

	s.lockout.succeeded(who, from)

	return p, nil
}

// checkKey compares a permanent key. Temporary ones must sign, because only a signed request
// carries their security token.
func (s *Service) checkKey(ctx context.Context, access, secret string) (p proven, ok bool, err error) {
	it, err := s.st.AccessKeys.Get(ctx, access)
	if errors.Is(err, store.ErrNotFound) {
		return p, false, nil
	}

	if err != nil {
		return p, false, fmt.Errorf("check access key: %w", err)
	}

	k := it.Value

	plain, err := s.ring.Open(k.SealedSecret, auth.SecretKeyContext(k.AccessKey))
	if err != nil {
		return p, false, fmt.Errorf("open access key %s: %w", k.AccessKey, err)
	}
	defer clear(plain)

	if subtle.ConstantTimeCompare(plain, []byte(secret)) != 1 || !k.Enabled || temporary(&k) {
		return p, false, nil
	}

	user, err := s.st.Users.Get(ctx, k.UserID)
	if errors.Is(err, store.ErrNotFound) {
		return p, false, nil
	}

	if err != nil {
		return p, false, fmt.Errorf("check access key: %w", err)
	}

	return proven{user: user.Value, method: "hw_ak_sk", project: k.ProjectID}, user.Value.Enabled, nil
}

// proveToken takes a token for another one. The new one ends when the old one would.
func (s *Service) proveToken(ctx context.Context, id *identityBody) (proven, error) {
	if id.Token == nil || id.Token.ID == "" {
		return proven{}, web.Required("auth.identity.token.id")
	}

	claims, user, err := s.inspect(ctx, id.Token.ID)
	if err != nil {
		return proven{}, err
	}

	return proven{user: user, method: "token", expires: claims.ExpiresAt}, nil
}

// inspect verifies a token that is the object of a request, not its credential.
func (s *Service) inspect(ctx context.Context, token string) (auth.TokenClaims, spec.User, error) {
	p, err := s.Authenticate(tokenRequest(token, s.cfg.Now()))
	if err != nil {
		return auth.TokenClaims{}, spec.User{}, err
	}

	claims, err := auth.ParseToken(token, s.publicKey, s.cfg.Now())
	if err != nil {
		return auth.TokenClaims{}, spec.User{}, fmt.Errorf("inspect token: %w", err)
	}

	user, err := s.st.Users.Get(ctx, p.UserID)
	if err != nil {
		return auth.TokenClaims{}, spec.User{}, fmt.Errorf("inspect token: %w", err)
	}

	return claims, user.Value, nil
}

// scope is what a token is good for.
type scope struct {
	domain  spec.Domain
	project *spec.Project
}

// resolve finds what the caller asked for. Without a wish the scope is the domain.
func (s *Service) resolve(ctx context.Context, p *proven, want *scopeBody) (scope, error) {
	it, err := s.st.Domains.Get(ctx, p.user.DomainID)
	if err != nil {
		return scope{}, fmt.Errorf("resolve scope: %w", err)
	}

	sc := scope{domain: it.Value}

	switch {
	case want == nil || want.Project == nil && want.Domain == nil:
		if p.project == "" {
			return sc, nil
		}

		want = &scopeBody{}
	case want.Project != nil && want.Domain != nil:
		return scope{}, web.Fieldf("auth.scope", "must be a project or a domain, not both")
	case want.Domain != nil:
		if !names(want.Domain, sc.domain) || p.project != "" {
			return scope{}, fault.New(fault.Forbidden, "The user has no access to this domain.")
		}

		return sc, nil
	}

	project, err := s.resolveProject(ctx, p, want, sc.domain)
	sc.project = project

	return sc, err
}

func (s *Service) resolveProject(ctx context.Context, p *proven, want *scopeBody, domain spec.Domain) (*spec.Project, error) {
	id, name := p.project, ""

	if w := want.Project; w != nil {
		if w.ID == "" && w.Name == "" {
			return nil, web.Required("auth.scope.project.name")
		}

		if w.Domain != nil && !names(w.Domain, domain) {
			return nil, fault.New(fault.Forbidden, "The user has no access to this domain.")
		}

		id, name = w.ID, w.Name
	}

	projects, _, err := s.st.Projects.Values(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("resolve scope: %w", err)
	}

	for i := range projects {
		have := &projects[i]
		if have.DomainID != domain.ID || have.ID != id && (id != "" || have.Name != name) {
			continue
		}

		if p.project != "" && p.project != have.ID {
			break
		}

		if !have.Enabled {
			return nil, fault.New(fault.Forbidden, "The project is disabled.")
		}

		return have, nil
	}

	return nil, fault.New(fault.ObjectNotFound, "Could not find project: %s.", shown(id, name))
}

// names reports whether a reference means the domain.
func names(ref *nameOrID, d spec.Domain) bool {
	return ref.ID == d.ID || ref.ID == "" && ref.Name == d.Name
}

func shown(id, name string) string {
	text := id
	if text == "" {
		text = name
	}

	return strings.ToValidUTF8(text[:min(len(text), 64)], "")
}

// issue signs a token.
func (s *Service) issue(p *proven, sc scope) (string, auth.TokenClaims, error) {
	jti, err := uuid.NewRandom()
	if err != nil {
		return "", auth.TokenClaims{}, fmt.Errorf("issue token: %w", err)
	}

	now := s.cfg.Now().Truncate(time.Millisecond)
	claims := auth.TokenClaims{
		ID: jti.String(), UserID: p.user.ID, DomainID: sc.domain.ID, Methods: []string{p.method},
		IssuedAt: now, ExpiresAt: now.Add(s.cfg.TokenLifetime), Generation: p.user.TokenGeneration,
	}

	if sc.project != nil {
		claims.ProjectID = sc.project.ID
	}

	if !p.expires.IsZero() && p.expires.Before(claims.ExpiresAt) {
		claims.ExpiresAt = p.expires
	}

	k := s.signer.Load()

	token, err := auth.IssueToken(k.key, k.id, claims)
	if err != nil {
		return "", claims, fmt.Errorf("issue token: %w", err)
	}

	return token, claims, nil
}

func temporary(k *spec.AccessKey) bool { return len(k.SecurityTokenHash) > 0 || k.ExpiresAt != 0 }

// isID reports whether s may be an id or an access key, so that it is fit for a key of etcd.
func isID(s string) bool {
	if s == "" || len(s) > 64 {
		return false
	}

	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && c != '-' {
			return false
		}
	}

	return true
}
