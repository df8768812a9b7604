package identity_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/identity"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/internal/secretbox"
)

func TestBootstrapHappensOnceAndSurvivesACut(t *testing.T) {
	t.Parallel()

	st, dir := storetest.New(t), t.TempDir()
	file := filepath.Join(dir, "bootstrap.json")
	open := func(st *store.Store) error {
		_, err := identity.Open(t.Context(), identity.Config{BootstrapFile: file, HashMemoryKiB: 64}, st, ring(t, 1), slog.New(slog.DiscardHandler))

		return err
	}

	must(t, open(st))
	first, err := os.ReadFile(file)
	must(t, err)

	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}

	must(t, open(st))
	again, err := os.ReadFile(file)
	must(t, err)

	if !bytes.Equal(first, again) {
		t.Fatal("a second start wrote other credentials")
	}

	// Cut off after the file, before the transaction: another store with the same file.
	cut := store.New(st.Client(), "/cut/")
	must(t, open(cut))
	again, err = os.ReadFile(file)
	must(t, err)

	if !bytes.Equal(first, again) {
		t.Fatal("the credentials that somebody may have read were replaced")
	}

	var b identity.Bootstrap
	must(t, json.Unmarshal(first, &b))

	if _, err := cut.AccessKeys.Get(t.Context(), b.AccessKey); err != nil {
		t.Fatalf("the credentials of the file are not in force: %v", err)
	}

	// The operator removed the file: it does not come back.
	must(t, os.Remove(file))
	must(t, open(st))

	if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the file came back: %v", err)
	}

	must(t, os.WriteFile(file, []byte("{"), 0o600))

	if err := open(store.New(st.Client(), "/other/")); err == nil || !strings.Contains(err.Error(), "bootstrap.json") {
		t.Fatalf("a broken file: %v", err)
	}
}

func TestLostKeyIsToldAtStart(t *testing.T) {
	t.Parallel()

	st := storetest.New(t)
	open := func(r *secretbox.Keyring) error {
		_, err := identity.Open(t.Context(), identity.Config{BootstrapFile: filepath.Join(t.TempDir(), "b"), HashMemoryKiB: 64}, st, r, slog.New(slog.DiscardHandler))

		return err
	}

	must(t, open(ring(t, 1)))

	if err := open(ring(t, 2)); !errors.Is(err, secretbox.ErrUnknownKey) {
		t.Fatalf("another key: %v", err)
	}

	must(t, open(ring(t, 2, 1))) // rotation seals everything again
	must(t, open(ring(t, 2)))
}

func TestTokenKeysRotateWithoutEndingTokens(t *testing.T) {
	t.Parallel()

	p := start(t)
	old := p.admin()

	must(t, p.svc.RotateKeys(t.Context()))
	unsettled := p.admin()

	if kid(t, old) != kid(t, unsettled) {
		t.Fatal("a key signs before everybody knows it")
	}

	p.offset.Add(int64(2 * time.Minute))
	must(t, p.svc.RotateKeys(t.Context()))

	fresh := p.admin()
	if kid(t, old) == kid(t, fresh) {
		t.Fatal("the new key does not sign")
	}

	p.want(p.call("GET", "/v3/users", old, nil), 200)
	p.want(p.call("GET", "/v3/users", fresh, nil), 200)

	p.offset.Add(int64(28 * time.Hour)) // a token lives for 24 h, a clock may be wrong by two
	must(t, p.svc.RotateKeys(t.Context()))

	keys, _, err := p.st.TokenKeys.List(t.Context())
	must(t, err)

	if len(keys) != 2 {
		t.Fatalf("%d keys are left", len(keys))
	}
}

func TestSecondProcessSeesChanges(t *testing.T) {
	t.Parallel()

	p := start(t)
	second, err := identity.Open(t.Context(), identity.Config{BootstrapFile: filepath.Join(t.TempDir(), "b"), HashMemoryKiB: 64}, p.st, ring(t, 1), slog.New(slog.DiscardHandler))
	must(t, err)

	ctx, cancel := contextWithCancel(t)
	done := make(chan error, 1)

	go func() { done <- second.Run(ctx) }()

	token := p.admin()
	if _, err := second.Authenticate(requestWith(token)); err != nil {
		t.Fatalf("token of the first process: %v", err)
	}

	p.want(p.call("DELETE", "/v3/auth/tokens", p.admin(), nil, "X-Subject-Token", token), 204)

	revisions := p.st.Changed(ctx, store.KindRevocations)
	deadline := time.After(10 * time.Second)

	for {
		if _, err := second.Authenticate(requestWith(token)); err != nil {
			break
		}

		select {
		case <-revisions:
		case <-time.After(5 * time.Millisecond):
		case <-deadline:
			t.Fatal("a revocation did not arrive")
		}
	}

	cancel()

	if err := <-done; err != nil {
		t.Fatal(err)
	}

	for range revisions {
	}
}
