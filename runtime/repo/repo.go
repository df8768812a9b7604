package repo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Config of a Repo.
type Config struct {
	// ParallelLoads bounds the loads that run at once; 0 means 2.
	ParallelLoads int
	// Cores that may be used; 0 means what the process was granted.
	Cores int
	// CacheDir keeps graph-optimised models of packages that ask for it; empty means nowhere.
	CacheDir string
	// CacheBytes bounds what is in CacheDir; the longest unused go first. 0 means 8 GiB.
	CacheBytes int64
	// Policy of models that Policies does not name.
	Policy   Policy
	Policies map[string]Policy
	// CloseTimeout bounds how long Run waits, at its end, for memory still in use; 0 means 10 s.
	CloseTimeout time.Duration
	// Fetch, when set, brings a source's package to this machine and says where it is.
	Fetch func(ctx context.Context, src Source) (dir string, err error)
}

// Repo holds models.
type Repo struct {
	cfg   Config
	eng   engine.Engine
	hooks Hooks
	log   *slog.Logger

	view    atomic.Pointer[view]
	slots   chan struct{} // one for each parallel load
	cores   *semaphore.Weighted
	started chan struct{} // closed by Run

	mu       sync.Mutex // guards what follows, and the versions
	models   map[string]map[string]*version
	life     context.Context //nolint:containedctx // Run's, for the goroutines that it owns
	wg       sync.WaitGroup  // of those goroutines
	draining bool
}

// view is what Acquire sees: an immutable picture of the ready versions.
type view struct {
	models   map[string]*servedModel
	draining bool
}

type servedModel struct {
	ready  map[string]*loaded
	newest *loaded
}

// version is one registered source and what became of it.
type version struct {
	src     Source
	state   State
	reason  string
	since   time.Time
	current *loaded
	busy    chan struct{} // held by the one load or unload at work; room for one

	loads     int  // that are under way or wait
	forgotten bool // is no longer in models
}

// New returns an empty Repo; Add waits until Run is called.
func New(cfg Config, eng engine.Engine, hooks Hooks, log *slog.Logger) (*Repo, error) {
	if cfg.ParallelLoads < 0 || cfg.Cores < 0 || cfg.CloseTimeout < 0 || cfg.CacheBytes < 0 {
		return nil, errors.New("configure models: a number is negative")
	}

	cfg.CacheBytes = cmp.Or(cfg.CacheBytes, 8<<30)
	cfg.ParallelLoads = cmp.Or(cfg.ParallelLoads, 2)
	cfg.Cores = cmp.Or(cfg.Cores, Cores())
	cfg.CloseTimeout = cmp.Or(cfg.CloseTimeout, 10*time.Second)

	r := &Repo{
		cfg: cfg, eng: eng, hooks: hooks, log: log,
		slots:   make(chan struct{}, cfg.ParallelLoads),
		cores:   semaphore.NewWeighted(int64(cfg.Cores)),
		started: make(chan struct{}),
		models:  map[string]map[string]*version{},
	}
	r.view.Store(&view{})

	return r, nil
}

// Run owns the goroutines of all loaded versions. It returns when ctx ends and everything is
// closed; what still runs then is terminated. It must be called once.
func (r *Repo) Run(ctx context.Context) error {
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()

	r.mu.Lock()
	r.life = life
	r.mu.Unlock()
	close(r.started)

	<-ctx.Done()

	r.mu.Lock()
	r.draining = true
	r.life = nil
	r.publish()

	for _, versions := range r.models {
		for _, v := range versions {
			if v.current != nil {
				v.current.retire()
			}
		}
	}
	r.mu.Unlock()
	stop()

	closed := make(chan struct{})

	go func() {
		r.wg.Wait()
		close(closed)
	}()

	timer := time.NewTimer(r.cfg.CloseTimeout)
	defer timer.Stop()

	select {
	case <-closed:
		return nil
	case <-timer.C:
		return fmt.Errorf("close models: some are still in use after %v", r.cfg.CloseTimeout)
	}
}

// Add registers a source and loads it if the version policy allows it; it returns when the
// version is ready, put aside, or failed. A version of the same name and number that serves is
// replaced when the new one is ready; if that fails it goes on serving.
func (r *Repo) Add(ctx context.Context, src Source) error {
	if src.Name == "" {
		return fault.New(fault.InvalidArgument, "A model needs a name.")
	}

	if src.Version == "" {
		src.Version = "1"
	}

	r.mu.Lock()
	v := r.models[src.Name][src.Version]

	if v == nil {
		v = &version{src: src, busy: make(chan struct{}, 1)}

		if r.models[src.Name] == nil {
			r.models[src.Name] = map[string]*version{}
		}

		r.models[src.Name][src.Version] = v
	}

	r.loadBegins(v)
	r.mu.Unlock()

	err := r.load(ctx, v, src)
	r.loadEnded(v)
	r.enforce(src.Name) //nolint:contextcheck // goes on after this call

	return err
}

// Load loads every registered version of name that the policy allows, beside what serves, and
// swaps. Faults: ModelNotFound and those of loading, joined.
func (r *Repo) Load(ctx context.Context, name string) error {
	var list []*version

	r.mu.Lock()
	for _, v := range r.models[name] {
		if r.allowed(v) {
			list = append(list, v)
		}
	}
	r.mu.Unlock()

	if len(list) == 0 {
		return r.missing(name, "")
	}

	slices.SortFunc(list, func(a, b *version) int { return CompareVersions(a.src.Version, b.src.Version) })

	var errs []error

	for _, v := range list {
		r.mu.Lock()
		src, gone := v.src, v.forgotten // while another one was loaded

		if !gone {
			r.loadBegins(v)
		}
		r.mu.Unlock()

		if gone {
			continue
		}

		errs = append(errs, r.load(ctx, v, src))
		r.loadEnded(v)
	}

	return errors.Join(errs...)
}

// Unload drains and closes the versions of name; version "" means all. They stay registered.
// It returns when their memory is given back.
func (r *Repo) Unload(ctx context.Context, name, number string) error {
	var list []*version

	r.mu.Lock()
	for _, v := range r.models[name] {
		if number == "" || v.src.Version == number {
			list = append(list, v)
		}
	}
	r.mu.Unlock()

	if len(list) == 0 {
		return r.missing(name, number)
	}

	var errs []error
	for _, v := range list {
		errs = append(errs, r.unload(ctx, v, ""))
	}

	return errors.Join(errs...)
}

func (r *Repo) unload(ctx context.Context, v *version, reason string) error {
	if err := v.lock(ctx); err != nil {
		return err
	}
	defer v.unlock()

	r.mu.Lock()
	old := v.current
	v.current = nil

	if old != nil {
		r.set(v, Draining, reason)
	}
	r.publish()
	r.mu.Unlock()

	if old != nil {
		old.retire()

		select {
		case <-old.closed:
		case <-ctx.Done():
			return fmt.Errorf("unload model %s/%s: %w", v.src.Name, v.src.Version, ctx.Err())
		}
	}

	r.mu.Lock()
	defer r.mu.Unlock()

	r.set(v, Unloaded, reason)

	return nil
}

// Acquire borrows a ready version; "" means the newest that is ready and allowed. It takes no
// lock. Faults: ModelNotFound, ModelNotReady, ShuttingDown.
func (r *Repo) Acquire(name, number string) (*Handle, error) {
	for {
		seen := r.view.Load()
		m := seen.models[name]

		if seen.draining {
			return nil, fault.New(fault.ShuttingDown, "The worker is shutting down.")
		}

		var l *loaded

		switch {
		case m == nil:
		case number == "":
			l = m.newest
		default:
			l = m.ready[number]
		}

		if l == nil {
			return nil, r.notServed(name, number)
		}

		if l.borrow() {
			return &Handle{l: l}, nil
		}

		if r.view.Load() == seen { // retired by the end of Run
			return nil, fault.New(fault.ShuttingDown, "The worker is shutting down.")
		}
	}
}

func (r *Repo) notServed(name, number string) error {
	r.mu.Lock()
	defer r.mu.Unlock()

	versions := r.models[name]
	if number != "" {
		if v := versions[number]; v != nil {
			return notReady(v)
		}
	} else if len(versions) > 0 {
		var newest *version
		for _, v := range versions {
			if newest == nil || CompareVersions(v.src.Version, newest.src.Version) > 0 {
				newest = v
			}
		}

		return notReady(newest)
	}

	return r.missing(name, number)
}

func notReady(v *version) error {
	if v.reason != "" {
		return fault.New(fault.ModelNotReady, "Model %q version %q is %s: %s", v.src.Name, v.src.Version, v.state, v.reason)
	}

	return fault.New(fault.ModelNotReady, "Model %q version %q is %s.", v.src.Name, v.src.Version, v.state)
}

func (r *Repo) missing(name, number string) error {
	if number == "" {
		return fault.New(fault.ModelNotFound, "Model %q does not exist.", name)
	}

	return fault.New(fault.ModelNotFound, "Model %q has no version %q.", name, number)
}

// Index lists every version ever added, by name and version.
func (r *Repo) Index() []Status {
	r.mu.Lock()
	defer r.mu.Unlock()

	var out []Status

	for _, versions := range r.models {
		for _, v := range versions {
			out = append(out, v.status())
		}
	}

	slices.SortFunc(out, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), CompareVersions(a.Version, b.Version))
	})

	return out
}

// Drain refuses new requests and returns when all accepted ones are answered.
func (r *Repo) Drain(ctx context.Context) error {
	var list []*loaded

	r.mu.Lock()
	r.draining = true
	r.publish()

	for _, versions := range r.models {
		for _, v := range versions {
			if v.current != nil {
				list = append(list, v.current)
			}
		}
	}
	r.mu.Unlock()

	for _, l := range list {
		if err := l.batcher.Drain(ctx); err != nil {
			return err //nolint:wrapcheck // it names the model
		}
	}

	return nil
}

// publish makes the view that Acquire sees. Caller holds mu.
func (r *Repo) publish() {
	next := &view{models: map[string]*servedModel{}, draining: r.draining}

	for name, versions := range r.models {
		m := &servedModel{ready: map[string]*loaded{}}

		for number, v := range versions {
			if v.current == nil {
				continue
			}

			m.ready[number] = v.current
			if m.newest == nil || CompareVersions(number, m.newest.meta.Version) > 0 {
				m.newest = v.current
			}
		}

		if m.newest != nil {
			next.models[name] = m
		}
	}

	r.view.Store(next)
}

// set changes the state of v. Caller holds mu.
func (r *Repo) set(v *version, s State, reason string) {
	if v.forgotten {
		return
	}

	v.state, v.reason, v.since = s, reason, time.Now()

	if r.hooks.State != nil {
		r.hooks.State(v.status())
	}
}

func (v *version) status() Status {
	return Status{Name: v.src.Name, Version: v.src.Version, State: v.state, Reason: v.reason, Since: v.since}
}

func (v *version) lock(ctx context.Context) error {
	select {
	case v.busy <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("wait for model %s/%s: %w", v.src.Name, v.src.Version, ctx.Err())
	}
}

func (v *version) unlock() { <-v.busy }
