package gateway_test

import (
	"net/netip"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/gatewaytest"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Bodies that are read before anybody proved anything are bounded, in all and per source, until
// the verdict is there; small ones are not counted.
func TestUnprovenBodiesAreBounded(t *testing.T) {
	t.Parallel()

	const mib = 1 << 20

	w := newWorld(t, options{gateway: gateway.Config{SignedBytes: mib, UnprovenBytes: 4 * mib}})
	w.use(service("svc", version("m", 100, spec.EngineONNX, "i")))

	verdict, reading := make(chan error), make(chan struct{}, 100)
	w.guard.Before = func(r *auth.Request) error {
		body, err := r.Body()
		if err != nil {
			return err
		}

		if len(body) == mib {
			reading <- struct{}{}

			return <-verdict
		}

		return nil
	}

	send := func(from string, size int) *gatewaytest.Out {
		c, out := gatewaytest.NewCall(t.Context(), "POST", "/v1/infers/svc", make([]byte, size), alice)
		c.Remote = netip.AddrPortFrom(netip.MustParseAddr(from), 1)
		w.gateway.Do(c)

		return out
	}

	var wg sync.WaitGroup

	for round := range 3 {
		for _, from := range []string{"192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:db8::2"} {
			wg.Go(func() { send(from, mib) })
			<-reading
		}

		for _, from := range []string{"192.0.2.1", "198.51.100.1"} {
			if out := send(from, mib); out.Status != 503 || out.Header("Retry-After") == "" {
				t.Errorf("round %d: beyond the bound %s got %d %s", round, from, out.Status, out.Body)
			}
		}

		verdict <- nil // one of them, whichever

		// Small ones come in whatever is held.
		if out := send("198.51.100.1", 64<<10); out.Status != 200 {
			t.Errorf("round %d: a small body got %d %s", round, out.Status, out.Body)
		}

		for range 3 {
			verdict <- fault.New(fault.SignatureMismatch, "")
		}

		wg.Wait()
	}

	// One source alone gets half.
	for range 2 {
		wg.Go(func() { send("192.0.2.1", mib) })
		<-reading
	}

	if out := send("192.0.2.1", mib); out.Status != 429 {
		t.Errorf("more than half of the room for one source: %d %s", out.Status, out.Body)
	}

	if out := send("192.0.2.1", 2*mib); out.Status != 413 {
		t.Errorf("a body larger than what may be signed: %d %s", out.Status, out.Body)
	}

	for range 2 {
		verdict <- nil
	}

	wg.Wait()
}
