package registry

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/pkgsource"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/spec"
)

// Config of a Registry. Zero means the default.
type Config struct {
	// SourceRoots are the directories that packages may come from; empty means any.
	SourceRoots []string
	// Hidden directories are never read, such as the data directory with its secrets.
	Hidden []string
	// Workers is how many packages are imported at a time (default 2).
	Workers int
	// Fetch brings packages from elsewhere; nil means that there are none.
	Fetch *pkgsource.Fetcher
	// Fetchers is how many packages are fetched at a time (default 4). They do not hold up
	// those that are on this machine.
	Fetchers int
	// CacheBytes is how much of packages that no model refers to is kept, the last used
	// longest; 0 keeps nothing.
	CacheBytes int64
	Hooks      Hooks
}

// Hooks report what happens; any may be nil.
type Hooks struct {
	// Fetched tells of the end of a fetch, how many bytes came and how long it took.
	Fetched func(bytes int64, took time.Duration, err error)
}

// Registry manages models.
type Registry struct {
	cfg  Config
	st   *store.Store
	pkgs *pkgstore.Store
	log  *slog.Logger

	queue  chan string // models whose files are here
	remote chan string // models whose files are elsewhere

	mu       sync.Mutex // guards active and progress
	active   map[string]context.CancelFunc
	progress map[string]Progress

	// placing is held for reading from the import of a package until its model refers to it,
	// and for writing while a package is removed.
	placing sync.RWMutex
}

const queued = 4096

// New returns a Registry.
func New(cfg Config, st *store.Store, pkgs *pkgstore.Store, log *slog.Logger) *Registry {
	if cfg.Workers <= 0 {
		cfg.Workers = 2
	}

	if cfg.Fetchers <= 0 {
		cfg.Fetchers = 4
	}

	return &Registry{
		cfg: cfg, st: st, pkgs: pkgs, log: log,
		queue: make(chan string, queued), remote: make(chan string, queued),
		active: make(map[string]context.CancelFunc), progress: make(map[string]Progress),
	}
}

// Run imports packages until ctx ends. It begins with what an earlier run left undone.
func (g *Registry) Run(ctx context.Context) error {
	models, _, err := g.st.Models.Values(ctx, 0)
	if err != nil {
		return fmt.Errorf("read models: %w", err)
	}

	if err := g.clean(models); err != nil {
		g.log.Warn("cannot clean the package store", slog.Any("error", err))
	}

	group, ctx := errgroup.WithContext(ctx)

	group.Go(func() error {
		for i := range models {
			g.resume(ctx, &models[i])
		}

		return nil
	})

	for range g.cfg.Workers {
		group.Go(func() error { return g.serve(ctx, g.queue) })
	}

	for range g.cfg.Fetchers {
		group.Go(func() error { return g.serve(ctx, g.remote) })
	}

	return group.Wait()
}

func (g *Registry) serve(ctx context.Context, queue <-chan string) error {
	for {
		select {
		case id := <-queue:
			g.work(ctx, id)
		case <-ctx.Done():
			return nil
		}
	}
}

// queueOf is where a model waits to be published.
func (g *Registry) queueOf(m *spec.Model) chan<- string {
	if remote(m) {
		return g.remote
	}

	return g.queue
}

// clean removes remains of imports and packages that no model refers to.
func (g *Registry) clean(models []spec.Model) error {
	used := make(map[string]bool, len(models))
	publishing := make(map[string]bool)

	for i := range models {
		used[models[i].Package.TreeSHA256] = true
		publishing[models[i].ID] = models[i].Status == spec.ModelPublishing && !models[i].Deleting
	}

	g.placing.Lock()
	defer g.placing.Unlock()

	err := g.pkgs.Clean(func(tree string) bool { return used[tree] || g.cfg.CacheBytes > 0 })
	err = errors.Join(err, g.pkgs.Trim(g.cfg.CacheBytes, func(tree string) bool { return used[tree] }))

	if g.cfg.Fetch != nil {
		err = errors.Join(err, g.cfg.Fetch.Clean(func(key string) bool { return publishing[key] }))
	}

	return err
}

func (g *Registry) resume(ctx context.Context, m *spec.Model) {
	switch {
	case m.Deleting:
		if err := g.Delete(ctx, m.ID); err != nil {
			g.log.Warn("cannot finish the deletion of a model", slog.String("model_id", m.ID), slog.Any("error", err))
		}
	case m.Status == spec.ModelPublishing:
		g.note(m.ID, Progress{Stage: stageQueued, Total: -1})

		select {
		case g.queueOf(m) <- m.ID:
		case <-ctx.Done():
		}
	}
}

// Create checks a model and accepts it. initial_config stands in m.ConfigJSON.
func (g *Registry) Create(ctx context.Context, m *spec.Model) error {
	if err := g.preflight(m); err != nil {
		return err
	}

	m.Status = spec.ModelPublishing

	// Before anybody can take it from the queue and be further.
	g.note(m.ID, Progress{Stage: stageQueued, Total: -1})

	_, err := g.st.Commit(ctx,
		g.st.Projects.ExistsOp(m.ProjectID, 0),
		g.st.Index.CreateOp(indexOf(m), m.ID),
		g.st.Models.CreateOp(m.ID, *m))
	if err != nil {
		g.forget(m.ID)
	}

	switch {
	case errors.Is(err, store.ErrExists):
		return fault.New(fault.ModelExists, "Model (%s, %s) already exists.", m.Name, m.Version)
	case err != nil:
		return fmt.Errorf("create model: %w", err)
	}

	select {
	case g.queueOf(m) <- m.ID:
		return nil
	default:
	}

	// Thousands wait already: take it back rather than promise what may take hours.
	g.forget(m.ID)

	err = g.Delete(context.WithoutCancel(ctx), m.ID)

	return errors.Join(fault.New(fault.Overloaded, "Too many models are being published."), err)
}

func indexOf(m *spec.Model) string {
	return store.IndexKey(store.IndexModel, m.ProjectID, m.Name, m.Version)
}

// work imports one model, unless somebody else did or it is gone. A model may be queued twice,
// by its creation and by the start of Run: one worker at a time has it.
func (g *Registry) work(process context.Context, id string) {
	ctx, cancel := context.WithCancel(process)
	defer cancel()

	g.mu.Lock()
	taken := g.active[id] != nil
	if !taken {
		g.active[id] = cancel
	}
	g.mu.Unlock()

	if taken {
		return
	}

	defer func() {
		g.mu.Lock()
		delete(g.active, id)
		delete(g.progress, id)
		g.mu.Unlock()
	}()

	it, err := g.st.Models.Get(ctx, id)
	if err != nil || it.Value.Deleting || it.Value.Status != spec.ModelPublishing {
		if err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
			g.log.Error("cannot read a model to publish; the next start does it", slog.String("model_id", id), slog.Any("error", err))
		}

		return
	}

	g.publish(process, ctx, it.Value)
}

// publish fetches and imports one model, and writes what became of it. ctx ends before process
// does when the model is deleted.
func (g *Registry) publish(process, ctx context.Context, m spec.Model) {
	id := m.ID

	// What a shutdown cuts off is gone on with; everything else is over.
	defer func() {
		if process.Err() == nil {
			g.discard(&m)
		}
	}()

	fetched, err := g.fetch(ctx, &m)

	if err == nil {
		g.verifying(m.ID)
	}

	g.placing.RLock()
	defer g.placing.RUnlock()

	if err == nil {
		err = g.importPackage(ctx, &m, fetched)
	}

	if err != nil {
		if ctx.Err() != nil {
			return // shutdown: the next start begins again; deletion: nobody asks any more
		}

		m.Status, m.FailReason = spec.ModelFailed, fault.From(err).Message()
		g.log.Warn("model refused", slog.String("model_id", id), slog.String("name", m.Name), slog.String("version", m.Version), slog.Any("error", err))
	} else {
		m.Status, m.FailReason = spec.ModelPublished, ""
		g.log.Info("model published", slog.String("model_id", id), slog.String("name", m.Name), slog.String("version", m.Version), slog.String("sha256", m.Package.TreeSHA256))
	}

	_, err = g.st.Models.Update(ctx, id, func(now *spec.Model) error {
		now.Status, now.FailReason = m.Status, m.FailReason
		now.Package, now.Config, now.ConfigJSON = m.Package, m.Config, m.ConfigJSON

		return nil
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) && ctx.Err() == nil {
		g.log.Error("cannot write the outcome of a publication; the next start does it", slog.String("model_id", id), slog.Any("error", err))
	}
}

// Delete removes a model that no service uses. A model in use gives ModelInUse, one that
// does not exist ErrNotFound of the store.
func (g *Registry) Delete(ctx context.Context, id string) error {
	it, err := g.st.Models.Update(ctx, id, func(m *spec.Model) error {
		m.Deleting = true

		return nil
	})
	if err != nil {
		return fmt.Errorf("delete model: %w", err)
	}

	user, err := g.userOf(ctx, id)
	if err == nil && user != "" {
		err = fault.New(fault.ModelInUse, "Failed to delete model, model (%s) already deploy service.", id)
	}

	if err != nil {
		_, undo := g.st.Models.Update(context.WithoutCancel(ctx), id, func(m *spec.Model) error {
			m.Deleting = false

			return nil
		})

		return errors.Join(err, undo)
	}

	g.mu.Lock()
	if cancel := g.active[id]; cancel != nil {
		cancel()
	}
	g.mu.Unlock()

	if _, err := g.st.Commit(ctx, g.st.Models.DeleteOp(id, 0), g.st.Index.DeleteOp(indexOf(&it.Value), 0)); err != nil {
		return fmt.Errorf("delete model: %w", err)
	}

	if err := g.dropPackage(ctx, it.Value.Package.TreeSHA256); err != nil {
		g.log.Warn("cannot remove the package of a deleted model; the next start does it", slog.String("model_id", id), slog.Any("error", err))
	}

	return nil
}

// userOf finds a service that uses a model now, or may go back to it.
func (g *Registry) userOf(ctx context.Context, id string) (string, error) {
	services, _, err := g.st.Services.Values(ctx, 0)
	if err != nil {
		return "", fmt.Errorf("who uses model %s: %w", id, err)
	}

	for i := range services {
		if uses(services[i].Entries, id) {
			return services[i].ID, nil
		}
	}

	states, _, err := g.st.ServiceStates.Values(ctx, 0)
	if err != nil {
		return "", fmt.Errorf("who uses model %s: %w", id, err)
	}

	for i := range states {
		st := &states[i]
		for _, entries := range append([][]spec.Entry{st.Target, st.Active}, st.Superseded...) {
			if uses(entries, id) {
				return st.ServiceID, nil
			}
		}
	}

	return "", nil
}

func uses(entries []spec.Entry, modelID string) bool {
	for i := range entries {
		if entries[i].ModelID == modelID {
			return true
		}
	}

	return false
}

func (g *Registry) dropPackage(ctx context.Context, tree string) error {
	if tree == "" {
		return nil
	}

	g.placing.Lock()
	defer g.placing.Unlock()

	models, _, err := g.st.Models.Values(ctx, 0)
	if err != nil {
		return fmt.Errorf("who shares package %s: %w", tree, err)
	}

	used := make(map[string]bool, len(models))
	for i := range models {
		used[models[i].Package.TreeSHA256] = true
	}

	switch {
	case used[tree]:
		return nil
	case g.cfg.CacheBytes > 0:
		return g.pkgs.Trim(g.cfg.CacheBytes, func(tree string) bool { return used[tree] })
	default:
		return g.pkgs.Remove(tree)
	}
}

// Hold keeps packages from being removed until release is called.
func (g *Registry) Hold() (release func()) {
	g.placing.RLock()

	return g.placing.RUnlock
}
