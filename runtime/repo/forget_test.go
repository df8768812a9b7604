package repo_test

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/engine/enginetest"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// Only a version that is unloaded can be forgotten; one that serves, is being loaded or failed stays.
func TestForgetTakesOnlyWhatIsUnloaded(t *testing.T) {
	t.Parallel()

	var (
		dir, broken, slow = pkg(t, ""), pkg(t, ""), pkg(t, "")
		opening           = make(chan struct{})
		open              = make(chan struct{})
		told              []string
	)

	e := &enginetest.Engine{Open: func(_ context.Context, spec engine.LoadSpec) (enginetest.Model, error) {
		switch filepath.Dir(spec.Path) {
		case broken:
			return enginetest.Model{}, fault.New(fault.ModelInvalid, "It is broken.")
		case slow:
			close(opening)
			<-open
		}

		return enginetest.Echo(1), nil
	}}
	r := start(t, repo.Config{}, e, repo.Hooks{Forgotten: func(_, version string) { told = append(told, version) }})

	add(t, r, "m", "serves", dir)
	add(t, r, "m", "ended", dir)

	if err := r.Add(t.Context(), repo.Source{Name: "m", Version: "broken", Dir: broken}); err == nil {
		t.Fatal("a broken model was loaded")
	}

	loaded := make(chan error, 1)
	go func() { loaded <- r.Add(t.Context(), repo.Source{Name: "m", Version: "slow", Dir: slow}) }()

	<-opening

	if err := r.Unload(t.Context(), "m", "ended"); err != nil {
		t.Fatal(err)
	}

	for _, version := range []string{"serves", "ended", "ended", "broken", "slow", "never"} {
		r.Forget("m", version)
	}

	close(open)

	if err := <-loaded; err != nil {
		t.Error(err)
	}

	if got, want := versions(r), []string{"broken", "serves", "slow"}; !slices.Equal(got, want) {
		t.Errorf("the index has %v, want %v", got, want)
	}

	if !slices.Equal(told, []string{"ended"}) {
		t.Errorf("forgotten: %v", told)
	}
}

// A version that is forgotten while another one of the model is loaded is not loaded in its turn: nobody
// would know of it, nor end it. The test's end checks that all sessions are closed.
func TestForgottenVersionIsNotLoadedAnew(t *testing.T) {
	t.Parallel()

	var hold sync.Mutex

	first, dir := pkg(t, ""), pkg(t, "")

	e := &enginetest.Engine{Open: func(_ context.Context, spec engine.LoadSpec) (enginetest.Model, error) {
		if filepath.Dir(spec.Path) == first {
			hold.Lock()
			defer hold.Unlock()
		}

		return enginetest.Echo(1), nil
	}}
	loading := make(chan struct{}, 8)
	r := start(t, repo.Config{}, e, repo.Hooks{State: func(s repo.Status) {
		if s.State == repo.Loading {
			loading <- struct{}{}
		}
	}})

	add(t, r, "m", "1", first)
	add(t, r, "m", "2", dir)

	if err := r.Unload(t.Context(), "m", ""); err != nil {
		t.Fatal(err)
	}

	for len(loading) > 0 {
		<-loading
	}

	hold.Lock()

	done := make(chan error, 1)
	go func() { done <- r.Load(t.Context(), "m") }()

	<-loading // version 1
	r.Forget("m", "2")
	hold.Unlock()

	if err := <-done; err != nil {
		t.Error(err)
	}

	if got := versions(r); !slices.Equal(got, []string{"1"}) {
		t.Errorf("the index has %v", got)
	}

	if opened := len(e.Sessions()); opened != 3 {
		t.Errorf("%d models were opened, want 3", opened)
	}
}

// Versions are added, unloaded and forgotten by many at once: whatever the order, an Add that succeeded and
// was not followed by an Unload serves.
func TestForgetWhileOthersAdd(t *testing.T) {
	t.Parallel()

	r := start(t, repo.Config{}, fake(enginetest.Echo(1)), repo.Hooks{})
	dir := pkg(t, "")

	var wg sync.WaitGroup

	for n := range 4 {
		version := strconv.Itoa(n)

		wg.Go(func() {
			for range 50 {
				r.Forget("m", version)
			}
		})
		wg.Go(func() {
			for range 20 {
				if err := r.Add(t.Context(), repo.Source{Name: "m", Version: version, Dir: dir}); err != nil {
					t.Error(err)
				}

				if y, _, err := ask(r, version, 7); err != nil || y != 7 {
					t.Errorf("version %s answers %v, %v", version, y, err)
				}

				if err := r.Unload(t.Context(), "m", version); err != nil && fault.From(err).Code != fault.ModelNotFound {
					t.Error(err)
				}
			}
		})
	}

	wg.Wait()

	for n := range 4 {
		r.Forget("m", strconv.Itoa(n))
	}

	if got := versions(r); len(got) > 0 {
		t.Errorf("the index still has %v", got)
	}
}

func versions(r *repo.Repo) []string {
	var list []string
	for _, s := range r.Index() {
		list = append(list, s.Version)
	}

	return list
}
