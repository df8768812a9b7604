package pool_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/router/pool"
)

// churn is a pool whose instances come, go, fail and drain while requests pick among them.
type churn struct {
	t      *testing.T
	p      *pool.Pool
	most   int64
	stop   atomic.Bool
	picks  atomic.Int64
	shared sync.Map // id -> *member
}

// member is what the test knows of an instance.
type member struct {
	held atomic.Int64
	left atomic.Bool // it is in the list no more, for certain
}

func (c *churn) member(id string) *member {
	m, _ := c.shared.LoadOrStore(id, new(member))

	got, ok := m.(*member)
	if !ok {
		panic("BUG: not a member")
	}

	return got
}

// request picks again and again. What is stable serves; what is not fails in every way there is.
func (c *churn) request(seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 7))
	outcomes := []pool.Outcome{pool.OK, pool.EngineError, pool.Unreachable, pool.Broken, pool.TimedOut, pool.Neutral, pool.Draining}

	for !c.stop.Load() {
		// What has left before the pick began must not be picked.
		before := map[string]bool{}

		c.shared.Range(func(id, m any) bool {
			if mm, ok := m.(*member); ok && mm.left.Load() {
				before[fmt.Sprint(id)] = true
			}

			return true
		})

		var l pool.Lease

		r := pool.Request{Key: rng.Uint64() | 1, SourceKey: rng.Uint64() | 1}
		if err := c.p.Acquire(c.t.Context(), &r, time.Now().Add(10*time.Second), &l); err != nil {
			c.t.Errorf("no instance, although some are always there: %v", err)

			return
		}

		c.picks.Add(1)

		id := l.Endpoint().ID
		if before[id] {
			c.t.Errorf("%s was picked after it had left", id)
		}

		m := c.member(id)
		if n := m.held.Add(1); n > c.most {
			c.t.Errorf("%s has %d requests at a time, want %d at most", id, n, c.most)
		}

		if rng.IntN(4) == 0 {
			l.Answered()
		}

		outcome := pool.OK
		if id[0] != 's' {
			outcome = outcomes[rng.IntN(len(outcomes))]
		}

		m.held.Add(-1)
		l.Done(outcome)
	}
}

// change replaces the instances that are not stable.
func (c *churn) change(picker pool.Picker, n int) {
	rng := rand.New(rand.NewPCG(1, 2))
	present := map[string]bool{}

	for i := range n {
		for id := range present {
			if rng.IntN(3) == 0 {
				delete(present, id)
			}
		}

		present[fmt.Sprintf("c%d", i)] = true

		ids := []string{"s1", "s2", "s3"}
		for id := range present {
			ids = append(ids, id)
		}

		was := c.p.Endpoints()

		if err := c.p.Update(picker, instances(ids...), open); err != nil {
			c.t.Error(err)
		}

		for _, e := range was {
			if e.ID[0] == 'c' && !present[e.ID] {
				c.member(e.ID).left.Store(true)
			}
		}

		<-time.After(time.Millisecond)
	}
}

func TestPickersKeepTheirPromisesWhileInstancesComeAndGo(t *testing.T) {
	t.Parallel()

	for _, picker := range []pool.Picker{pool.PowerOfTwo, pool.LeastRequest, pool.RoundRobin, pool.ConsistentHash, pool.SourceIP} {
		t.Run(picker.String(), func(t *testing.T) {
			t.Parallel()

			const most = 3

			c := &churn{t: t, most: most, p: newPool(t, pool.Config{
				MaxInFlight: most, MaxQueue: 100, QueueWait: 10 * time.Second, SlowStart: 20 * time.Millisecond,
				Ejection: pool.Ejection{Base: time.Millisecond, Max: 5 * time.Millisecond, Interval: 5 * time.Millisecond},
				Breaker:  pool.Breaker{Open: 2 * time.Millisecond},
			}, picker, "s1", "s2", "s3")}

			var wg sync.WaitGroup

			for i := range uint64(6) {
				wg.Go(func() { c.request(i) })
			}

			c.change(picker, 40)
			c.stop.Store(true)
			wg.Wait()

			for _, e := range c.p.Endpoints() {
				if n := e.InFlight(); n != 0 {
					t.Errorf("%s has %d in flight at the end", e.ID, n)
				}
			}

			if n := c.picks.Load(); n < 100 {
				t.Errorf("only %d picks", n)
			}

			var l pool.Lease

			err := c.p.Update(picker, nil, open)
			if got := c.p.Acquire(t.Context(), &pool.Request{}, time.Now(), &l); err != nil || !errors.Is(got, pool.ErrNone) {
				t.Errorf("of nobody: %v, %v", err, got)
			}
		})
	}
}
