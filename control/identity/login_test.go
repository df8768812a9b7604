package identity_test

import (
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/identity"
	"github.com/sluice-gateway/sluice/control/web"
)

// at is the same platform called from another address.
func (p *platform) at(remote string) *platform {
	return &platform{t: p.t, svc: p.svc, st: p.st, router: p.router, boot: p.boot, remote: remote}
}

func (p *platform) tryPassword(user, password string) answer {
	return p.call("POST", "/v3/auth/tokens", "", passwordBody(p.boot.Domain, user, password, "null"))
}

// Whoever tries names through is locked out of names he does not know a password of; the user
// beside him at the same address goes on.
func TestTryingNamesThroughDoesNotLockWhoIsKnown(t *testing.T) {
	t.Parallel()

	p := start(t)
	p.user(p.admin(), "bob")
	p.want(p.tryPassword(p.boot.User, p.boot.Password), 201)

	for i := range 110 {
		p.want(p.tryPassword(fmt.Sprint("name", i), "wrong"), 401)
	}

	p.want(p.tryPassword("bob", "Pass-word-1"), 401) // was never seen here
	p.want(p.tryPassword(p.boot.User, p.boot.Password), 201)
	p.want(p.at("198.51.100.7:1").tryPassword("bob", "Pass-word-1"), 201)

	for range 5 {
		p.want(p.tryPassword(p.boot.User, "wrong"), 401)
	}

	p.want(p.tryPassword(p.boot.User, p.boot.Password), 401) // five in a row still lock
	p.offset.Add(int64(25 * time.Hour))
	p.want(p.tryPassword("bob", "Pass-word-1"), 201)
}

// Passwords are costly to check. A network that floods the queue is told to wait, and others
// still find a place in it.
func TestOneNetworkCannotTakeAllPlacesOfLogins(t *testing.T) {
	t.Parallel()

	p := start(t)

	svc, err := identity.Open(t.Context(), identity.Config{
		BootstrapFile: filepath.Join(t.TempDir(), "b"), HashMemoryKiB: 2 << 10, ParallelHashes: 1,
	}, p.st, ring(t, 1), slog.New(slog.DiscardHandler))
	must(t, err)

	p.router, err = web.New(web.Config{}, svc, slog.New(slog.DiscardHandler), svc.Routes()...)
	must(t, err)

	var (
		flood sync.WaitGroup
		full  = make(chan struct{})
		once  sync.Once
	)

	for i := range 60 {
		flood.Go(func() {
			from := p.at(fmt.Sprintf("203.0.113.%d:1", i+1))

			switch a := from.tryPassword(fmt.Sprint("name", i), "wrong"); {
			case a.Code == http.StatusTooManyRequests && a.Header().Get("Retry-After") != "":
				once.Do(func() { close(full) })
			case a.Code != http.StatusUnauthorized:
				t.Errorf("got %d %s", a.Code, a.Body)
			}
		})
	}

	select {
	case <-full:
	case <-time.After(20 * time.Second):
		t.Fatal("sixty logins of one network at a time were all let in")
	}

	p.want(p.at("198.51.100.7:1").tryPassword(p.boot.User, p.boot.Password), 201)
	flood.Wait()
}
