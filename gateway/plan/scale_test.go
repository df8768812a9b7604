package plan_test

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/spec"
)

// many is the largest number of services that a gateway is made for.
const many = 10_000

// manyServices is a snapshot of so many services, each with 3 versions of 4 instances.
func manyServices() *spec.Snapshot {
	s := &spec.Snapshot{Revision: 1, Services: make([]spec.Route, many)}

	for i := range s.Services {
		id := fmt.Sprintf("%08d-23ab-45f9-a66e-892e7bc2be53", i)
		r := route(id, 1)

		for v, weight := range []int{80, 15, 5} {
			r.Versions = append(r.Versions, version(fmt.Sprintf("m%d", v), weight,
				fmt.Sprintf("%s-%d1", id, v), fmt.Sprintf("%s-%d2", id, v), fmt.Sprintf("%s-%d3", id, v), fmt.Sprintf("%s-%d4", id, v)))
		}

		s.Services[i] = r
	}

	return s
}

// reweighed is a later snapshot in which one service has other weights.
func reweighed(s *spec.Snapshot, at int) *spec.Snapshot {
	next := &spec.Snapshot{Revision: s.Revision + 1, Services: slices.Clone(s.Services)}
	r := &next.Services[at]
	r.Revision = next.Revision
	r.Versions = slices.Clone(r.Versions)
	r.Versions[0].Weight, r.Versions[1].Weight = r.Versions[1].Weight, r.Versions[0].Weight

	return next
}

// BenchmarkOneWeightAmong10000Services is what a gateway does for one changed weight.
func BenchmarkOneWeightAmong10000Services(b *testing.B) {
	c, _ := newCompiler(b, plan.Config{})
	s := manyServices()
	compile(b, c, s)
	b.ReportAllocs()

	for i := 0; b.Loop(); i++ {
		s = reweighed(s, i*7919%many)
		compile(b, c, s)
	}
}

// BenchmarkFirstPlanOf10000Services is what a gateway does at its start.
func BenchmarkFirstPlanOf10000Services(b *testing.B) {
	s := manyServices()
	b.ReportAllocs()

	for b.Loop() {
		c, _ := newCompiler(b, plan.Config{})
		compile(b, c, s)
	}
}

// A weight is in force within a second, also while the last good snapshot is written, and all those services
// take a bounded part of the memory.
func TestOneWeightAmong10000ServicesIsInForceAtOnce(t *testing.T) {
	var before, after runtime.MemStats

	runtime.GC()
	runtime.ReadMemStats(&before)

	c, _ := newCompiler(t, plan.Config{})
	src := &source{make(chan any)}
	f := plan.NewFollower(plan.FollowConfig{
		File: filepath.Join(t.TempDir(), "last-good.json"), SaveEvery: 10 * time.Millisecond, // all the time
	}, c, src, slog.New(slog.DiscardHandler))

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)

	go func() { ended <- f.Run(ctx) }()

	s := manyServices()
	src.ch <- s

	for f.Load() == nil {
		<-time.After(time.Millisecond)
	}

	runtime.GC()
	runtime.ReadMemStats(&after)

	if perService := float64(after.HeapAlloc-before.HeapAlloc) / many; perService > 40<<10 {
		t.Errorf("a service takes %.1f KiB", perService/1024)
	} else {
		t.Logf("a service takes %.1f KiB, its snapshot included", perService/1024)
	}

	var slowest time.Duration

	for i := range 20 {
		at := i * 7919 % many
		s = reweighed(s, at)

		began := time.Now()
		changed := f.Changed()
		src.ch <- s
		<-changed

		slowest = max(slowest, time.Since(began))

		if w := f.Load().Services[s.Services[at].ServiceID].Route.Versions()[0].Weight; w != 15 {
			t.Fatalf("the weight in force is %d", w)
		}
	}

	t.Logf("the slowest change took %v", slowest)

	if slowest > time.Second {
		t.Errorf("a change took %v", slowest)
	}

	cancel()

	if err := <-ended; err != nil {
		t.Error(err)
	}
}
