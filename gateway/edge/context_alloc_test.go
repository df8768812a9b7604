//go:build !race

package edge

import "testing"

func TestCallContextCostsNothing(t *testing.T) { //nolint:paralleltest // counts allocations
	c := &callContext{}
	tell := func() { t.Error("over") }

	if n := testing.AllocsPerRun(100, func() {
		c.OnEnd(tell)
		c.OnEnd(nil)

		c = c.release()
	}); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}
