//go:build !race

package serve_test

import (
	"testing"
	"time"
)

func TestAllocsFewForAnInference(t *testing.T) {
	app, x, body := exchange(t)
	out := make([]byte, 0, 4096)
	now := time.Now()

	infer(app, x, body, out, now)

	if x.Status != 200 {
		t.Fatalf("%d %s", x.Status, x.Out)
	}

	// Two are the fake model's (its result, the copy of the request that it keeps), two the test's own (method and
	// path); what is left is the name of the model.
	if n := testing.AllocsPerRun(100, func() { infer(app, x, body, out, now) }); n > 5 {
		t.Errorf("%v allocations for an inference", n)
	}
}

func BenchmarkInfer(b *testing.B) {
	app, x, body := exchange(b)
	out := make([]byte, 0, 4096)
	now := time.Now()

	b.ReportAllocs()

	for b.Loop() {
		infer(app, x, body, out, now)
	}
}
