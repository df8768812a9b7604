//go:build !race

package sockio_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/internal/sockio"
)

func TestNothingIsAllocated(t *testing.T) {
	near, far := pair(t, "unix")
	out, in, p := sockio.New(near), sockio.NewReader(far), sockio.NewPeeker(near)
	buf, msg := make([]byte, 64), []byte("message")

	if n := testing.AllocsPerRun(100, func() {
		if n, err := out.Write(msg); n != len(msg) || err != nil || !p.Quiet() {
			t.Errorf("%d, %v", n, err)
		}

		if n, err := in.Read(buf); n != len(msg) || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
