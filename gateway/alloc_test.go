//go:build !race

package gateway_test

import "testing"

func TestAllocsDo(t *testing.T) {
	w, c := quiet(t, 3)

	out, ok := c.Out.(*quietOut)
	if !ok {
		t.Fatal("another Out")
	}

	if n := testing.AllocsPerRun(1000, func() { again(w, c) }); n != 0 {
		t.Errorf("%v allocations a request", n)
	}

	if out.answers < 1000 || c.Record.Status != 200 {
		t.Errorf("%d answers, record %+v", out.answers, c.Record)
	}
}
