//go:build !race

package batch_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/runtime/batch"
)

func TestAllocsOfALoneRequest(t *testing.T) {
	b := startBare(t, batch.Config{MaxBatchSize: 32})
	req := request(1, 1)
	req.Free = func() {}

	// The batch and its context, the list of its items, the result, its memory.
	const limit = 8

	if n := testing.AllocsPerRun(2000, func() {
		res, err := b.Infer(t.Context(), req)
		if err != nil {
			t.Fatal(err)
		}

		res.Release()
	}); n > limit {
		t.Errorf("%v allocations for a request, want at most %d", n, limit)
	}
}
