package identity

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
)

const (
	saltBytes   = 16
	hashBytes   = 32
	hashWait    = 5 * time.Second
	hashWaiters = 64
	// When half of the places are taken, a network that has hashPerNetwork gets no more, so that
	// one cannot take them all.
	hashPerNetwork = 16
	maxPassword    = 128
	leastPassword  = 8
)

// hashParams are the costs of a hash; they are part of it, so that they can change.
type hashParams struct {
	memoryKiB, passes uint32
	lanes             uint8
}

// hasher computes argon2id. Each computation takes memory, so only a few run at a time and
// only some may wait.
type hasher struct {
	params  hashParams
	running chan struct{}
	waiting chan struct{}
	dummy   string // hash of nothing in particular, checked when there is no user

	mu       sync.Mutex // guards networks
	networks map[netip.Prefix]int
}

func newHasher(parallel int, params hashParams) *hasher {
	h := &hasher{
		params:   params,
		running:  make(chan struct{}, parallel),
		waiting:  make(chan struct{}, hashWaiters),
		networks: make(map[netip.Prefix]int),
	}
	h.dummy = h.compute(rand.Text())

	return h
}

func (h *hasher) enter(ctx context.Context, from netip.Addr) error {
	network := networkOf(from)

	if !h.come(network) {
		return fault.New(fault.TooManyRequests, "Too many logins at once from this network.").After(time.Second)
	}
	defer h.leave(network)

	select {
	case h.waiting <- struct{}{}:
		defer func() { <-h.waiting }()
	default:
		return fault.New(fault.Overloaded, "Too many logins at once.").After(time.Second)
	}

	timer := time.NewTimer(hashWait)
	defer timer.Stop()

	select {
	case h.running <- struct{}{}:
		return nil
	case <-timer.C:
		return fault.New(fault.Overloaded, "Too many logins at once.").After(time.Second)
	case <-ctx.Done():
		return fault.Wrap(fault.ClientGone, ctx.Err(), "")
	}
}

// come takes one of the places of a network.
func (h *hasher) come(network netip.Prefix) bool {
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.networks[network] >= hashPerNetwork && len(h.waiting) >= hashWaiters/2 {
		return false
	}

	h.networks[network]++

	return true
}

func (h *hasher) leave(network netip.Prefix) {
	h.mu.Lock()
	defer h.mu.Unlock()

	if h.networks[network]--; h.networks[network] == 0 {
		delete(h.networks, network)
	}
}

// networkOf is what one customer of a provider may have many addresses in.
func networkOf(addr netip.Addr) netip.Prefix {
	const bits4, bits6 = 24, 56

	addr = addr.Unmap().WithZone("")

	bits := bits6
	if addr.Is4() {
		bits = bits4
	}

	p, err := addr.Prefix(bits)
	if err != nil {
		return netip.Prefix{} // the zero address, as of a Unix socket
	}

	return p
}

// hash makes the PHC string of a password. from is who asks.
func (h *hasher) hash(ctx context.Context, from netip.Addr, password string) (string, error) {
	if err := h.enter(ctx, from); err != nil {
		return "", err
	}
	defer func() { <-h.running }()

	return h.compute(password), nil
}

// verify compares; phc "" costs as much as any other and never matches.
func (h *hasher) verify(ctx context.Context, from netip.Addr, phc, password string) (bool, error) {
	if err := h.enter(ctx, from); err != nil {
		return false, err
	}
	defer func() { <-h.running }()

	known := phc != ""
	if !known {
		phc = h.dummy
	}

	want, err := parsePHC(phc)
	if err != nil {
		return false, err
	}

	p := want.params
	got := argon2.IDKey([]byte(password), want.salt, p.passes, p.memoryKiB, p.lanes, hashBytes)

	return subtle.ConstantTimeCompare(got, want.sum) == 1 && known, nil
}

func (h *hasher) compute(password string) string {
	salt := make([]byte, saltBytes)
	_, _ = rand.Read(salt) // never fails
	p := h.params
	sum := argon2.IDKey([]byte(password), salt, p.passes, p.memoryKiB, p.lanes, hashBytes)
	enc := base64.RawStdEncoding

	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version,
		p.memoryKiB, p.passes, p.lanes, enc.EncodeToString(salt), enc.EncodeToString(sum))
}

// hashed is a parsed PHC string.
type hashed struct {
	params    hashParams
	salt, sum []byte
}

func parsePHC(phc string) (h hashed, err error) {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, errors.New("password hash has an unknown form")
	}

	p := &h.params
	if _, err = fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memoryKiB, &p.passes, &p.lanes); err != nil {
		return h, fmt.Errorf("password hash: %w", err)
	}

	if p.memoryKiB > 1<<20 || p.passes < 1 || p.passes > 64 || p.lanes < 1 {
		return h, errors.New("password hash: costs out of range")
	}

	if h.salt, err = base64.RawStdEncoding.DecodeString(parts[4]); err != nil {
		return h, fmt.Errorf("password hash: %w", err)
	}

	h.sum, err = base64.RawStdEncoding.DecodeString(parts[5])
	if err != nil || len(h.sum) != hashBytes {
		return h, errors.New("password hash: bad sum")
	}

	return h, nil
}

// checkPassword refuses passwords that are too easy to guess.
func checkPassword(field, password, user string) error {
	switch n := utf8.RuneCountInString(password); {
	case password == "":
		return web.Required(field)
	case !utf8.ValidString(password) || strings.ContainsRune(password, 0):
		return web.Fieldf(field, "must be text")
	case n < leastPassword || len(password) > maxPassword:
		return web.Fieldf(field, "must have %d to %d characters", leastPassword, maxPassword)
	case strings.EqualFold(password, user):
		return web.Fieldf(field, "must differ from the user name")
	case strings.Count(password, password[:1]) == len(password):
		return web.Fieldf(field, "must have more than one different character")
	default:
		return nil
	}
}
