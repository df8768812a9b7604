package identity

import (
	"context"
	"crypto/sha256"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Lifetimes of temporary keys.
const (
	leastTemporary   = 900 * time.Second
	defaultTemporary = 900 * time.Second
	mostTemporary    = 24 * time.Hour
)

const (
	active   = "active"
	inactive = "inactive"
)

type keyView struct {
	Access      string `json:"access"`
	Secret      string `json:"secret,omitempty"` // only in the answer to its creation
	Status      string `json:"status"`
	UserID      string `json:"user_id"`
	CreateTime  string `json:"create_time"`
	Description string `json:"description"`
}

type keyBodyIn struct {
	Credential *struct {
		UserID      string  `json:"user_id"`
		Description *string `json:"description"`
		Status      *string `json:"status"`
	} `json:"credential"`
}

func viewKey(k *spec.AccessKey) keyView {
	v := keyView{
		Access: k.AccessKey, Status: active, UserID: k.UserID,
		CreateTime: stamp(time.UnixMilli(k.CreatedAt)), Description: k.Description,
	}
	if !k.Enabled {
		v.Status = inactive
	}

	return v
}

// mayManage lets users manage what is theirs, and administrators everything in the domain.
func (s *Service) mayManage(r *web.Request, action, userID string) error {
	if userID == r.Principal.UserID {
		return nil
	}

	return r.Authorize(action, "", userID)
}

func (s *Service) createKey(r *web.Request) (any, error) {
	var in keyBodyIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.Credential == nil {
		return nil, web.Required("credential")
	}

	userID := in.Credential.UserID
	if userID == "" {
		userID = r.Principal.UserID
	}

	if temporaryCaller(r) {
		return nil, forbidden()
	}

	if err := s.mayManage(r, auth.ActionKeyCreate, userID); err != nil {
		return nil, err
	}

	user, err := s.domainUser(r, userID)
	if err != nil {
		return nil, err
	}

	description, err := optionalText("credential.description", in.Credential.Description)
	if err != nil {
		return nil, err
	}

	keys, err := s.keysOf(r.Context(), user.Value.ID, false)
	if err != nil {
		return nil, err
	}

	if len(keys) >= s.cfg.KeysPerUser {
		return nil, fault.New(fault.QuotaExceeded, "A user may have at most %d access keys.", s.cfg.KeysPerUser)
	}

	secret := newSecretKey()
	k := spec.AccessKey{
		AccessKey: newAccessKey(), UserID: user.Value.ID, DomainID: user.Value.DomainID, Enabled: true,
		Description: description, CreatedAt: s.nowMillis(),
	}
	k.SealedSecret = s.ring.Seal([]byte(secret), auth.SecretKeyContext(k.AccessKey))

	if _, err := s.st.Commit(r.Context(), s.st.Users.ExistsOp(k.UserID, 0), s.st.AccessKeys.CreateOp(k.AccessKey, k)); err != nil {
		return nil, fmt.Errorf("create access key: %w", err)
	}

	s.changed(r.Context(), store.KindAccessKeys)

	view := viewKey(&k)
	view.Secret = secret

	return web.Reply{Status: http.StatusCreated, Body: map[string]any{"credential": view}}, nil
}

// keysOf lists the permanent or temporary keys of a user.
func (s *Service) keysOf(ctx context.Context, userID string, temp bool) ([]spec.AccessKey, error) {
	all, _, err := s.st.AccessKeys.Values(ctx, 0)
	if err != nil {
		return nil, fmt.Errorf("list access keys: %w", err)
	}

	return slices.DeleteFunc(all, func(k spec.AccessKey) bool { return k.UserID != userID || temporary(&k) != temp }), nil
}

func (s *Service) listKeys(r *web.Request) (any, error) {
	q := r.Query()
	userID := q.String("user_id")

	if err := q.Err(); err != nil {
		return nil, err
	}

	if userID == "" {
		userID = r.Principal.UserID
	}

	if err := s.mayManage(r, auth.ActionKeyList, userID); err != nil {
		return nil, err
	}

	if _, err := s.domainUser(r, userID); err != nil {
		return nil, err
	}

	keys, err := s.keysOf(r.Context(), userID, false)
	if err != nil {
		return nil, err
	}

	slices.SortFunc(keys, func(a, b spec.AccessKey) int { return strings.Compare(a.AccessKey, b.AccessKey) })

	views := make([]keyView, len(keys))
	for i := range keys {
		views[i] = viewKey(&keys[i])
	}

	return map[string]any{"credentials": views}, nil
}

// ownKey finds the key in the path and checks that the caller may touch it.
func (s *Service) ownKey(r *web.Request, action string) (store.Item[spec.AccessKey], error) {
	access := r.Var("access_key")
	if !isID(access) {
		return store.Item[spec.AccessKey]{}, web.NotFound("access key", access)
	}

	it, err := s.st.AccessKeys.Get(r.Context(), access)
	if err != nil {
		return it, gone(err, "access key", access)
	}

	if it.Value.DomainID != r.Principal.DomainID || temporary(&it.Value) {
		return it, web.NotFound("access key", access)
	}

	return it, s.mayManage(r, action, it.Value.UserID)
}

func (s *Service) showKey(r *web.Request) (any, error) {
	it, err := s.ownKey(r, auth.ActionKeyGet)
	if err != nil {
		return nil, err
	}

	return map[string]any{"credential": viewKey(&it.Value)}, nil
}

func (s *Service) updateKey(r *web.Request) (any, error) {
	it, err := s.ownKey(r, auth.ActionKeyUpdate)
	if err != nil {
		return nil, err
	}

	var in keyBodyIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if in.Credential == nil {
		return nil, web.Required("credential")
	}

	if st := in.Credential.Status; st != nil && *st != active && *st != inactive {
		return nil, web.Fieldf("credential.status", "must be active or inactive")
	}

	description, err := optionalText("credential.description", in.Credential.Description)
	if err != nil {
		return nil, err
	}

	it, err = s.st.AccessKeys.Update(r.Context(), it.ID, func(k *spec.AccessKey) error {
		if in.Credential.Description != nil {
			k.Description = description
		}

		if in.Credential.Status != nil {
			k.Enabled = *in.Credential.Status == active
		}

		return nil
	})
	if err != nil {
		return nil, gone(err, "access key", it.ID)
	}

	s.changed(r.Context(), store.KindAccessKeys)

	return map[string]any{"credential": viewKey(&it.Value)}, nil
}

func (s *Service) deleteKey(r *web.Request) (any, error) {
	it, err := s.ownKey(r, auth.ActionKeyDelete)
	if err != nil {
		return nil, err
	}

	if err := s.st.AccessKeys.Delete(r.Context(), it.ID); err != nil {
		return nil, gone(err, "access key", it.ID)
	}

	s.changed(r.Context(), store.KindAccessKeys)

	return noContent(), nil
}

// temporaryKey makes a key that ends by itself.
func (s *Service) temporaryKey(ctx context.Context, user *spec.User, projectID string, life time.Duration) (any, error) {
	keys, err := s.keysOf(ctx, user.ID, true)
	if err != nil {
		return nil, err
	}

	if len(keys) >= s.cfg.TemporaryKeysPerUser {
		return nil, fault.New(fault.QuotaExceeded, "A user may have at most %d temporary access keys.", s.cfg.TemporaryKeysPerUser)
	}

	now := s.cfg.Now()
	secret, token := newSecretKey(), randomText(120, letters)
	hash := sha256.Sum256([]byte(token))
	k := spec.AccessKey{
		AccessKey: newAccessKey(), UserID: user.ID, DomainID: user.DomainID, ProjectID: projectID, Enabled: true,
		SecurityTokenHash: hash[:], ExpiresAt: now.Add(life).UnixMilli(), CreatedAt: now.UnixMilli(),
	}
	k.SealedSecret = s.ring.Seal([]byte(secret), auth.SecretKeyContext(k.AccessKey))

	if err := s.st.AccessKeys.PutTTL(ctx, k.AccessKey, k, life+settleTime); err != nil {
		return nil, fmt.Errorf("create temporary access key: %w", err)
	}

	s.changed(ctx, store.KindAccessKeys)

	return web.Reply{Status: http.StatusCreated, Body: map[string]any{"credential": map[string]string{
		"access": k.AccessKey, "secret": secret, "securitytoken": token, "expires_at": stamp(now.Add(life)),
	}}}, nil
}
