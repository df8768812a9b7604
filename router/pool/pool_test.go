package pool_test

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

type backend struct{ closed atomic.Int32 }

func (b *backend) Close() error {
	b.closed.Add(1)

	return nil
}

func instances(ids ...string) []spec.Instance {
	out := make([]spec.Instance, len(ids))
	for i, id := range ids {
		out[i] = spec.Instance{ID: id, Address: id + ":1"}
	}

	return out
}

func open(spec.Instance) (pool.Backend, error) { return &backend{}, nil }

func newPool(tb testing.TB, cfg pool.Config, picker pool.Picker, ids ...string) *pool.Pool {
	tb.Helper()

	p, err := pool.New("p", cfg)
	if err != nil {
		tb.Fatal(err)
	}

	if err := p.Update(picker, instances(ids...), open); err != nil {
		tb.Fatal(err)
	}

	return p
}

func ids(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("i%d", i)
	}

	return out
}

func soon() time.Time { return time.Now().Add(10 * time.Second) }

// pick acquires and says whom; empty if nobody.
func pick(tb testing.TB, p *pool.Pool, r *pool.Request, l *pool.Lease) string {
	tb.Helper()

	if err := p.Acquire(tb.Context(), r, soon(), l); err != nil {
		return ""
	}

	return l.Endpoint().ID
}

// use sends n requests one after the other that end with o.
func use(tb testing.TB, p *pool.Pool, n int, o func(id string) pool.Outcome) map[string]int {
	tb.Helper()

	got := map[string]int{}

	for range n {
		var l pool.Lease

		id := pick(tb, p, &pool.Request{}, &l)
		got[id]++

		if l.Held() {
			l.Done(o(id))
		}
	}

	return got
}

func fine(string) pool.Outcome { return pool.OK }

func TestRoundRobinIsEven(t *testing.T) {
	t.Parallel()

	got := use(t, newPool(t, pool.Config{}, pool.RoundRobin, ids(7)...), 700, fine)
	for id, n := range got {
		if n != 100 {
			t.Errorf("%s got %d of 700", id, n)
		}
	}
}

func TestLeastRequestTakesTheIdle(t *testing.T) {
	t.Parallel()

	p := newPool(t, pool.Config{}, pool.LeastRequest, ids(5)...)

	var leases [15]pool.Lease
	for i := range leases {
		pick(t, p, &pool.Request{}, &leases[i])
	}

	for _, e := range p.Endpoints() {
		if e.InFlight() != 3 {
			t.Errorf("%s has %d", e.ID, e.InFlight())
		}
	}

	freed := leases[4].Endpoint().ID
	leases[4].Done(pool.OK)

	if id := pick(t, p, &pool.Request{}, &leases[4]); id != freed {
		t.Errorf("took %s, idle is %s", id, freed)
	}

	for i := range leases {
		leases[i].Done(pool.OK)
	}
}

func TestPowerOfTwoLeavesTheSlowOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, pool.Config{Ejection: pool.Ejection{Disabled: true}}, pool.PowerOfTwo, ids(4)...)
		got := simulate(t, p, 32, 10*time.Second, func(id string, _ time.Duration) (time.Duration, pool.Outcome) {
			if id == "i0" {
				return 100 * time.Millisecond, pool.OK
			}

			return 10 * time.Millisecond, pool.OK
		})

		total := got["i0"] + got["i1"] + got["i2"] + got["i3"]
		if share := float64(got["i0"]) / float64(total); share > 0.10 || share == 0 {
			t.Errorf("the instance that is ten times slower got %.3f of %d", share, total)
		}
	})
}

// simulate runs clients that send one request after the other, in virtual time.
func simulate(t *testing.T, p *pool.Pool, clients int, span time.Duration,
	serve func(id string, at time.Duration) (time.Duration, pool.Outcome),
) map[string]int {
	t.Helper()

	var (
		mu    sync.Mutex
		wg    sync.WaitGroup
		got   = map[string]int{}
		start = time.Now()
	)

	for range clients {
		wg.Go(func() {
			for time.Since(start) < span {
				var l pool.Lease

				id := pick(t, p, &pool.Request{}, &l)
				if id == "" {
					<-time.After(time.Millisecond)

					continue
				}

				took, o := serve(id, time.Since(start))
				<-time.After(took)
				l.Done(o)

				mu.Lock()
				got[id]++
				mu.Unlock()
			}
		})
	}

	wg.Wait()

	return got
}

func TestConsistentHashKeepsKeysAndBoundsLoad(t *testing.T) {
	t.Parallel()

	p := newPool(t, pool.Config{}, pool.ConsistentHash, ids(5)...)
	where := map[uint64]string{}

	for k := range uint64(2000) {
		key := pool.HashString(strconv.FormatUint(k, 10))

		var l pool.Lease

		where[key] = pick(t, p, &pool.Request{Key: key}, &l)
		l.Done(pool.OK)
	}

	if err := p.Update(pool.ConsistentHash, instances("i0", "i1", "i2", "i4"), open); err != nil {
		t.Fatal(err)
	}

	for key, before := range where {
		var l pool.Lease

		after := pick(t, p, &pool.Request{Key: key}, &l)
		l.Done(pool.OK)

		if before != "i3" && after != before {
			t.Fatalf("a key of %s moved to %s when i3 left", before, after)
		}
	}
	// One hot key: the load spreads, no instance is far above the average.
	hot := &pool.Request{Key: 42}

	var leases [100]pool.Lease
	for i := range leases {
		pick(t, p, hot, &leases[i])
	}

	for _, e := range p.Endpoints() {
		if n := e.InFlight(); n > 34 {
			t.Errorf("%s has %d of 100, the mean is 25", e.ID, n)
		}
	}

	for i := range leases {
		leases[i].Done(pool.OK)
	}
}

func TestSourceIPIsStable(t *testing.T) {
	t.Parallel()

	p := newPool(t, pool.Config{}, pool.SourceIP, ids(4)...)
	seen := map[string]bool{}

	for k := range uint64(64) {
		first := ""

		for range 5 {
			var l pool.Lease

			id := pick(t, p, &pool.Request{SourceKey: pool.Mix(k + 1)}, &l)
			l.Done(pool.OK)

			if first == "" {
				first = id
			}

			if id != first {
				t.Fatalf("source %d moved from %s to %s", k, first, id)
			}
		}

		seen[first] = true
	}

	if len(seen) != 4 {
		t.Errorf("64 sources use %d of 4 instances", len(seen))
	}
}

func TestUpdateKeepsWhatStaysAndClosesWhatLeaves(t *testing.T) {
	t.Parallel()

	p := newPool(t, pool.Config{}, pool.RoundRobin, "a", "b")
	a, b := p.Endpoints()[0], p.Endpoints()[1]

	var held pool.Lease
	for pick(t, p, &pool.Request{}, &held) != "a" {
		held.Done(pool.OK)
	}

	moved := instances("b", "c")
	moved[0].Address = "elsewhere:1"

	if err := p.Update(pool.LeastRequest, moved, open); err != nil {
		t.Fatal(err)
	}

	if got := p.Endpoints(); len(got) != 2 || got[0] == b || got[0].ID != "b" || got[1].ID != "c" {
		t.Fatalf("got %v", got)
	}

	for _, e := range []*pool.Endpoint{a, b} {
		if e.Backend.(*backend).closed.Load() != 1 {
			t.Errorf("%s was not closed once", e.ID)
		}
	}

	if held.Endpoint() != a {
		t.Error("the lease lost its endpoint")
	}

	held.Done(pool.OK)

	same := p.Endpoints()[0]
	if err := p.Update(pool.PowerOfTwo, moved[:1], open); err != nil || p.Endpoints()[0] != same {
		t.Error("an instance that stayed lost its state")
	}

	if err := p.Close(); err != nil || same.Backend.(*backend).closed.Load() != 1 {
		t.Error("Close did not close")
	}

	if p.Ready() {
		t.Error("a closed pool is ready")
	}
}

func TestUpdateUsesTheOthersWhenOneCannotBeOpened(t *testing.T) {
	t.Parallel()

	p, _ := pool.New("p", pool.Config{})

	err := p.Update(pool.PowerOfTwo, instances("a", "bad", "c"), func(in spec.Instance) (pool.Backend, error) {
		if in.ID == "bad" {
			return nil, errors.New("no address")
		}

		return &backend{}, nil
	})
	if err == nil || len(p.Endpoints()) != 2 {
		t.Fatalf("got %d endpoints, error %v", len(p.Endpoints()), err)
	}
}

func TestExcludedInstancesAreNotPicked(t *testing.T) {
	t.Parallel()

	for _, picker := range []pool.Picker{pool.PowerOfTwo, pool.LeastRequest, pool.RoundRobin, pool.ConsistentHash, pool.SourceIP} {
		p := newPool(t, pool.Config{}, picker, ids(4)...)
		r := &pool.Request{Key: 7, SourceKey: 7}
		seen := map[string]bool{}

		for range 4 {
			var l pool.Lease

			id := pick(t, p, r, &l)
			if id == "" || seen[id] {
				t.Fatalf("%v: picked %q again", picker, id)
			}

			seen[id] = true
			r.Exclude(l.Endpoint())
			l.Done(pool.Unreachable)
		}

		var l pool.Lease
		if err := p.Acquire(t.Context(), r, soon(), &l); !errors.Is(err, pool.ErrNone) {
			t.Fatalf("%v: got %v", picker, err)
		}
	}
}

func TestParsePicker(t *testing.T) {
	t.Parallel()

	for name, want := range map[string]pool.Picker{
		"": pool.PowerOfTwo, "ROUND_ROBIN": pool.RoundRobin, "LEAST_CONNECTIONS": pool.LeastRequest,
		"SOURCE_IP": pool.SourceIP, "consistent-hash": pool.ConsistentHash, "p2c": pool.PowerOfTwo,
	} {
		if got, err := pool.ParsePicker(name); err != nil || got != want {
			t.Errorf("%q: got %v, %v", name, got, err)
		}
	}

	if _, err := pool.ParsePicker("RANDOM"); err == nil {
		t.Error("an unknown picker was accepted")
	}
}

func TestConfigReportsEveryMistake(t *testing.T) {
	t.Parallel()

	err := pool.Config{MaxInFlight: -1, BoundedLoad: 0.5, Ejection: pool.Ejection{MaxFraction: 2}, Breaker: pool.Breaker{Ratio: -1}}.Validate()
	for _, part := range []string{"max_in_flight", "bounded_load", "max_fraction", "ratio"} {
		if err == nil || !contains(err.Error(), part) {
			t.Errorf("%s is missing in %v", part, err)
		}
	}

	if err := (pool.Config{}).Validate(); err != nil {
		t.Errorf("defaults refused: %v", err)
	}
}

func contains(s, part string) bool {
	for i := range len(s) - len(part) + 1 {
		if s[i:i+len(part)] == part {
			return true
		}
	}

	return false
}
