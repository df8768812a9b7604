package pool_test

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/router/pool"
)

type log struct {
	mu     sync.Mutex
	events []string
	panics int
}

func (l *log) hooks() pool.Hooks {
	return pool.Hooks{
		Ejected: func(id, reason string, d time.Duration) {
			l.mu.Lock()
			defer l.mu.Unlock()

			l.events = append(l.events, id+" "+reason+" "+d.String())
		},
		BreakerChanged: func(id, state string) {
			l.mu.Lock()
			defer l.mu.Unlock()

			l.events = append(l.events, id+" "+state)
		},
		Panic: func(string) { l.panics++ },
	}
}

func (l *log) has(event string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()

	return slices.Contains(l.events, event)
}

// only fails requests to one instance.
func only(bad string, o pool.Outcome) func(string) pool.Outcome {
	return func(id string) pool.Outcome {
		if id == bad {
			return o
		}

		return pool.OK
	}
}

func TestConsecutiveFailuresEjectWithGrowingTime(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l log

		p := newPool(t, pool.Config{Hooks: l.hooks(), Breaker: pool.Breaker{Disabled: true}}, pool.RoundRobin, ids(4)...)

		for _, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
			use(t, p, 40, only("i2", pool.EngineError))

			if !l.has("i2 consecutive_failures " + want.String()) {
				t.Fatalf("no ejection for %v: %v", want, l.events)
			}

			if got := use(t, p, 100, only("i2", pool.EngineError)); got["i2"] != 0 {
				t.Fatalf("%d requests to the ejected instance", got["i2"])
			}

			<-time.After(want + time.Millisecond)
		}

		if got := use(t, p, 100, fine); got["i2"] != 25 {
			t.Fatalf("after its time the instance got %d of 100", got["i2"])
		}
		// Good behaviour is remembered, too.
		for range 10 {
			<-time.After(6 * time.Second)
			use(t, p, 100, fine)
		}

		l.events = nil
		use(t, p, 40, only("i2", pool.EngineError))

		if !l.has("i2 consecutive_failures 2s") {
			t.Errorf("got %v", l.events)
		}
	})
}

func TestAtMostHalfIsEjected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		for n := 1; n <= 7; n++ {
			var l log

			p := newPool(t, pool.Config{Hooks: l.hooks(), Breaker: pool.Breaker{Disabled: true}}, pool.RoundRobin, ids(n)...)
			use(t, p, 200, func(string) pool.Outcome { return pool.EngineError })

			if len(l.events) != n/2 {
				t.Errorf("%d of %d ejected: %v", len(l.events), n, l.events)
			}
		}
	})
}

func TestRefusedConnectionsEjectFast(t *testing.T) {
	t.Parallel()

	var l log

	p := newPool(t, pool.Config{Hooks: l.hooks()}, pool.RoundRobin, ids(2)...)
	if got := use(t, p, 100, only("i0", pool.Unreachable)); got["i0"] != 2 {
		t.Errorf("%d requests to an instance that refuses connections: %v", got["i0"], l.events)
	}
}

func TestSuccessRateOutlierIsEjected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l log

		p := newPool(t, pool.Config{Hooks: l.hooks(), Breaker: pool.Breaker{Disabled: true}}, pool.RoundRobin, ids(4)...)
		var n atomic.Int64
		// Every second request to i1 fails: never five in a row.
		simulate(t, p, 8, 12*time.Second, func(id string, _ time.Duration) (time.Duration, pool.Outcome) {
			if id == "i1" {
				if n.Add(1)%2 == 0 {
					return 10 * time.Millisecond, pool.EngineError
				}
			}

			return 10 * time.Millisecond, pool.OK
		})

		if !l.has("i1 success_rate 2s") {
			t.Errorf("got %v", l.events)
		}
	})
}

func TestLatencyOutlierIsEjected(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l log

		p := newPool(t, pool.Config{Hooks: l.hooks()}, pool.RoundRobin, ids(4)...)
		simulate(t, p, 40, 12*time.Second, func(id string, _ time.Duration) (time.Duration, pool.Outcome) {
			if id == "i3" {
				return 200 * time.Millisecond, pool.OK
			}

			return 10 * time.Millisecond, pool.OK
		})

		if !l.has("i3 latency 2s") {
			t.Errorf("got %v", l.events)
		}

		for _, e := range l.events {
			if e[:2] != "i3" {
				t.Errorf("unexpected: %v", e)
			}
		}
	})
}

func TestBreakerOpensProbesAndCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l log

		p := newPool(t, pool.Config{Hooks: l.hooks(), Ejection: pool.Ejection{Disabled: true}}, pool.RoundRobin, ids(3)...)
		use(t, p, 30, only("i1", pool.Broken))

		if !l.has("i1 open") {
			t.Fatalf("got %v", l.events)
		}

		if got := use(t, p, 100, fine); got["i1"] != 0 {
			t.Fatalf("%d requests through an open breaker", got["i1"])
		}

		<-time.After(5100 * time.Millisecond)
		// One probe at a time: while it is out, nobody else goes there.
		var (
			leases [60]pool.Lease
			probes int
		)

		for i := range leases {
			if pick(t, p, &pool.Request{}, &leases[i]) == "i1" {
				probes++
			}
		}

		if probes != 1 {
			t.Fatalf("%d probes at a time", probes)
		}

		for i := range leases {
			leases[i].Done(pool.OK)
		}

		if !l.has("i1 closed") {
			t.Fatalf("the probe did not close it: %v", l.events)
		}

		if got := use(t, p, 90, fine); got["i1"] != 30 {
			t.Errorf("after closing it got %d of 90", got["i1"])
		}
	})
}

// A probe whose client leaves must not keep the breaker half-open for ever.
func TestProbeThatSaysNothingOpensAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, pool.Config{Ejection: pool.Ejection{Disabled: true}}, pool.RoundRobin, ids(2)...)
		use(t, p, 20, only("i1", pool.TimedOut))
		<-time.After(5100 * time.Millisecond)

		if got := use(t, p, 20, func(string) pool.Outcome { return pool.Neutral }); got["i1"] != 1 {
			t.Fatalf("%d probes", got["i1"])
		}

		<-time.After(5100 * time.Millisecond)

		if got := use(t, p, 20, fine); got["i1"] < 9 {
			t.Errorf("the instance did not come back: %v", got)
		}
	})
}

func TestProbeReportsAtTheFirstByte(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, pool.Config{Ejection: pool.Ejection{Disabled: true}}, pool.RoundRobin, ids(2)...)
		use(t, p, 20, only("i1", pool.Broken))
		<-time.After(5100 * time.Millisecond)

		var stream pool.Lease
		for pick(t, p, &pool.Request{}, &stream) != "i1" {
			stream.Done(pool.OK)
		}

		stream.Answered()

		if got := use(t, p, 20, fine); got["i1"] < 9 {
			t.Errorf("while the probe streams the instance got %v", got)
		}

		stream.Done(pool.OK)
	})
}

func TestPanicUsesAllWhenMostAreOut(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var l log

		p := newPool(t, pool.Config{Hooks: l.hooks()}, pool.RoundRobin, ids(4)...)
		// All break: half is ejected, all breakers open. Requests must still go somewhere.
		use(t, p, 100, func(string) pool.Outcome { return pool.Broken })

		got := use(t, p, 100, func(string) pool.Outcome { return pool.Broken })
		if got[""] != 0 || len(got) != 4 || l.panics == 0 {
			t.Fatalf("got %v after %d panics", got, l.panics)
		}
		// They recover: everything returns to normal by itself.
		<-time.After(70 * time.Second)

		for range 5 {
			use(t, p, 40, fine)
			<-time.After(6 * time.Second)
		}

		for id, n := range use(t, p, 100, fine) {
			if n != 25 {
				t.Errorf("%s got %d of 100 after recovery: %v", id, n, l.events)
			}
		}
	})
}

func TestDrainingInstanceIsLeftWithoutBlame(t *testing.T) {
	t.Parallel()

	var l log

	p := newPool(t, pool.Config{Hooks: l.hooks()}, pool.RoundRobin, ids(2)...)
	if got := use(t, p, 50, only("i0", pool.Draining)); got["i0"] != 1 {
		t.Errorf("%d requests to a draining instance", got["i0"])
	}

	if len(l.events) > 0 {
		t.Errorf("draining was blamed: %v", l.events)
	}

	p.Endpoints()[1].Drain()

	if p.Ready() {
		t.Error("ready with every instance draining")
	}
}

func TestStatesTellWhyAnInstanceIsNotUsed(t *testing.T) {
	t.Parallel()

	p := newPool(t, pool.Config{}, pool.RoundRobin, ids(6)...)
	p.Endpoints()[1].Drain()
	use(t, p, 60, func(id string) pool.Outcome {
		switch id {
		case "i2":
			return pool.EngineError
		case "i3":
			return pool.Broken
		default:
			return pool.OK
		}
	})

	want := []string{"ready", "draining", "ejected", "ejected", "ready", "ready"}
	for i, s := range p.States() {
		if s.Status != want[i] {
			t.Errorf("%s is %s, want %s", s.ID, s.Status, want[i])
		}
	}
}

func TestNeutralOutcomesSayNothing(t *testing.T) {
	t.Parallel()

	var l log

	p := newPool(t, pool.Config{Hooks: l.hooks()}, pool.RoundRobin, ids(2)...)
	if got := use(t, p, 100, func(string) pool.Outcome { return pool.Neutral }); got["i0"] != 50 || len(l.events) > 0 {
		t.Errorf("got %v, %v", got, l.events)
	}
}
