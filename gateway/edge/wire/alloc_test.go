//go:build !race

package wire_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
)

func TestGuardDoesNotAllocate(t *testing.T) {
	var h wire.Head

	bad := []byte(request("GET /a/../b HTTP/1.1", host))

	n := testing.AllocsPerRun(1000, func() {
		end := wire.End(typical, 0)
		if err := h.Parse(typical[:end], "https", generous); err != nil {
			t.Fatal(err)
		}

		if h.Get("authorization") == nil || h.Get("x-nothing") != nil {
			t.Fatal("wrong field")
		}

		// A flood of bad requests costs no memory either.
		if h.Parse(bad, "https", generous) == nil {
			t.Fatal("accepted")
		}
	})
	if n != 0 {
		t.Fatalf("%v allocations", n)
	}
}
