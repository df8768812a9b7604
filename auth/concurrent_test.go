package auth_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// TestConcurrentVerifying shares one Verifier between goroutines that use two Directories, one of
// which has the token revoked, while others guess at the same access key.
func TestConcurrentVerifying(t *testing.T) {
	t.Parallel()

	v := verifier(t, auth.Config{TokenCache: 4, LockEntries: 8})
	before := compile(t, world(t), nil)
	s := world(t)
	s.Revocations = []spec.Revocation{{TokenID: "jti-1"}}
	after := compile(t, s, before)
	token := issue(t, claims())

	guesser := signer()
	guesser.Secret = spec.NewSecret("guess")

	work := []func(i int){
		func(int) {
			if _, err := v.Verify(before, tokenRequest(token), auth.AllowDefault); err != nil {
				t.Errorf("before the revocation: %v", err)
			}
		},
		func(int) {
			if _, err := v.Verify(after, tokenRequest(token), auth.AllowDefault); fault.From(err) == nil || fault.From(err).Code != fault.TokenRevoked {
				t.Errorf("after the revocation: %v", err)
			}
		},
		func(i int) {
			r := signedRequest(t, signer(), "{}", [2]string{"X-Note", string(rune('a' + i%26))})
			if _, err := v.Verify(before, r, auth.AllowDefault); err != nil {
				t.Errorf("a good signature: %v", err)
			}
		},
		func(i int) { guess(t, v, before, guesser, i) },
	}

	var group sync.WaitGroup

	for n := range 8 {
		group.Go(func() {
			for i := range 200 {
				work[n%len(work)](i)
			}
		})
	}

	group.Wait()
}

func guess(t *testing.T, v *auth.Verifier, d *auth.Directory, s sign.Signer, i int) {
	t.Helper()

	r := signedRequest(t, s, "{}")
	r.Remote = netip.AddrFrom4([4]byte{10, 0, 0, byte(i)})

	if _, err := v.Verify(d, r, auth.AllowDefault); err == nil {
		t.Error("a guess is accepted")
	}
}
