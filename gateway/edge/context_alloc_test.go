//go:build !race

package edge

import "testing"

func TestCallContextCostsNothingWhenLent(t *testing.T) { //nolint:paralleltest // counts allocations
	c := &callContext{}

	if n := testing.AllocsPerRun(100, func() {
		select {
		case <-c.Ending():
			t.Error("over")
		default:
		}

		c = c.release()
	}); n != 0 {
		t.Errorf("%v allocations a call", n)
	}
}
