package pool_test

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router/pool"
)

func TestBoundQueueAndShedding(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, pool.Config{MaxInFlight: 2, MaxQueue: 3, QueueWait: time.Second}, pool.PowerOfTwo, ids(2)...)

		var leases [4]pool.Lease
		for i := range leases {
			if pick(t, p, &pool.Request{}, &leases[i]) == "" {
				t.Fatal("no room where there is room")
			}
		}

		results := make(chan error, 5)
		held := make(chan *pool.Lease, 5)

		for range 5 {
			go func() {
				l := &pool.Lease{}
				err := p.Acquire(t.Context(), &pool.Request{}, soon(), l)
				results <- err

				if err == nil {
					held <- l
				}
			}()
		}

		synctest.Wait()
		// Three wait, two are shed at once.
		for range 2 {
			if f := fault.From(<-results); f.Code != fault.Overloaded || f.RetryAfter <= 0 {
				t.Fatalf("got %v", f)
			}
		}

		leases[0].Done(pool.OK)
		synctest.Wait()

		if err := <-results; err != nil {
			t.Fatalf("the freed place was not given: %v", err)
		}

		<-time.After(2 * time.Second)

		for range 2 {
			if f := fault.From(<-results); f.Code != fault.QueueTimeout || f.RetryAfter <= 0 {
				t.Fatalf("got %v", f)
			}
		}

		(<-held).Done(pool.OK)

		for i := 1; i < 4; i++ {
			leases[i].Done(pool.OK)
		}

		for _, e := range p.Endpoints() {
			if e.InFlight() != 0 {
				t.Errorf("%s has %d in flight at the end", e.ID, e.InFlight())
			}
		}
	})
}

func TestWaitingEndsWithTheClientOrTheDeadlineOrANewInstance(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		p := newPool(t, pool.Config{MaxInFlight: 1, QueueWait: time.Minute}, pool.RoundRobin, "a")

		var l pool.Lease
		pick(t, p, &pool.Request{}, &l)

		ctx, cancel := context.WithCancel(t.Context())
		gone, late, fresh := make(chan error, 1), make(chan error, 1), make(chan error, 1)

		go func() { gone <- p.Acquire(ctx, &pool.Request{}, soon(), &pool.Lease{}) }()
		go func() {
			late <- p.Acquire(t.Context(), &pool.Request{}, time.Now().Add(3*time.Second), &pool.Lease{})
		}()

		synctest.Wait()
		cancel()

		if f := fault.From(<-gone); f.Code != fault.ClientGone {
			t.Errorf("got %v", f)
		}

		start := time.Now()
		if f := fault.From(<-late); f.Code != fault.QueueTimeout || time.Since(start) != 3*time.Second {
			t.Errorf("got %v after %v", f, time.Since(start))
		}

		var other pool.Lease

		go func() { fresh <- p.Acquire(t.Context(), &pool.Request{}, soon(), &other) }()

		synctest.Wait()

		if err := p.Update(pool.RoundRobin, instances("a", "b"), open); err != nil {
			t.Fatal(err)
		}

		if err := <-fresh; err != nil || other.Endpoint().ID != "b" {
			t.Errorf("got %v", err)
		}

		other.Done(pool.OK)
		l.Done(pool.OK)
	})
}

func TestNobodyIsLostUnderContention(t *testing.T) {
	t.Parallel()

	p := newPool(t, pool.Config{MaxInFlight: 3, QueueWait: 20 * time.Second}, pool.PowerOfTwo, ids(3)...)

	var (
		wg  sync.WaitGroup
		top atomic.Int64
	)

	for range 64 {
		wg.Go(func() {
			for range 200 {
				var l pool.Lease
				if err := p.Acquire(t.Context(), &pool.Request{}, soon(), &l); err != nil {
					t.Errorf("lost: %v", err)

					return
				}

				if n := l.Endpoint().InFlight(); n > top.Load() {
					top.Store(n)
				}

				l.Done(pool.OK)
			}
		})
	}

	wg.Wait()

	for _, e := range p.Endpoints() {
		if e.InFlight() != 0 {
			t.Errorf("%s has %d in flight at the end", e.ID, e.InFlight())
		}
	}
}

func TestSlowStartRampsUp(t *testing.T) {
	t.Parallel()

	for _, picker := range []pool.Picker{pool.RoundRobin, pool.LeastRequest, pool.PowerOfTwo} {
		synctest.Test(t, func(t *testing.T) {
			p := newPool(t, pool.Config{SlowStart: 10 * time.Second}, picker, "a", "b", "c")
			if err := p.Update(picker, instances("a", "b", "c", "new"), open); err != nil {
				t.Fatal(err)
			}

			ten := func(string, time.Duration) (time.Duration, pool.Outcome) { return 10 * time.Millisecond, pool.OK }
			share := func() float64 {
				got := simulate(t, p, 40, time.Second, ten)

				return float64(got["new"]) / float64(got["a"]+got["b"]+got["c"]+got["new"])
			}

			early := share()
			<-time.After(10 * time.Second)

			late := share()
			if early > 0.12 || math.Abs(late-0.25) > 0.05 {
				t.Errorf("%v: share of the new instance %.3f in the first second, %.3f at the end", picker, early, late)
			}
		})
	}
}

func TestNearInstancesFirstThenSpill(t *testing.T) {
	t.Parallel()

	p, err := pool.New("p", pool.Config{Node: "here"})
	if err != nil {
		t.Fatal(err)
	}

	list := instances("near1", "near2", "far1", "far2")
	list[0].Node, list[1].Node, list[2].Node, list[3].Node = "here", "here", "there", "there"

	if err := p.Update(pool.PowerOfTwo, list, open); err != nil {
		t.Fatal(err)
	}

	if got := use(t, p, 200, fine); got["far1"]+got["far2"] > 0 {
		t.Errorf("requests went far without need: %v", got)
	}

	var leases [100]pool.Lease

	where := map[string]int{}
	for i := range leases {
		where[pick(t, p, &pool.Request{}, &leases[i])]++
	}

	if far := where["far1"] + where["far2"]; far < 15 || far > 50 {
		t.Errorf("%d of 100 at a time went far: %v", far, where)
	}

	for i := range leases {
		leases[i].Done(pool.OK)
	}
}

// Ready must not depend on how the list changed, or on who drained meanwhile.
func TestReadyFollowsEndpointsThatComeDrainAndGo(t *testing.T) {
	t.Parallel()

	p := newPool(t, pool.Config{}, pool.PowerOfTwo, "a", "b")

	for range 300 {
		e := p.Endpoints()[0]
		done := make(chan struct{})

		go func() {
			defer close(done)
			e.Drain()
		}()

		renew(t, p, "a", "b")
		<-done

		if !p.Ready() { // b is there
			t.Fatal("not ready, although one does not drain")
		}

		p.Endpoints()[1].Drain()

		if p.Ready() {
			t.Fatal("ready, although all drain")
		}

		renew(t, p)

		if p.Ready() {
			t.Fatal("ready without anybody")
		}

		renew(t, p, "a", "b")

		if !p.Ready() {
			t.Fatal("not ready, although both are new")
		}
	}
}

// renew puts instances into force.
func renew(t *testing.T, p *pool.Pool, ids ...string) {
	t.Helper()

	if err := p.Update(pool.PowerOfTwo, instances(ids...), open); err != nil {
		t.Fatal(err)
	}
}
