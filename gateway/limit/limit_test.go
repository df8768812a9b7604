package limit_test

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/gateway/limit"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

func newLocal(tb testing.TB, cfg limit.Config) *limit.Local {
	tb.Helper()

	l, err := limit.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}

	return l
}

// admit sends n requests and says how many came in; each gives its ticket back at once.
func admit(tb testing.TB, l *limit.Local, s *limit.Service, who limit.Who, n int) (in int, last error) {
	tb.Helper()

	for range n {
		var ticket limit.Ticket
		if err := l.Admit(tb.Context(), s, who, &ticket); err != nil {
			last = err
		} else {
			in++
		}

		ticket.Release()
	}

	return in, last
}

func TestEachRateHolds(t *testing.T) {
	t.Parallel()

	alice, bob := limit.Who{Principal: "user:alice"}, limit.Who{Principal: "user:bob"}
	ten := limit.Rate{PerSecond: 10, Burst: 5}

	cases := []struct {
		name string
		cfg  limit.Config
		own  spec.Limits
		// who shares the bucket with alice at service s of project p
		who     limit.Who
		service string
		project string
		shares  bool
	}{
		{name: "global", cfg: limit.Config{Global: ten}, who: bob, service: "other", project: "q", shares: true},
		{name: "project", cfg: limit.Config{Project: ten}, who: bob, service: "other", project: "p", shares: true},
		{name: "another project", cfg: limit.Config{Project: ten}, who: alice, service: "other", project: "q"},
		{name: "principal", cfg: limit.Config{Principal: ten}, who: alice, service: "other", project: "q", shares: true},
		{name: "another principal", cfg: limit.Config{Principal: ten}, who: bob, service: "s", project: "p"},
		{name: "service", own: spec.Limits{RequestsPerSecond: 10, Burst: 5}, who: bob, service: "s", project: "p", shares: true},
		{name: "service by default", cfg: limit.Config{Service: ten}, who: bob, service: "s", project: "p", shares: true},
		{name: "another service", cfg: limit.Config{Service: ten}, who: alice, service: "other", project: "p"},
		{name: "app", cfg: limit.Config{App: ten}, who: limit.Who{Principal: "app:1", App: "1"}, service: "s", project: "p"},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLocal(t, tc.cfg)
				s := l.Service("s", "p", tc.own)
				first := alice

				if tc.who.App != "" {
					first, tc.shares = tc.who, true
				}

				in, err := admit(t, l, s, first, 20)
				if in != 5 {
					t.Fatalf("burst of %d came in, want 5", in)
				}

				f := fault.From(err)
				if f.Code != fault.TooManyRequests || f.RetryAfter <= 0 || f.RetryAfter > 100*time.Millisecond {
					t.Fatalf("got %v, retry after %v", f, f.RetryAfter)
				}

				s2 := s
				if tc.service != "s" {
					s2 = l.Service(tc.service, tc.project, spec.Limits{})
				}

				if in, _ := admit(t, l, s2, tc.who, 5); (in == 0) != tc.shares {
					t.Errorf("%d of the neighbour came in", in)
				}
				// Whoever waits as long as told comes in.
				<-time.After(f.RetryAfter)

				if in, _ := admit(t, l, s, first, 1); in != 1 {
					t.Error("after Retry-After there is still no room")
				}

				<-time.After(10 * time.Second)

				if in, _ := admit(t, l, s, first, 20); in != 5 {
					t.Errorf("after a rest %d came in, want 5", in)
				}
			})
		})
	}
}

// A caller who is over its own rate takes nothing from what others share.
func TestRefusedCallersDoNotUseUpSharedRates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limit.Config{
			Principal: limit.Rate{PerSecond: 1, Burst: 2}, Global: limit.Rate{PerSecond: 1, Burst: 10},
		})
		s := l.Service("s", "p", spec.Limits{RequestsPerSecond: 1, Burst: 10})
		admit(t, l, s, limit.Who{Principal: "greedy"}, 1000)

		in := 0

		for i := range 8 {
			n, _ := admit(t, l, s, limit.Who{Principal: fmt.Sprint("user", i)}, 1)
			in += n
		}

		if in != 8 {
			t.Errorf("%d of 8 others came in", in)
		}
	})
}

// Who is refused by a wide bound has lost nothing of the narrow ones.
func TestRefusedByAWideBoundGivesBack(t *testing.T) {
	t.Parallel()

	five, one := limit.Rate{PerSecond: 0.001, Burst: 5}, limit.Rate{PerSecond: 1, Burst: 1}

	for name, cfg := range map[string]limit.Config{
		"global":  {Principal: five, App: five, Project: five, Global: one},
		"project": {Principal: five, App: five, Project: one},
		"service": {Principal: five, App: five, Service: one},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLocal(t, cfg)
				s := l.Service("s", "p", spec.Limits{})
				who := limit.Who{Principal: "user:alice", App: "a"}

				for i := range 5 {
					if in, err := admit(t, l, s, who, 20); in != 1 {
						t.Fatalf("round %d: %d came in, want 1: %v", i, in, err)
					}

					<-time.After(time.Second)
				}

				// Now the narrow ones are empty, and say so.
				in, err := admit(t, l, s, who, 20)
				if f := fault.From(err); in != 0 || f.RetryAfter < time.Minute {
					t.Errorf("%d came in, refused with %v, retry after %v", in, f, f.RetryAfter)
				}
			})
		})
	}
}

// The services of a project share its bucket, however they come and go, and a project
// without services is forgotten.
func TestProjectsLiveAsLongAsTheirServices(t *testing.T) {
	t.Parallel()

	l := newLocal(t, limit.Config{Project: limit.Rate{PerSecond: 0.001, Burst: 6}})
	first := l.Service("s1", "p", spec.Limits{})

	for i := range 100 {
		s := l.Service(fmt.Sprint("s", i), "p", spec.Limits{})
		if in, _ := admit(t, l, s, limit.Who{}, 2); in != 2 && i < 3 || in != 0 && i >= 3 {
			t.Fatalf("service %d: %d came in", i, in)
		}

		l.Service("x", fmt.Sprint("q", i), spec.Limits{})
		runtime.GC()
	}

	for i := 0; l.Keys() > 1; i++ {
		if i == 1000 {
			t.Fatalf("%d projects are kept, want 1", l.Keys())
		}

		runtime.GC()
		runtime.Gosched()
	}

	if in, _ := admit(t, l, first, limit.Who{}, 1); in != 0 {
		t.Error("the bucket of a living project was forgotten")
	}
}

func TestTicketTellsTheTightestRate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limit.Config{Principal: limit.Rate{PerSecond: 100, Burst: 100}})
		s := l.Service("s", "p", spec.Limits{RequestsPerSecond: 2, Burst: 4})

		for left := 3; left >= 0; left-- {
			var ticket limit.Ticket
			if err := l.Admit(t.Context(), s, limit.Who{Principal: "a"}, &ticket); err != nil {
				t.Fatal(err)
			}

			reset := time.Duration(4-left) * 500 * time.Millisecond
			if ticket.Limit != 4 || ticket.Remaining != left || ticket.Reset != reset {
				t.Errorf("got %d of %d, reset in %v, want %d and %v", ticket.Remaining, ticket.Limit, ticket.Reset, left, reset)
			}
		}

		var ticket limit.Ticket
		if err := l.Admit(t.Context(), s, limit.Who{}, &ticket); err == nil || ticket.Limit != 4 || ticket.Remaining != 0 {
			t.Errorf("refused with %+v, %v", ticket, err)
		}

		free := l.Service("free", "p", spec.Limits{})
		if err := l.Admit(t.Context(), free, limit.Who{}, &ticket); err != nil || ticket.Limit != 0 {
			t.Errorf("unlimited gave %+v, %v", ticket, err)
		}
	})
}

func TestSlotsWaitShortlyThenRefuse(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limit.Config{SlotQueue: 2})
		s := l.Service("s", "p", spec.Limits{Concurrency: 2})

		var held [2]limit.Ticket
		for i := range held {
			if err := l.Admit(t.Context(), s, limit.Who{}, &held[i]); err != nil {
				t.Fatal(err)
			}
		}

		type result struct {
			err    error
			after  time.Duration
			ticket *limit.Ticket
		}

		results := make(chan result, 3)
		start := time.Now()

		for range 3 {
			go func() {
				ticket := &limit.Ticket{}
				err := l.Admit(t.Context(), s, limit.Who{}, ticket)
				results <- result{err, time.Since(start), ticket}
			}()
		}

		synctest.Wait()
		// One too many for the queue.
		if r := <-results; fault.From(r.err) == nil || fault.From(r.err).Code != fault.ConcurrencyLimit || r.after != 0 {
			t.Fatalf("got %v after %v", r.err, r.after)
		}

		<-time.After(30 * time.Millisecond)
		held[0].Release()
		held[0].Release() // giving back twice gives back once

		if r := <-results; r.err != nil || r.after != 30*time.Millisecond {
			t.Fatalf("got %v after %v", r.err, r.after)
		} else {
			defer r.ticket.Release()
		}

		r := <-results
		if f := fault.From(r.err); f == nil || f.Code != fault.ConcurrencyLimit || f.Code.Status() != 429 || f.RetryAfter <= 0 || r.after != 100*time.Millisecond {
			t.Fatalf("got %v after %v", r.err, r.after)
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		var ticket limit.Ticket
		if f := fault.From(l.Admit(ctx, s, limit.Who{}, &ticket)); f == nil || f.Code != fault.ClientGone {
			t.Errorf("got %v for a client that is gone", f)
		}

		held[1].Release()
	})
}

func TestSlotsAreNeverExceeded(t *testing.T) {
	t.Parallel()

	l := newLocal(t, limit.Config{SlotWait: 10 * time.Second, SlotQueue: 100})
	s := l.Service("s", "p", spec.Limits{Concurrency: 4})

	var (
		wg           sync.WaitGroup
		running, top atomic.Int64
	)

	for range 32 {
		wg.Go(func() {
			for range 100 {
				var ticket limit.Ticket
				if err := l.Admit(t.Context(), s, limit.Who{}, &ticket); err != nil {
					t.Errorf("refused: %v", err)

					return
				}

				if n := running.Add(1); n > top.Load() {
					top.Store(n)
				}

				running.Add(-1)
				ticket.Release()
			}
		})
	}

	wg.Wait()

	if top.Load() > 4 {
		t.Errorf("%d at a time, want at most 4", top.Load())
	}
}

// Each slot that comes free reaches somebody who waits, at once and in turn: nobody
// starves, nobody sleeps on beside a free slot, and newcomers do not push in.
func TestFreedSlotsGoToWhoWaitsInTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const waiters = 50

		l := newLocal(t, limit.Config{SlotWait: time.Minute, SlotQueue: waiters})
		s := l.Service("s", "p", spec.Limits{Concurrency: 2})

		var held [2]limit.Ticket
		for i := range held {
			if err := l.Admit(t.Context(), s, limit.Who{}, &held[i]); err != nil {
				t.Fatal(err)
			}
		}

		order := make(chan int, waiters)

		for i := range waiters {
			go func() {
				var ticket limit.Ticket

				ctx, cancel := context.WithCancel(t.Context())
				if i%7 == 3 { // leaves before its turn
					time.AfterFunc(time.Millisecond, cancel)
				}

				defer cancel()

				if err := l.Admit(ctx, s, limit.Who{}, &ticket); err != nil {
					if i%7 != 3 {
						t.Errorf("%d: %v", i, err)
					}

					return
				}

				order <- i

				<-time.After(time.Second)
				ticket.Release()
			}()
			synctest.Wait()
		}

		<-time.After(2 * time.Millisecond)

		start := time.Now()

		held[0].Release()
		held[1].Release()

		last, n := -1, 0

		for range waiters - 7 {
			i := <-order
			// Two at a time start in any order.
			if n++; i < last-7 {
				t.Errorf("%d came after %d", i, last)
			}

			last = max(last, i)
		}

		if took := time.Since(start); took > 22*time.Second {
			t.Errorf("the queue took %v", took)
		}

		<-time.After(2 * time.Second)
		synctest.Wait()
	})
}

func TestChangingLimitsKeepsTheFill(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limit.Config{})
		three := spec.Limits{RequestsPerSecond: 1, Burst: 3}
		s := l.Service("s", "p", three)
		admit(t, l, s, limit.Who{}, 3)
		l.SetLimits(s, three)

		if in, _ := admit(t, l, s, limit.Who{}, 1); in != 0 {
			t.Error("the same limits again filled the bucket")
		}

		l.SetLimits(s, spec.Limits{RequestsPerSecond: 5, Burst: 7})

		if in, _ := admit(t, l, s, limit.Who{}, 20); in != 7 {
			t.Errorf("%d came in with the new limits, want 7", in)
		}

		l.SetLimits(s, spec.Limits{})

		if in, _ := admit(t, l, s, limit.Who{}, 50); in != 50 {
			t.Errorf("%d came in without limits", in)
		}
	})
}

func TestFailingSourcesAreSuspect(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limit.Config{Source: limit.Rate{PerSecond: 10, Burst: 20}})
		bad := netip.MustParseAddr("203.0.113.5")

		for range 20 {
			if l.Suspect(bad, time.Now()) {
				t.Fatal("suspect too early")
			}

			if err := l.Refused(bad, time.Now()); err != nil {
				t.Fatalf("refused too early: %v", err)
			}
		}

		for addr, want := range map[string]bool{
			"203.0.113.5": true, "203.0.113.250": true, "::ffff:203.0.113.9": true, "203.0.114.5": false, "2001:db8::1": false,
		} {
			from := netip.MustParseAddr(addr)
			if got := l.Suspect(from, time.Now()); got != want {
				t.Errorf("%s: suspect %v", addr, got)
			}

			if !want {
				continue
			}

			if f := fault.From(l.Refused(from, time.Now())); f == nil || f.Code != fault.TooManyRequests || f.RetryAfter <= 0 {
				t.Errorf("%s: got %v", addr, f)
			}
		}

		six := netip.MustParseAddr("2001:db8:1:200::1")
		for range 20 {
			_ = l.Refused(six, time.Now())
		}

		if !l.Suspect(netip.MustParseAddr("2001:db8:1:2ff::9"), time.Now()) || l.Suspect(netip.MustParseAddr("2001:db8:1:300::9"), time.Now()) {
			t.Error("an IPv6 source is not a /56")
		}

		<-time.After(time.Second)

		if l.Suspect(bad, time.Now()) || l.Refused(bad, time.Now()) != nil {
			t.Error("still suspect after a second")
		}
	})
}

// What a public service gives to one network does not depend on what it gives to others, and
// callers with a name are not counted.
func TestAnonymousCallersAreBoundedByNetwork(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limit.Config{Anonymous: limit.Rate{PerSecond: 1, Burst: 5}})
		s := l.Service("s", "p", spec.Limits{})
		from := func(addr string) limit.Who { return limit.Who{From: netip.MustParseAddr(addr)} }

		if in, err := admit(t, l, s, from("203.0.113.5"), 20); in != 5 || fault.From(err).Code != fault.TooManyRequests {
			t.Errorf("%d came in, want 5: %v", in, err)
		}

		if in, _ := admit(t, l, s, from("203.0.113.77"), 20); in != 0 {
			t.Errorf("%d of its neighbour came in", in)
		}

		if in, _ := admit(t, l, s, from("198.51.100.1"), 5); in != 5 {
			t.Errorf("%d of another network came in", in)
		}

		if in, _ := admit(t, l, s, limit.Who{Principal: "user:alice"}, 50); in != 50 {
			t.Errorf("%d of a caller with a name came in", in)
		}
	})
}

func TestTablesAreBounded(t *testing.T) {
	t.Parallel()

	l := newLocal(t, limit.Config{
		MaxKeys: 640, Principal: limit.Rate{PerSecond: 1, Burst: 2}, App: limit.Rate{PerSecond: 1, Burst: 2},
	})
	s := l.Service("s", "p", spec.Limits{})

	for i := range 20_000 {
		admit(t, l, s, limit.Who{Principal: fmt.Sprint("p", i), App: fmt.Sprint("a", i)}, 1)
		_ = l.Refused(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), time.Now())
	}

	if n := l.Keys(); n > 3*(640+64) {
		t.Errorf("%d keys are kept, the bound is %d", n, 3*(640+64))
	}
	// Who is active stays known while strangers pass by.
	admit(t, l, s, limit.Who{Principal: "active"}, 5)

	for i := range 100 {
		admit(t, l, s, limit.Who{Principal: fmt.Sprint("x", i)}, 1)

		if in, _ := admit(t, l, s, limit.Who{Principal: "active"}, 1); in > 0 {
			t.Fatalf("after %d strangers the bucket was forgotten", i)
		}
	}
}

// As many callers as may be remembered are remembered, wherever their keys fall.
func TestNobodyIsForgottenWithinTheBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLocal(t, limit.Config{MaxKeys: 5000, Principal: limit.Rate{PerSecond: 0.001, Burst: 1}})
		s := l.Service("s", "p", spec.Limits{})

		for round, want := range []int{5000, 0, 0} {
			in := 0

			for i := range 5000 {
				n, _ := admit(t, l, s, limit.Who{Principal: fmt.Sprint("p", i)}, 1)
				in += n
			}

			if in != want {
				t.Errorf("round %d: %d came in, want %d", round, in, want)
			}
		}
	})
}

func TestConfigReportsMistakes(t *testing.T) {
	t.Parallel()

	for name, cfg := range map[string]limit.Config{
		"rate": {Global: limit.Rate{PerSecond: -1}}, "burst": {Principal: limit.Rate{PerSecond: 1, Burst: -1}},
		"slots": {Concurrency: -1}, "keys": {MaxKeys: -5},
	} {
		if _, err := limit.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestHooksTellWhichBoundRefused(t *testing.T) {
	t.Parallel()

	one := limit.Rate{PerSecond: 0.001, Burst: 1}
	for want, cfg := range map[string]limit.Config{
		"principal": {Principal: one}, "app": {App: one}, "service": {Service: one}, "project": {Project: one}, "global": {Global: one},
		"slots": {Concurrency: 1, SlotWait: -1}, "source": {Source: one}, "anonymous": {Anonymous: one},
	} {
		got := ""
		cfg.Hooks.Limited = func(b limit.Bound) { got += b.String() }
		l := newLocal(t, cfg)
		s := l.Service("s", "p", spec.Limits{})
		from := netip.MustParseAddr("192.0.2.1")

		for range 2 {
			_ = l.Refused(from, time.Now())

			var ticket limit.Ticket

			who := limit.Who{Principal: "p", App: "a"}
			if want == "anonymous" {
				who = limit.Who{From: from}
			}

			_ = l.Admit(t.Context(), s, who, &ticket)
		}

		if got != want {
			t.Errorf("%s: told %q", want, got)
		}
	}
}
