package identity

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/secretbox"
	"github.com/sluice-gateway/sluice/spec"
)

// Config of a Service. Zero fields mean the default.
type Config struct {
	// BootstrapFile gets the credentials of the first administrator. Required.
	BootstrapFile string
	// Names of what the first start creates: default "sluice", "default" and "admin".
	DomainName, ProjectName, UserName string
	// TokenLifetime is 24 h by default.
	TokenLifetime time.Duration
	// RotateKeys is how long a key signs tokens before a new one takes over (default 30 days).
	RotateKeys time.Duration
	// ParallelHashes bounds password checks at a time (default 2); each takes HashMemoryKiB
	// (default 19 MiB).
	ParallelHashes int
	HashMemoryKiB  uint32
	// KeysPerUser bounds permanent access keys of a user (default 10), TemporaryKeysPerUser
	// temporary ones (default 1,000).
	KeysPerUser, TemporaryKeysPerUser int
	// Auth is how credentials are verified; tokens without a project are taken as well.
	Auth auth.Config
	// Now is the clock (default time.Now).
	Now func() time.Time
}

func (c *Config) setDefaults() {
	set(&c.DomainName, "sluice")
	set(&c.ProjectName, "default")
	set(&c.UserName, "admin")
	set(&c.TokenLifetime, 24*time.Hour)
	set(&c.RotateKeys, 30*24*time.Hour)
	set(&c.ParallelHashes, 2)
	set(&c.HashMemoryKiB, 19<<10)
	set(&c.KeysPerUser, 10)
	c.Auth.DomainTokens = true
	set(&c.TemporaryKeysPerUser, 1000)

	if c.Now == nil {
		c.Now = time.Now
	}
}

func set[T comparable](v *T, fallback T) {
	var zero T
	if *v == zero {
		*v = fallback
	}
}

// Service is the identity part of control.
type Service struct {
	cfg      Config
	st       *store.Store
	ring     *secretbox.Keyring
	log      *slog.Logger
	hasher   *hasher
	lockout  *lockout
	verifier *auth.Verifier
	signer   atomic.Pointer[signer]

	mu   sync.Mutex    // guards snap and the order of compilations
	snap spec.Snapshot // what the Directory was compiled from
	dir  atomic.Pointer[auth.Directory]
}

// Open reads the credentials, creates the first administrator if there is none, and makes
// sure that there is a key to sign tokens with.
func Open(ctx context.Context, cfg Config, st *store.Store, ring *secretbox.Keyring, log *slog.Logger) (*Service, error) {
	cfg.setDefaults()

	verifier, err := auth.NewVerifier(cfg.Auth, auth.Hooks{})
	if err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}

	s := &Service{
		cfg: cfg, st: st, ring: ring, log: log,
		hasher:   newHasher(cfg.ParallelHashes, hashParams{memoryKiB: cfg.HashMemoryKiB, passes: 2, lanes: 1}),
		lockout:  newLockout(cfg.Now),
		verifier: verifier,
	}

	for _, step := range []func(context.Context) error{s.loadKeys, s.bootstrap, s.reseal, s.refreshAll} {
		if err := step(ctx); err != nil {
			return nil, fmt.Errorf("open identity: %w", err)
		}
	}

	return s, nil
}

// Run keeps the Directory equal to the store and rotates the keys that sign tokens.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)

	for _, kind := range store.CredentialKinds() {
		g.Go(func() error {
			for range s.st.Changed(ctx, kind) {
				if err := s.refresh(ctx, kind); err != nil && ctx.Err() == nil {
					s.log.Warn("cannot follow credentials", slog.String("kind", kind), slog.Any("error", err))
				}
			}

			return nil
		})
	}

	g.Go(func() error {
		s.rotateRegularly(ctx)

		return nil
	})

	return g.Wait()
}

// Directory is the compiled form of all credentials. It holds no routes.
func (s *Service) Directory() *auth.Directory { return s.dir.Load() }

// Authenticate implements web.Gatekeeper.
func (s *Service) Authenticate(r *auth.Request) (*auth.Principal, error) {
	p, err := s.verifier.Verify(s.dir.Load(), r, auth.AllowToken|auth.AllowAKSK)
	if err != nil {
		return nil, fmt.Errorf("authenticate: %w", err)
	}

	return p, nil
}

// Authorize implements web.Gatekeeper.
func (s *Service) Authorize(p *auth.Principal, action, projectID, id string) error {
	if err := s.dir.Load().Authorize(p, action, projectID, id); err != nil {
		return fmt.Errorf("authorize %s: %w", action, err)
	}

	return nil
}

func (s *Service) refreshAll(ctx context.Context) error {
	return s.refresh(ctx, store.CredentialKinds()...)
}

// refresh reads some kinds again and compiles a new Directory.
func (s *Service) refresh(ctx context.Context, kinds ...string) error {
	s.mu.Lock()
	defer s.mu.Unlock()

	rev := int64(0)

	for _, kind := range kinds {
		r, err := s.reload(ctx, kind)
		if err != nil {
			return err
		}

		rev = max(rev, r)
	}

	s.snap.Revision = rev

	snap := s.snap

	dir, err := auth.Compile(&snap, s.ring, s.dir.Load())
	if err != nil {
		return fmt.Errorf("compile credentials: %w", err)
	}

	before := s.dir.Swap(dir)
	if before == nil || len(before.Problems()) != len(dir.Problems()) {
		for _, p := range dir.Problems() {
			s.log.Warn("unusable credential", slog.Any("error", p))
		}
	}

	return nil
}

func (s *Service) reload(ctx context.Context, kind string) (rev int64, err error) {
	switch kind {
	case store.KindProjects:
		s.snap.Projects, rev, err = s.st.Projects.Values(ctx, 0)
	case store.KindUsers:
		s.snap.Users, rev, err = s.st.Users.Values(ctx, 0)
	case store.KindAccessKeys:
		s.snap.AccessKeys, rev, err = s.st.AccessKeys.Values(ctx, 0)
	case store.KindRevocations:
		s.snap.Revocations, rev, err = s.st.Revocations.Values(ctx, 0)
	case store.KindTokenKeys:
		if err = s.loadKeys(ctx); err == nil {
			s.snap.TokenKeys = s.signer.Load().public
		}
	case store.KindApps: // apps do not call the control API
	}

	if err != nil {
		return 0, fmt.Errorf("reload %s: %w", kind, err)
	}

	return rev, nil
}

// changed makes a change of this very process visible before it is answered.
func (s *Service) changed(ctx context.Context, kinds ...string) {
	// The change is durable, whether or not the client waits. A failure is made good by Run.
	if err := s.refresh(context.WithoutCancel(ctx), kinds...); err != nil {
		s.log.Warn("cannot follow credentials", slog.Any("error", err))
	}
}

// reseal encrypts secrets again that an older key of the ring protects.
func (s *Service) reseal(ctx context.Context) error {
	again := func(sealed *[]byte, associated string) error {
		if len(*sealed) == 0 || !s.ring.Stale(*sealed) {
			return nil
		}

		plain, err := s.ring.Open(*sealed, associated)
		if errors.Is(err, secretbox.ErrUnknownKey) {
			return fmt.Errorf("%w: put the key back that was in use before", err)
		}

		if err != nil {
			return err
		}

		*sealed = s.ring.Seal(plain, associated)
		clear(plain)

		return nil
	}

	keys, _, err := s.st.AccessKeys.List(ctx)
	if err != nil {
		return err
	}

	for _, it := range keys {
		if s.ring.Stale(it.Value.SealedSecret) {
			_, err := s.st.AccessKeys.Update(ctx, it.ID, func(k *spec.AccessKey) error {
				return again(&k.SealedSecret, auth.SecretKeyContext(k.AccessKey))
			})
			if err = ignoreGone(err); err != nil {
				return fmt.Errorf("seal access key %s again: %w", it.ID, err)
			}
		}
	}

	if err := s.resealTokenKeys(ctx, again); err != nil {
		return err
	}

	apps, _, err := s.st.Apps.List(ctx)
	if err != nil {
		return err
	}

	for _, it := range apps {
		_, err := s.st.Apps.Update(ctx, it.ID, func(a *spec.App) error { return resealApp(a, again) })
		if err = ignoreGone(err); err != nil && !errors.Is(err, errFresh) {
			return fmt.Errorf("seal app %s again: %w", it.ID, err)
		}
	}

	return nil
}

func (s *Service) resealTokenKeys(ctx context.Context, again func(*[]byte, string) error) error {
	keys, _, err := s.st.TokenKeys.List(ctx)
	if err != nil {
		return err
	}

	for _, it := range keys {
		if !s.ring.Stale(it.Value.SealedSeed) {
			continue
		}

		_, err := s.st.TokenKeys.Update(ctx, it.ID, func(k *spec.SigningKey) error {
			return again(&k.SealedSeed, tokenKeyContext(k.ID))
		})
		if err = ignoreGone(err); err != nil {
			return fmt.Errorf("seal token key %s again: %w", it.ID, err)
		}
	}

	return nil
}

// errFresh ends an update that has nothing to change.
var errFresh = errors.New("nothing to do")

func resealApp(a *spec.App, again func(*[]byte, string) error) error {
	before := string(a.SealedSecret)
	if err := again(&a.SealedSecret, auth.AppSecretContext(a.ID)); err != nil {
		return err
	}

	fresh := before == string(a.SealedSecret)

	for i := range a.Codes {
		before := string(a.Codes[i].SealedCode)
		if err := again(&a.Codes[i].SealedCode, auth.AppCodeContext(a.ID)); err != nil {
			return err
		}

		fresh = fresh && before == string(a.Codes[i].SealedCode)
	}

	if fresh {
		return errFresh
	}

	return nil
}

func ignoreGone(err error) error {
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}

	return err
}

// forbidden is the fault for what belongs to somebody else.
func forbidden() error { return fault.New(fault.Forbidden, "") }

func (s *Service) nowMillis() int64 { return s.cfg.Now().UnixMilli() }
