package plan_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-gateway/sluice/gateway/plan"
	"github.com/sluice-gateway/sluice/spec"
)

// source gives what the test puts in.
type source struct{ ch chan any }

func (s *source) Next(ctx context.Context, _ int64) (*spec.Snapshot, error) {
	select {
	case v := <-s.ch:
		if err, bad := v.(error); bad {
			return nil, err
		}

		snapshot, ok := v.(*spec.Snapshot)
		if !ok {
			return nil, nil
		}

		return snapshot, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

type follow struct {
	*plan.Follower

	source                 *source
	swapped, refused, away atomic.Int64
	backends               *backends
	stop                   func() error
}

func start(t *testing.T, file string) *follow {
	t.Helper()

	c, b := newCompiler(t, plan.Config{})
	f := &follow{source: &source{make(chan any)}, backends: b}
	f.Follower = plan.NewFollower(plan.FollowConfig{File: file, Hooks: plan.Hooks{
		Swapped: func(int64, int, time.Duration) { f.swapped.Add(1) },
		Refused: func(int64, error) { f.refused.Add(1) },
		Away:    func(error) { f.away.Add(1) },
	}}, c, f.source, slog.New(slog.DiscardHandler))

	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)

	go func() { ended <- f.Run(ctx) }()

	f.stop = func() error {
		cancel()

		return <-ended
	}

	return f
}

func (f *follow) revision() int64 {
	synctest.Wait()

	if p := f.Load(); p != nil {
		return p.Revision
	}

	return 0
}

func TestFollowerSwapsAndKeepsTheLastGood(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := start(t, "")
		if f.revision() != 0 {
			t.Fatal("a plan out of nothing")
		}

		changed := f.Changed()
		f.source.ch <- &spec.Snapshot{Revision: 5, Services: []spec.Route{route("a", 5, version("m", 100, "i1"))}}

		if f.revision() != 5 {
			t.Fatalf("revision %d", f.revision())
		}

		select {
		case <-changed:
		default:
			t.Error("nobody was told about the change")
		}

		bad := route("a", 6)
		bad.Balancer = "DICE"
		f.source.ch <- &spec.Snapshot{Revision: 6, Services: []spec.Route{bad}}

		if f.revision() != 5 || f.refused.Load() != 1 {
			t.Errorf("revision %d, %d refused", f.revision(), f.refused.Load())
		}

		for range 3 {
			f.source.ch <- errors.New("away")
		}

		f.source.ch <- nil // a source that gives nothing at all is away, too
		f.source.ch <- &spec.Snapshot{Revision: 7}

		if f.revision() != 7 || f.away.Load() != 4 || f.swapped.Load() != 2 {
			t.Errorf("revision %d, %d away, %d swapped", f.revision(), f.away.Load(), f.swapped.Load())
		}

		if err := f.stop(); err != nil || f.backends.String() != "map[]" {
			t.Errorf("stopped with %v, open %s", err, f.backends)
		}
	})
}

func TestLastGoodFile(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "gateway", "last-good.json")

	synctest.Test(t, func(t *testing.T) {
		f := start(t, file)
		f.source.ch <- &spec.Snapshot{Revision: 5, Services: []spec.Route{route("a", 5, version("m", 100, "i1"))}}
		f.revision()
		f.source.ch <- &spec.Snapshot{Revision: 6, Services: []spec.Route{route("a", 6, version("m", 100, "i1", "i2"))}}
		f.revision()

		bad := route("a", 7)
		bad.Balancer = "DICE"
		f.source.ch <- &spec.Snapshot{Revision: 7, Services: []spec.Route{bad}}
		f.revision()

		if err := f.stop(); err != nil {
			t.Fatal(err)
		}
	})

	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("%v, %v", info, err)
	}

	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".last-good-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}

	synctest.Test(t, func(t *testing.T) {
		f := start(t, file)
		if f.revision() != 0 {
			t.Fatal("the file was used before the source had its chance")
		}

		<-time.After(2 * time.Second)

		if f.revision() != 6 || len(f.Load().Services["a"].Route.Versions()[0].Pool.Endpoints()) != 2 {
			t.Fatalf("revision %d", f.revision())
		}
		// The source comes back with revisions of its own, that mean something else.
		f.source.ch <- &spec.Snapshot{Revision: 6, Services: []spec.Route{route("a", 6, version("m", 100, "i9"))}}

		if f.revision() != 6 || f.Load().Services["a"].Route.Versions()[0].Pool.Endpoints()[0].ID != "i9" {
			t.Error("the route of the file is still in force")
		}

		if err := f.stop(); err != nil {
			t.Fatal(err)
		}
	})

	synctest.Test(t, func(t *testing.T) {
		f := start(t, file)
		f.source.ch <- errors.New("away")

		if f.revision() != 6 {
			t.Error("an unreachable source at the start does not lead to the file")
		}

		if err := f.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

func TestABrokenFileIsNoPlan(t *testing.T) {
	t.Parallel()

	file := filepath.Join(t.TempDir(), "last-good.json")
	if err := os.WriteFile(file, []byte("{broken"), 0o600); err != nil {
		t.Fatal(err)
	}

	synctest.Test(t, func(t *testing.T) {
		f := start(t, file)
		<-time.After(3 * time.Second)

		if f.revision() != 0 {
			t.Error("a plan out of a broken file")
		}

		f.source.ch <- &spec.Snapshot{Revision: 1}

		if f.revision() != 1 {
			t.Error("the broken file stands in the way")
		}

		if err := f.stop(); err != nil {
			t.Fatal(err)
		}
	})

	raw, err := os.ReadFile(file)
	if err != nil || !json.Valid(raw) {
		t.Errorf("the file was not replaced: %s, %v", raw, err)
	}
}
