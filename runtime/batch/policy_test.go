package batch_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/runtime/batch"
)

func TestCut(t *testing.T) {
	t.Parallel()

	const ms = time.Millisecond

	ones := func(n int) []int {
		out := make([]int, n)
		for i := range out {
			out[i] = 1
		}

		return out
	}

	plain := batch.Policy{MaxRows: 8}
	slow := batch.Policy{MaxRows: 8, Delay: 10 * ms}
	prefers := batch.Policy{MaxRows: 16, Preferred: []int{4, 8}, Delay: 10 * ms}
	eager := batch.Policy{MaxRows: 16, Preferred: []int{4, 8}}

	for name, tc := range map[string]struct {
		p      batch.Policy
		rows   []int
		oldest time.Duration
		others bool
		want   batch.Cut
	}{
		"empty":                          {plain, nil, 0, false, batch.Cut{}},
		"one at once":                    {plain, ones(1), 0, false, batch.Cut{N: 1, Reason: "idle"}},
		"all there is":                   {plain, ones(5), 0, false, batch.Cut{N: 5, Reason: "idle"}},
		"others wait":                    {plain, ones(5), 0, true, batch.Cut{N: 5, Reason: "shape"}},
		"exactly full":                   {plain, ones(8), 0, false, batch.Cut{N: 8, Reason: "full"}},
		"more than full":                 {plain, ones(20), 0, true, batch.Cut{N: 8, Reason: "full"}},
		"next does not fit":              {plain, []int{5, 4, 1}, 0, false, batch.Cut{N: 1, Reason: "full"}},
		"single":                         {batch.Policy{MaxRows: 1, Single: true}, ones(3), 0, false, batch.Cut{N: 1, Reason: "single"}},
		"too large alone":                {plain, []int{9}, 0, false, batch.Cut{N: 1, Reason: "full"}},
		"delay waits":                    {slow, ones(3), 4 * ms, false, batch.Cut{Wait: 6 * ms}},
		"delay over":                     {slow, ones(3), 10 * ms, false, batch.Cut{N: 3, Reason: "delay"}},
		"delay over with others":         {slow, ones(3), 10 * ms, true, batch.Cut{N: 3, Reason: "delay"}},
		"full does not wait":             {slow, ones(8), 0, false, batch.Cut{N: 8, Reason: "full"}},
		"below preferred waits":          {prefers, ones(3), 0, false, batch.Cut{Wait: 10 * ms}},
		"preferred goes":                 {prefers, ones(4), 0, false, batch.Cut{N: 4, Reason: "preferred"}},
		"largest preferred":              {prefers, ones(9), 0, false, batch.Cut{N: 8, Reason: "preferred"}},
		"delay over takes all":           {prefers, ones(9), 10 * ms, false, batch.Cut{N: 9, Reason: "delay"}},
		"delay over at a preferred size": {prefers, ones(8), 10 * ms, false, batch.Cut{N: 8, Reason: "preferred"}},
		"preferred jumped over":          {eager, []int{3, 3}, 0, false, batch.Cut{N: 2, Reason: "idle"}},
		"preferred without delay":        {eager, ones(6), time.Second, false, batch.Cut{N: 4, Reason: "preferred"}},
	} {
		if got := tc.p.Cut(tc.rows, tc.oldest, tc.others); got != tc.want {
			t.Errorf("%s: got %+v, want %+v", name, got, tc.want)
		}
	}
}

func TestCutNeverStallsNorOverfills(t *testing.T) {
	t.Parallel()

	rng := rand.New(rand.NewPCG(1, 2))

	for range 20000 {
		p := batch.Policy{MaxRows: 1 + rng.IntN(32), Delay: time.Duration(rng.IntN(3)) * time.Millisecond}
		for range rng.IntN(3) {
			p.Preferred = append(p.Preferred, 1+rng.IntN(p.MaxRows))
		}

		waiting := make([]int, 1+rng.IntN(40))
		for i := range waiting {
			waiting[i] = 1 + rng.IntN(p.MaxRows)
		}

		oldest := time.Duration(rng.IntN(4)) * time.Millisecond
		c := p.Cut(waiting, oldest, rng.IntN(2) == 0)

		if c.N == 0 && (c.Wait <= 0 || c.Wait > p.Delay-oldest) {
			t.Fatalf("%+v %v %v: neither taken nor a sensible wait: %+v", p, waiting, oldest, c)
		}

		total := 0
		for _, n := range waiting[:c.N] {
			total += n
		}

		if total > p.MaxRows || c.N > 0 && c.Reason == "" {
			t.Fatalf("%+v %v: %+v takes %d rows", p, waiting, c, total)
		}

		if c.Reason == "full" && c.N < len(waiting) && total+waiting[c.N] <= p.MaxRows {
			t.Fatalf("%+v %v: called full with room: %+v", p, waiting, c)
		}
	}
}

func TestPadded(t *testing.T) {
	t.Parallel()

	p := batch.Policy{MaxRows: 48, Preferred: []int{6, 24}, Pad: true}
	for n, want := range map[int]int{1: 1, 2: 2, 3: 4, 5: 6, 7: 8, 9: 16, 17: 24, 25: 32, 33: 48, 48: 48} {
		if got := p.Padded(n); got != want {
			t.Errorf("%d rows run as %d, want %d", n, got, want)
		}
	}

	if got := (batch.Policy{MaxRows: 48}).Padded(5); got != 5 {
		t.Errorf("padded to %d without being asked", got)
	}
}
