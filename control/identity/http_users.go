package identity

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

const maxDescription = 255

type links struct {
	Next     *string `json:"next"`
	Previous *string `json:"previous"`
	Self     string  `json:"self"`
}

type selfLink struct {
	Self string `json:"self"`
}

type userView struct {
	ID                string   `json:"id"`
	Name              string   `json:"name"`
	DomainID          string   `json:"domain_id"`
	Enabled           bool     `json:"enabled"`
	Description       string   `json:"description"`
	PasswordExpiresAt *string  `json:"password_expires_at"`
	CreateTime        string   `json:"create_time"`
	Links             selfLink `json:"links"`
}

type userIn struct {
	User *struct {
		Name             *string `json:"name"`
		Password         *string `json:"password"`
		OriginalPassword *string `json:"original_password"`
		DomainID         *string `json:"domain_id"`
		Enabled          *bool   `json:"enabled"`
		Description      *string `json:"description"`
	} `json:"user"`
}

func viewUser(r *web.Request, u *spec.User) userView {
	return userView{
		ID: u.ID, Name: u.Name, DomainID: u.DomainID, Enabled: u.Enabled, Description: u.Description,
		CreateTime: stamp(time.UnixMilli(u.CreatedAt)), Links: selfLink{r.BaseURL() + "/v3/users/" + u.ID},
	}
}

// domainUser reads a user of the caller's domain. Others do not exist for the caller.
func (s *Service) domainUser(r *web.Request, id string) (store.Item[spec.User], error) {
	if !isID(id) {
		return store.Item[spec.User]{}, web.NotFound("user", id)
	}

	it, err := s.st.Users.Get(r.Context(), id)
	if err != nil {
		return it, gone(err, "user", id)
	}

	if it.Value.DomainID != r.Principal.DomainID {
		return it, web.NotFound("user", id)
	}

	return it, nil
}

func (s *Service) createUser(r *web.Request) (any, error) {
	if err := r.Authorize(auth.ActionUserCreate, "", ""); err != nil {
		return nil, err
	}

	var in userIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.User == nil {
		return nil, web.Required("user")
	}

	u := spec.User{ID: NewID(), DomainID: r.Principal.DomainID, Enabled: true, CreatedAt: s.nowMillis()}

	switch {
	case in.User.Name == nil:
		return nil, web.Required("user.name")
	case in.User.Password == nil:
		return nil, web.Required("user.password")
	case in.User.DomainID != nil && *in.User.DomainID != u.DomainID:
		return nil, forbidden()
	}

	if err := s.applyUser(r, &u, &in); err != nil {
		return nil, err
	}

	_, err := s.st.Commit(r.Context(),
		s.st.Index.CreateOp(store.IndexKey(store.IndexUser, u.DomainID, u.Name), u.ID),
		s.st.Users.CreateOp(u.ID, u))
	if errors.Is(err, store.ErrExists) {
		return nil, fault.New(fault.ObjectExists, "The user %s already exists.", u.Name)
	}

	if err != nil {
		return nil, fmt.Errorf("create user: %w", err)
	}

	s.changed(r.Context(), store.KindUsers)

	return web.Reply{Status: http.StatusCreated, Body: map[string]any{"user": viewUser(r, &u)}}, nil
}

// applyUser checks what is given and puts it into u.
func (s *Service) applyUser(r *web.Request, u *spec.User, in *userIn) error {
	if n := in.User.Name; n != nil {
		if err := checkName("user.name", *n); err != nil {
			return err
		}

		u.Name = *n
	}

	description, err := optionalText("user.description", in.User.Description)
	if err != nil {
		return err
	}

	if in.User.Description != nil {
		u.Description = description
	}

	if e := in.User.Enabled; e != nil {
		if !*e {
			s.withdrawTokens(u)
		}

		u.Enabled = *e
	}

	if p := in.User.Password; p != nil {
		return s.setPassword(r, u, *p)
	}

	return nil
}

// withdrawTokens ends all tokens of a user that were issued so far.
func (s *Service) withdrawTokens(u *spec.User) {
	u.TokensValidFrom = s.nowMillis() + 1 // for gateways of an earlier release
	u.TokenGeneration++
}

func (s *Service) setPassword(r *web.Request, u *spec.User, password string) error {
	if err := checkPassword("user.password", password, u.Name); err != nil {
		return err
	}

	hash, err := s.hasher.hash(r.Context(), r.Remote(), password)
	if err != nil {
		return err
	}

	if u.PasswordHash != "" {
		s.withdrawTokens(u) // whoever knew the old password is out
	}

	u.PasswordHash = hash

	return nil
}

func (s *Service) listUsers(r *web.Request) (any, error) {
	if err := r.Authorize(auth.ActionUserList, "", ""); err != nil {
		return nil, err
	}

	q := r.Query()
	name, enabled := q.String("name"), q.Bool("enabled")

	if err := q.Err(); err != nil {
		return nil, err
	}

	users, _, err := s.st.Users.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}

	slices.SortFunc(users, func(a, b spec.User) int { return strings.Compare(a.Name, b.Name) })

	views := []userView{}

	for i := range users {
		u := &users[i]
		if u.DomainID == r.Principal.DomainID && (name == "" || u.Name == name) && (!q.Has("enabled") || u.Enabled == enabled) {
			views = append(views, viewUser(r, u))
		}
	}

	return map[string]any{"links": links{Self: r.BaseURL() + "/v3/users"}, "users": views}, nil
}

func (s *Service) showUser(r *web.Request) (any, error) {
	if err := s.mayManage(r, auth.ActionUserGet, r.Var("user_id")); err != nil {
		return nil, err
	}

	it, err := s.domainUser(r, r.Var("user_id"))
	if err != nil {
		return nil, err
	}

	return map[string]any{"user": viewUser(r, &it.Value)}, nil
}

func (s *Service) updateUser(r *web.Request) (any, error) {
	if err := r.Authorize(auth.ActionUserUpdate, "", r.Var("user_id")); err != nil {
		return nil, err
	}

	it, err := s.domainUser(r, r.Var("user_id"))
	if err != nil {
		return nil, err
	}

	var in userIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.User == nil {
		return nil, web.Required("user")
	}

	u, old := it.Value, it.Value.Name
	if err := s.applyUser(r, &u, &in); err != nil {
		return nil, err
	}

	if !u.Enabled && u.ID == r.Principal.UserID {
		return nil, fault.New(fault.Conflict, "Nobody can disable themselves.")
	}

	ops := []store.Op{s.st.Users.CompareOp(u.ID, u, it.Revision)}
	if u.Name != old {
		ops = append(ops,
			s.st.Index.CreateOp(store.IndexKey(store.IndexUser, u.DomainID, u.Name), u.ID),
			s.st.Index.DeleteOp(store.IndexKey(store.IndexUser, u.DomainID, old), 0))
	}

	if err := s.commitUser(r, u.Name, ops); err != nil {
		return nil, err
	}

	return map[string]any{"user": viewUser(r, &u)}, nil
}

func (s *Service) commitUser(r *web.Request, name string, ops []store.Op) error {
	_, err := s.st.Commit(r.Context(), ops...)

	switch {
	case errors.Is(err, store.ErrExists):
		return fault.New(fault.ObjectExists, "The user %s already exists.", name)
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrNotFound):
		return fault.New(fault.Conflict, "The user was changed at the same time.")
	case err != nil:
		return fmt.Errorf("change user: %w", err)
	}

	s.changed(r.Context(), store.KindUsers, store.KindAccessKeys)

	return nil
}

// changePassword lets users change their own password with the old one.
func (s *Service) changePassword(r *web.Request) (any, error) {
	id := r.Var("user_id")
	if id != r.Principal.UserID || temporaryCaller(r) {
		return nil, forbidden()
	}

	var in userIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	switch {
	case in.User == nil || in.User.Password == nil:
		return nil, web.Required("user.password")
	case in.User.OriginalPassword == nil:
		return nil, web.Required("user.original_password")
	}

	it, err := s.domainUser(r, id)
	if err != nil {
		return nil, err
	}

	if err := s.mayTry(id, r.Remote()); err != nil {
		return nil, err
	}

	ok, err := s.hasher.verify(r.Context(), r.Remote(), it.Value.PasswordHash, *in.User.OriginalPassword)
	if err != nil {
		return nil, err
	}

	if !ok {
		s.lockout.failed(id, r.Remote())

		return nil, fault.New(fault.BadPassword, "The original password is wrong.")
	}

	u := it.Value
	if err := s.setPassword(r, &u, *in.User.Password); err != nil {
		return nil, err
	}

	if err := s.commitUser(r, u.Name, []store.Op{s.st.Users.CompareOp(u.ID, u, it.Revision)}); err != nil {
		return nil, err
	}

	return noContent(), nil
}

func (s *Service) deleteUser(r *web.Request) (any, error) {
	id := r.Var("user_id")
	if err := r.Authorize(auth.ActionUserDelete, "", id); err != nil {
		return nil, err
	}

	it, err := s.domainUser(r, id)
	if err != nil {
		return nil, err
	}

	if id == r.Principal.UserID {
		return nil, fault.New(fault.Conflict, "Nobody can delete themselves.")
	}

	// Without its user a key is void; keys that remain after a cut-off are harmless.
	ops := []store.Op{
		s.st.Users.DeleteOp(id, it.Revision),
		s.st.Index.DeleteOp(store.IndexKey(store.IndexUser, it.Value.DomainID, it.Value.Name), 0),
	}
	if err := s.commitUser(r, it.Value.Name, ops); err != nil {
		return nil, err
	}

	keys, _, err := s.st.AccessKeys.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("delete user: %w", err)
	}

	for _, k := range keys {
		if k.UserID == id {
			if err := ignoreGone(s.st.AccessKeys.Delete(r.Context(), k.AccessKey)); err != nil {
				return nil, fmt.Errorf("delete user: %w", err)
			}
		}
	}

	s.changed(r.Context(), store.KindAccessKeys)

	return noContent(), nil
}

// temporaryCaller reports whether the caller holds a key that ends, which must not give it
// anything that lasts.
func temporaryCaller(r *web.Request) bool {
	return r.Principal.Method == auth.MethodAKSK && !r.Principal.ExpiresAt.IsZero()
}

// checkName accepts 1 to 64 letters, digits and a few marks.
func checkName(field, name string) error {
	if name == "" {
		return web.Required(field)
	}

	if !utf8.ValidString(name) || utf8.RuneCountInString(name) > 64 {
		return web.Fieldf(field, "must have at most 64 characters")
	}

	for _, c := range name {
		if !unicode.IsLetter(c) && !unicode.IsDigit(c) && !strings.ContainsRune("-_.@ ", c) {
			return web.Fieldf(field, "must hold only letters, digits, spaces and - _ . @")
		}
	}

	if strings.TrimSpace(name) != name {
		return web.Fieldf(field, "must not start or end with a space")
	}

	return nil
}

func optionalText(field string, v *string) (string, error) {
	if v == nil {
		return "", nil
	}

	if utf8.RuneCountInString(*v) > maxDescription || strings.ContainsFunc(*v, unicode.IsControl) {
		return "", web.Fieldf(field, "must have at most %d printable characters", maxDescription)
	}

	return *v, nil
}
