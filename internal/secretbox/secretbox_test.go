package secretbox_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/internal/secretbox"
)

func keyOf(b byte) []byte { return bytes.Repeat([]byte{b}, secretbox.KeySize) }

func TestOpenNeedsTheSameKeyContextAndBytes(t *testing.T) {
	t.Parallel()

	ring := mustRing(t, keyOf(1))
	sealed := ring.Seal([]byte("secret"), "ak/1")

	if plain, err := ring.Open(sealed, "ak/1"); err != nil || string(plain) != "secret" {
		t.Fatalf("got %q, %v", plain, err)
	}

	if bytes.Contains(sealed, []byte("secret")) || bytes.Equal(sealed, ring.Seal([]byte("secret"), "ak/1")) {
		t.Fatal("sealed bytes give something away")
	}

	if _, err := ring.Open(sealed, "ak/2"); !errors.Is(err, secretbox.ErrDamaged) {
		t.Fatalf("other context: %v", err)
	}

	for i := range sealed {
		broken := bytes.Clone(sealed)
		broken[i] ^= 1

		if _, err := ring.Open(broken, "ak/1"); err == nil {
			t.Fatalf("byte %d may be changed", i)
		}
	}

	for n := range sealed {
		if _, err := ring.Open(sealed[:n], "ak/1"); err == nil {
			t.Fatalf("%d of %d bytes open", n, len(sealed))
		}
	}

	if _, err := mustRing(t, keyOf(2)).Open(sealed, "ak/1"); !errors.Is(err, secretbox.ErrUnknownKey) {
		t.Fatalf("other key: %v", err)
	}
}

func TestRotationKeepsOldSecretsReadable(t *testing.T) {
	t.Parallel()

	old := mustRing(t, keyOf(1))
	sealed := old.Seal([]byte("x"), "")
	ring := mustRing(t, keyOf(2), keyOf(1))

	if plain, err := ring.Open(sealed, ""); err != nil || string(plain) != "x" {
		t.Fatalf("got %q, %v", plain, err)
	}

	if !ring.Stale(sealed) || old.Stale(sealed) || ring.Stale(ring.Seal(nil, "")) || !ring.Stale(nil) {
		t.Fatal("Stale is wrong")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()

	b64, hexKey := base64.StdEncoding.EncodeToString(keyOf(1)), hex.EncodeToString(keyOf(2))

	for _, text := range []string{b64, hexKey, b64 + "," + hexKey, "# c\n" + b64 + " # d\r\n\n" + hexKey} {
		if _, err := secretbox.Parse(text); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}

	for _, text := range []string{"", "# only", b64[:20], b64 + " " + b64[:8], strings.Repeat(b64+"\n", 17)} {
		_, err := secretbox.Parse(text)
		if err == nil {
			t.Errorf("%q was taken", text)
		} else if strings.Contains(err.Error(), b64[:8]) {
			t.Errorf("the error tells the key: %v", err)
		}
	}
}

func TestFileIsMadeOnceAndRotates(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "keys", "secret.key")

	var (
		wg    sync.WaitGroup
		rings [8]*secretbox.Keyring
	)

	for i := range rings {
		wg.Go(func() {
			ring, err := secretbox.LoadOrCreate(path)
			if err != nil {
				t.Error(err)
			}

			rings[i] = ring
		})
	}

	wg.Wait()

	if t.Failed() {
		return
	}

	sealed := rings[0].Seal([]byte("x"), "")
	for _, r := range rings {
		if _, err := r.Open(sealed, ""); err != nil {
			t.Fatalf("two processes made two keys: %v", err)
		}
	}

	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("mode %v, %v", info.Mode(), err)
	}

	if err := secretbox.Rotate(path); err != nil {
		t.Fatal(err)
	}

	ring, err := secretbox.Load(path)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := ring.Open(sealed, ""); err != nil || !ring.Stale(sealed) {
		t.Fatalf("after rotation: %v, stale %v", err, ring.Stale(sealed))
	}
}

func TestFileMustBePrivateAndWhole(t *testing.T) {
	t.Parallel()

	path := filepath.Join(t.TempDir(), "k")
	if _, err := secretbox.LoadOrCreate(path); err != nil {
		t.Fatal(err)
	}

	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}

	if _, err := secretbox.LoadOrCreate(path); err == nil || !strings.Contains(err.Error(), "0644") {
		t.Fatalf("readable by others: %v", err)
	}

	broken := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(broken, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}

	if _, err := secretbox.LoadOrCreate(broken); err == nil {
		t.Fatal("a broken file was replaced or taken")
	}
}

func mustRing(t *testing.T, keys ...[]byte) *secretbox.Keyring {
	t.Helper()

	ring, err := secretbox.New(keys...)
	if err != nil {
		t.Fatal(err)
	}

	return ring
}

func TestDerivedSecretsFollowFromKeyAndPurpose(t *testing.T) {
	t.Parallel()

	derive := func(purpose string, keys ...[]byte) [][]byte {
		out, err := mustRing(t, keys...).Derive(purpose)
		if err != nil || len(out) != len(keys) {
			t.Fatalf("%d secrets of %d keys, %v", len(out), len(keys), err)
		}

		return out
	}

	two := derive("a", keyOf(1), keyOf(2))

	if again := derive("a", keyOf(2)); !bytes.Equal(again[0], two[1]) || len(again[0]) != 32 {
		t.Error("the same key and purpose give another secret")
	}

	if bytes.Equal(two[0], two[1]) || bytes.Equal(two[0], derive("b", keyOf(1))[0]) || bytes.Equal(two[0], keyOf(1)) {
		t.Error("secrets are alike")
	}
}
