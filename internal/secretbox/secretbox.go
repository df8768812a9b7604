// Package secretbox encrypts secrets at rest: AES-256-GCM under a ring of keys.
//
// The first key of the ring seals; every key opens. To rotate, put a new key in front
// (Rotate), restart, seal again what Stale reports, and drop the old key. A Keyring is
// immutable and safe for concurrent use.
package secretbox

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/internal/atomicfile"
)

// KeySize is the size of a key in bytes.
const KeySize = 32

const (
	version    = 1
	idSize     = 4
	headSize   = 1 + idSize
	maxKeys    = 16
	maxKeyFile = 4096
)

// Errors of Open.
var (
	// ErrUnknownKey means that no key of the ring sealed this.
	ErrUnknownKey = errors.New("sealed with a key that is not in the key ring")
	// ErrDamaged means that the sealed bytes, or what they are bound to, were changed.
	ErrDamaged = errors.New("sealed secret is damaged or belongs elsewhere")
)

// Keyring seals and opens.
type Keyring struct {
	keys []key
}

type key struct {
	id   [idSize]byte
	aead cipher.AEAD
	raw  []byte // for Derive
}

// New makes a ring. The first key seals.
func New(keys ...[]byte) (*Keyring, error) {
	if len(keys) == 0 || len(keys) > maxKeys {
		return nil, fmt.Errorf("a key ring has 1 to %d keys, got %d", maxKeys, len(keys))
	}

	ring := &Keyring{keys: make([]key, 0, len(keys))}

	for i, raw := range keys {
		if len(raw) != KeySize {
			return nil, fmt.Errorf("key %d has %d bytes, want %d", i+1, len(raw), KeySize)
		}

		block, err := aes.NewCipher(raw)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}

		aead, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return nil, fmt.Errorf("key %d: %w", i+1, err)
		}

		ring.keys = append(ring.keys, key{id: keyID(raw), aead: aead, raw: bytes.Clone(raw)})
	}

	return ring, nil
}

// Parse reads keys in base64 or hexadecimal, separated by white space or commas. "#" starts a comment.
func Parse(text string) (*Keyring, error) {
	keys, err := parseKeys(text)
	if err != nil {
		return nil, err
	}

	return New(keys...)
}

// Load reads a ring from a file that only its owner and group can read.
func Load(path string) (*Keyring, error) {
	text, err := readKeyFile(path)
	if err != nil {
		return nil, err
	}

	ring, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}

	return ring, nil
}

// LoadOrCreate is Load; a file that does not exist is made with one random key.
func LoadOrCreate(path string) (*Keyring, error) {
	ring, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return ring, err
	}

	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("key file %s: %w", path, err)
	}

	err = atomicfile.Create(path, []byte(header+newKey()+"\n"), 0o600)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("key file: %w", err)
	}

	return Load(path)
}

// Rotate puts a new key in front of those in the file.
func Rotate(path string) error {
	text, err := readKeyFile(path)
	if err != nil {
		return err
	}

	if _, err := Parse(text + "\n" + newKey()); err != nil {
		return fmt.Errorf("key file %s: %w", path, err)
	}

	if err := atomicfile.Write(path, []byte(newKey()+"\n"+text), 0o600); err != nil {
		return fmt.Errorf("key file: %w", err)
	}

	return nil
}

const header = "# Keys that protect the secrets of Sluice. Without this file they are lost. The first key seals.\n"

// Seal encrypts plain and binds it to context, such as the id of what it belongs to.
func (r *Keyring) Seal(plain []byte, context string) []byte {
	k := r.keys[0]
	out := append(make([]byte, 0, headSize+len(plain)+k.aead.Overhead()), version)
	out = append(out, k.id[:]...)

	return k.aead.Seal(out, nil, plain, bound(out, context))
}

// Open decrypts what Seal made for the same context.
func (r *Keyring) Open(sealed []byte, context string) ([]byte, error) {
	if len(sealed) < headSize || sealed[0] != version {
		return nil, ErrDamaged
	}

	head := sealed[:headSize:headSize]
	found := false

	for _, k := range r.keys {
		if string(k.id[:]) != string(head[1:]) {
			continue
		}

		found = true

		if plain, err := k.aead.Open(nil, nil, sealed[headSize:], bound(head, context)); err == nil {
			return plain, nil
		}
	}

	if !found {
		return nil, ErrUnknownKey
	}

	return nil, ErrDamaged
}

// Stale reports whether sealed should be sealed again with the first key.
func (r *Keyring) Stale(sealed []byte) bool {
	return len(sealed) < headSize || string(sealed[1:headSize]) != string(r.keys[0].id[:])
}

// Derive returns a secret for another purpose from each key, in the order of the ring. It tells nothing of
// the keys, and secrets for different purposes tell nothing of each other.
func (r *Keyring) Derive(purpose string) ([][]byte, error) {
	out := make([][]byte, 0, len(r.keys))

	for i := range r.keys {
		secret, err := hkdf.Key(sha256.New, r.keys[i].raw, nil, "sluice "+purpose, KeySize)
		if err != nil {
			return nil, fmt.Errorf("derive a secret for %s: %w", purpose, err)
		}

		out = append(out, secret)
	}

	return out, nil
}

// bound is what the ciphertext is bound to besides itself.
func bound(head []byte, context string) []byte {
	return append(head[:headSize:headSize], context...)
}

func keyID(raw []byte) (id [idSize]byte) {
	sum := sha256.Sum256(append([]byte("sluice key id\x00"), raw...))
	copy(id[:], sum[:])

	return id
}

func newKey() string {
	raw := make([]byte, KeySize)
	_, _ = rand.Read(raw) // never fails

	return base64.StdEncoding.EncodeToString(raw)
}

func parseKeys(text string) ([][]byte, error) {
	var keys [][]byte

	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "#")

		for _, word := range strings.FieldsFunc(line, func(r rune) bool { return strings.ContainsRune(" \t\r\n,", r) }) {
			raw, err := decodeKey(word)
			if err != nil {
				return nil, fmt.Errorf("key %d: %w", len(keys)+1, err)
			}

			keys = append(keys, raw)
		}
	}

	return keys, nil
}

// decodeKey never repeats the key in its error.
func decodeKey(word string) ([]byte, error) {
	if len(word) == 2*KeySize {
		if raw, err := hex.DecodeString(word); err == nil {
			return raw, nil
		}
	}

	raw, err := base64.StdEncoding.DecodeString(word)
	if err != nil || len(raw) != KeySize {
		return nil, fmt.Errorf("want %d bytes in base64 or hexadecimal", KeySize)
	}

	return raw, nil
}

func readKeyFile(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}

	if info.Mode().Perm()&0o027 != 0 {
		return "", fmt.Errorf("key file %s: mode %04o lets others in, want 0600", path, info.Mode().Perm())
	}

	if info.Size() > maxKeyFile {
		return "", fmt.Errorf("key file %s: over %d bytes", path, maxKeyFile)
	}

	data, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("key file: %w", err)
	}

	return string(data), nil
}
