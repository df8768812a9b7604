package identity

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/internal/secretbox"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	// settleTime passes before a new key signs, so that every gateway knows it by then.
	settleTime  = time.Minute
	rotateCheck = time.Hour
	// clockMargin is by how much a clock may be wrong for a while without harm: what must outlive a
	// token is kept for so much longer.
	clockMargin = 2 * time.Hour
)

// signer is the keys at one moment.
type signer struct {
	id     string
	key    ed25519.PrivateKey
	public []spec.TokenKey
}

func tokenKeyContext(id string) string { return "token-key:" + id }

// loadKeys chooses the key that signs, and makes the first one.
func (s *Service) loadKeys(ctx context.Context) error {
	keys, _, err := s.st.TokenKeys.Values(ctx, 0)
	if err != nil {
		return fmt.Errorf("load token keys: %w", err)
	}

	if len(keys) == 0 {
		k := s.newTokenKey()
		if err := s.st.TokenKeys.Create(ctx, k.ID, k); err != nil {
			return fmt.Errorf("create token key: %w", err)
		}

		keys = []spec.SigningKey{k}
	}

	next := &signer{}
	for _, k := range keys {
		next.public = append(next.public, k.Public())
	}

	active := s.active(keys)

	seed, err := s.ring.Open(active.SealedSeed, tokenKeyContext(active.ID))
	if errors.Is(err, secretbox.ErrUnknownKey) {
		return fmt.Errorf("open token key: %w: put the key back that was in use before", err)
	}

	if err != nil || len(seed) != ed25519.SeedSize {
		return errors.Join(fmt.Errorf("open token key %s", active.ID), err)
	}

	next.id, next.key = active.ID, ed25519.NewKeyFromSeed(seed)
	s.signer.Store(next)

	return nil
}

// active is the newest key that has settled, or the oldest one when none has.
func (s *Service) active(keys []spec.SigningKey) spec.SigningKey {
	settled := s.cfg.Now().Add(-settleTime).UnixMilli()
	best := keys[0]

	for _, k := range keys[1:] {
		newer := k.CreatedAt > best.CreatedAt

		switch {
		case k.CreatedAt <= settled && (newer || best.CreatedAt > settled),
			k.CreatedAt > settled && best.CreatedAt > settled && !newer:
			best = k
		}
	}

	return best
}

func (s *Service) newTokenKey() spec.SigningKey {
	public, private, _ := ed25519.GenerateKey(rand.Reader) // never fails
	k := spec.SigningKey{ID: NewID(), PublicKey: public, CreatedAt: s.nowMillis()}
	k.SealedSeed = s.ring.Seal(private.Seed(), tokenKeyContext(k.ID))

	return k
}

func (s *Service) rotateRegularly(ctx context.Context) {
	ticker := time.NewTicker(rotateCheck)
	defer ticker.Stop()

	for {
		if err := s.rotateKeys(ctx, s.cfg.RotateKeys); err != nil && ctx.Err() == nil {
			s.log.Warn("cannot rotate token keys", slog.Any("error", err))
		}

		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// RotateKeys makes a new key now. It signs after a minute; tokens signed before stay valid.
func (s *Service) RotateKeys(ctx context.Context) error { return s.rotateKeys(ctx, 0) }

// rotateKeys makes a new key when the newest has reached an age, and drops those whose
// last token has expired.
func (s *Service) rotateKeys(ctx context.Context, atAge time.Duration) error {
	keys, _, err := s.st.TokenKeys.Values(ctx, 0)
	if err != nil {
		return fmt.Errorf("rotate token keys: %w", err)
	}

	now := s.cfg.Now()
	newest := keys[0]

	for _, k := range keys {
		if k.CreatedAt > newest.CreatedAt {
			newest = k
		}
	}

	if age := now.Sub(time.UnixMilli(newest.CreatedAt)); age >= atAge {
		k := s.newTokenKey()
		if err := s.st.TokenKeys.Create(ctx, k.ID, k); err != nil {
			return fmt.Errorf("rotate token keys: %w", err)
		}

		newest = k
	}

	err = s.retire(ctx, keys, newest)

	return errors.Join(err, s.refreshAll(ctx))
}

// retire marks replaced keys, and deletes them when no token of theirs can be alive.
func (s *Service) retire(ctx context.Context, keys []spec.SigningKey, newest spec.SigningKey) error {
	now := s.nowMillis()

	for _, k := range keys {
		var err error

		switch {
		case k.ID == newest.ID:
		case k.RetiredAt == 0:
			_, err = s.st.TokenKeys.Update(ctx, k.ID, func(k *spec.SigningKey) error {
				k.RetiredAt = now

				return nil
			})
		case now > k.RetiredAt+(s.cfg.TokenLifetime+2*settleTime+clockMargin).Milliseconds():
			err = s.st.TokenKeys.Delete(ctx, k.ID)
		}

		if err = ignoreGone(err); err != nil {
			return fmt.Errorf("retire token key %s: %w", k.ID, err)
		}
	}

	return nil
}
