package procs

import (
	"context"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// bench drives a Governor through made-up load.
type bench struct {
	now  sample
	load float64
	late uint64 // per look, of 1000 waits
	busy bool   // others want the processors
	got  []int
}

func (b *bench) governor(most int) *Governor {
	g := New(Config{Most: most})
	g.set = func(n int) { b.got = append(b.got, n) }
	g.see = func() sample {
		b.now.at = b.now.at.Add(100 * time.Millisecond)
		b.now.cpu += time.Duration(b.load * float64(100*time.Millisecond))
		b.now.waits += 1000
		b.now.late += b.late

		if b.busy {
			b.now.robbed += 11
		}

		return b.now
	}
	g.slots = most
	g.use.last = g.see()

	return g
}

func TestGovernor(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		name        string
		most, slots int
		load        float64
		late        uint64
		looks, want int
	}{
		{"idle", 8, 8, 0.01, 0, 4, 1},
		{"not yet", 8, 8, 0.01, 0, 3, 8},
		{"one is enough", 2, 2, 1.0, 0, 4, 1},
		{"one is enough and stays", 2, 1, 0.9, 0, 50, 1},
		{"one is full", 2, 1, 0.97, 0, 1, 2},
		{"two stay", 2, 2, 1.3, 0, 50, 2},
		{"up in one step", 16, 1, 6, 0, 1, 8},
		{"down to what is used", 16, 16, 6, 0, 4, 8},
		{"never over the most", 4, 4, 3.9, 0, 50, 4},
		{"goroutines wait", 4, 1, 0.5, 30, 1, 2},
		{"they go on waiting", 4, 1, 0.5, 30, 9, 4},
		{"few wait", 4, 1, 0.5, 4, 9, 1},
		{"crowded, goroutines wait", 4, 1, 0.5, 30, 9, 1},
		{"crowded, most goroutines wait", 4, 1, 0.5, 300, 1, 2},
		{"not under the least", 4, 4, 0.1, 0, 50, 2},
		{"up to the least at once", 4, 1, 0.1, 0, 1, 2},
	} {
		b := &bench{load: tc.load, late: tc.late, busy: strings.HasPrefix(tc.name, "crowded")}
		g := b.governor(tc.most)
		g.slots = tc.slots

		if strings.Contains(tc.name, "the least") {
			g.cfg.Least = func() int { return 2 }
		}

		for range tc.looks {
			g.step()
		}

		if g.slots != tc.want || len(b.got) > 0 && b.got[len(b.got)-1] != tc.want {
			t.Errorf("%s: %d slots (set %v), want %d", tc.name, g.slots, b.got, tc.want)
		}
	}
}

// TestGovernorKeepsThePeak has a load that comes and goes: what it needed within the calm time stays.
func TestGovernorKeepsThePeak(t *testing.T) {
	t.Parallel()

	b := &bench{}
	g := b.governor(8)

	for i := range 100 {
		if b.load = 0.2; i%3 == 0 {
			b.load = 2.2
		}

		g.step()
	}

	if g.slots != 3 || len(b.got) != 1 {
		t.Errorf("%d slots, set %v; they must not go up and down with every wave", g.slots, b.got)
	}
}

func TestRunLeavesAllSlots(t *testing.T) {
	t.Parallel()

	synctest.Test(t, func(t *testing.T) {
		b := &bench{load: 0.1}
		g := b.governor(4)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)

		go func() { done <- g.Run(ctx) }()

		<-time.After(3 * time.Second)
		cancel()

		if err := <-done; err != nil {
			t.Fatal(err)
		}

		if n := len(b.got); n != 3 || b.got[0] != 4 || b.got[1] != 1 || b.got[2] != 4 {
			t.Errorf("set %v, want 4, 1 and 4", b.got)
		}
	})
}

// TestMeter checks that what is read of the real process moves.
func TestMeter(t *testing.T) {
	t.Parallel()

	m := newMeter()
	before := m.sample()
	until := time.Now().Add(50 * time.Millisecond)

	for time.Now().Before(until) {
		runtime.Gosched()
	}

	after := m.sample()
	if after.cpu <= before.cpu || after.waits <= before.waits || !after.at.After(before.at) {
		t.Errorf("before %+v, after %+v", before, after)
	}
}
