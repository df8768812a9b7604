package identity

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

const subjectToken = "X-Subject-Token"

type (
	namedID struct {
		ID   string `json:"id"`
		Name string `json:"name"`
	}

	ownedID struct {
		namedID

		Domain namedID `json:"domain"`
	}

	tokenUser struct {
		ownedID

		PasswordExpiresAt string `json:"password_expires_at"`
	}

	tokenView struct {
		Methods   []string  `json:"methods"`
		IssuedAt  string    `json:"issued_at"`
		ExpiresAt string    `json:"expires_at"`
		Project   *ownedID  `json:"project,omitempty"`
		Domain    *namedID  `json:"domain,omitempty"`
		User      tokenUser `json:"user"`
		Roles     []namedID `json:"roles"`
		Catalog   *[]any    `json:"catalog,omitempty"`
	}
)

func (s *Service) createToken(r *web.Request) (any, error) {
	var in authBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.Auth == nil || in.Auth.Identity == nil {
		return nil, web.Required("auth.identity")
	}

	p, err := s.prove(r.Context(), in.Auth.Identity, r.Remote())
	if err != nil {
		return nil, err
	}

	sc, err := s.resolve(r.Context(), &p, in.Auth.Scope)
	if err != nil {
		return nil, err
	}

	token, claims, err := s.issue(&p, sc)
	if err != nil {
		return nil, err
	}

	view := viewToken(&claims, &p.user, sc)
	if !r.Query().Has("nocatalog") {
		view.Catalog = &[]any{}
	}

	return web.Reply{
		Status: http.StatusCreated,
		Header: http.Header{subjectToken: {token}},
		Body:   map[string]any{"token": view},
	}, nil
}

func viewToken(c *auth.TokenClaims, u *spec.User, sc scope) tokenView {
	domain := namedID{ID: sc.domain.ID, Name: sc.domain.Name}
	view := tokenView{
		Methods: c.Methods, IssuedAt: stamp(c.IssuedAt), ExpiresAt: stamp(c.ExpiresAt),
		User:  tokenUser{ownedID: ownedID{namedID: namedID{ID: u.ID, Name: u.Name}, Domain: domain}},
		Roles: []namedID{},
	}

	projectID := anyProject
	if sc.project != nil {
		projectID = sc.project.ID
		view.Project = &ownedID{namedID: namedID{ID: sc.project.ID, Name: sc.project.Name}, Domain: domain}
	} else {
		view.Domain = &domain
	}

	for _, g := range u.Grants {
		if g.Role != "" && (g.ProjectID == anyProject || g.ProjectID == projectID) {
			view.Roles = append(view.Roles, roleRef(g.Role))
		}
	}

	return view
}

// stamp writes a time as the platform does: six fractional digits and Z.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000000Z") }

// subject is the token that the request is about.
func (s *Service) subject(r *web.Request) (auth.TokenClaims, spec.User, error) {
	token := r.HTTP.Header.Get(subjectToken)
	if token == "" {
		return auth.TokenClaims{}, spec.User{}, web.Required(subjectToken)
	}

	claims, user, err := s.inspect(r.Context(), token)
	if err != nil {
		if status := fault.From(err).Code.Status(); status == http.StatusUnauthorized || errors.Is(err, store.ErrNotFound) {
			err = fault.Wrap(fault.ObjectNotFound, err, "The token is not valid.")
		}

		return claims, user, err
	}

	if user.DomainID != r.Principal.DomainID {
		return claims, user, fault.New(fault.ObjectNotFound, "The token is not valid.")
	}

	return claims, user, nil
}

func (s *Service) showToken(r *web.Request) (any, error) {
	claims, user, err := s.subject(r)
	if err != nil {
		return nil, err
	}

	if user.ID != r.Principal.UserID {
		if err := r.Authorize(auth.ActionUserGet, "", user.ID); err != nil {
			return nil, err
		}
	}

	domain, err := s.st.Domains.Get(r.Context(), user.DomainID)
	if err != nil {
		return nil, fmt.Errorf("show token: %w", err)
	}

	sc := scope{domain: domain.Value}

	if claims.ProjectID != "" {
		project, err := s.st.Projects.Get(r.Context(), claims.ProjectID)
		if err != nil {
			return nil, gone(err, "project", claims.ProjectID)
		}

		sc.project = &project.Value
	}

	view := viewToken(&claims, &user, sc)
	if !r.Query().Has("nocatalog") {
		view.Catalog = &[]any{}
	}

	return web.Reply{
		Status: http.StatusOK,
		Header: http.Header{subjectToken: {r.HTTP.Header.Get(subjectToken)}},
		Body:   map[string]any{"token": view},
	}, nil
}

func (s *Service) revokeToken(r *web.Request) (any, error) {
	claims, user, err := s.subject(r)
	if err != nil {
		return nil, err
	}

	if user.ID != r.Principal.UserID {
		if err := r.Authorize(auth.ActionTokenRevoke, "", user.ID); err != nil {
			return nil, err
		}
	}

	rev := spec.Revocation{TokenID: claims.ID, ExpiresAt: claims.ExpiresAt.UnixMilli()}
	// Longer than the token lives: clocks differ, and one that was ahead may be set back.
	ttl := claims.ExpiresAt.Sub(s.cfg.Now()) + clockMargin

	if err := s.st.Revocations.PutTTL(r.Context(), rev.TokenID, rev, ttl); err != nil {
		return nil, fmt.Errorf("revoke token: %w", err)
	}

	s.changed(r.Context(), store.KindRevocations)

	return noContent(), nil
}

func (s *Service) publicKey(kid string) ed25519.PublicKey {
	for _, k := range s.signer.Load().public {
		if k.ID == kid {
			return k.PublicKey
		}
	}

	return nil
}

func noContent() web.Reply { return web.Reply{Status: http.StatusNoContent} }

// gone turns ErrNotFound into the fault for an object that does not exist.
func gone(err error, kind, id string) error {
	if errors.Is(err, store.ErrNotFound) {
		return web.NotFound(kind, id)
	}

	return fmt.Errorf("read %s %s: %w", kind, id, err)
}

// tokenRequest is a request with nothing but a token, for the verifier.
func tokenRequest(token string, now time.Time) *auth.Request {
	return &auth.Request{Header: oneHeader(token), Now: now}
}

// oneHeader is the value of X-Auth-Token, the only header there is.
type oneHeader string

// Get implements auth.Headers.
func (h oneHeader) Get(name string) []byte {
	if name == "x-auth-token" {
		return []byte(h)
	}

	return nil
}

// Each implements auth.Headers.
func (h oneHeader) Each(f func(name, value []byte) bool) { f([]byte("x-auth-token"), []byte(h)) }

// securityToken makes temporary keys for the holder of a token.
func (s *Service) createSecurityToken(r *web.Request) (any, error) {
	var in authBody
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.Auth == nil || in.Auth.Identity == nil {
		return nil, web.Required("auth.identity")
	}

	id := in.Auth.Identity
	if len(id.Methods) != 1 || id.Methods[0] != "token" {
		return nil, web.Fieldf("auth.identity.methods", `must be ["token"]`)
	}

	token, life := r.HTTP.Header.Get("X-Auth-Token"), defaultTemporary
	if id.Token != nil {
		if id.Token.ID != "" {
			token = id.Token.ID
		}

		if d := id.Token.DurationSeconds; d != nil {
			life = time.Duration(*d) * time.Second
		}
	}

	if life < leastTemporary || life > mostTemporary {
		return nil, web.Fieldf("auth.identity.token.duration_seconds", "must be an integer from 900 to 86400")
	}

	if token == "" {
		return nil, web.Required("auth.identity.token.id")
	}

	claims, user, err := s.inspect(r.Context(), token)
	if err != nil {
		return nil, err
	}

	return s.temporaryKey(context.WithoutCancel(r.Context()), &user, claims.ProjectID, life)
}
