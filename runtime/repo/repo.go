package repo

import (
	"context"
	"log/slog"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
)

// Config of a Repo.
type Config struct {
	// ParallelLoads bounds the loads that run at once; 0 means 2.
	ParallelLoads int
}

// Repo holds models.
type Repo struct {
	cfg   Config
	eng   engine.Engine
	hooks Hooks
	log   *slog.Logger
}

// New returns an empty Repo; nothing is served before Run.
func New(cfg Config, eng engine.Engine, hooks Hooks, log *slog.Logger) (*Repo, error) {
	return &Repo{cfg: cfg, eng: eng, hooks: hooks, log: log}, nil
}

// Run owns the Repo's goroutines and returns when ctx ends and everything is closed.
func (r *Repo) Run(ctx context.Context) error {
	<-ctx.Done()

	return nil
}

// Add registers a source and loads it; it returns when the version is ready or failed.
func (r *Repo) Add(_ context.Context, src Source) error { return r.missing(src.Name, src.Version) }

// Load loads every registered version of name that the policy allows, again if loaded.
func (r *Repo) Load(_ context.Context, name string) error { return r.missing(name, "") }

// Unload drains and closes the versions of name (version "" means all); sources stay registered.
func (r *Repo) Unload(_ context.Context, name, version string) error { return r.missing(name, version) }

// Acquire borrows a ready version; "" means the newest that the policy allows.
// Faults: ModelNotFound, ModelNotReady.
func (r *Repo) Acquire(name, version string) (*Handle, error) { return nil, r.missing(name, version) }

// Index lists every version ever added, by name and version.
func (r *Repo) Index() []Status { return nil }

// Drain refuses new requests and returns when all accepted ones are answered.
func (r *Repo) Drain(context.Context) error { return nil }

func (r *Repo) missing(name, version string) error {
	return fault.New(fault.ModelNotFound, "Model %q version %q does not exist.", name, version)
}

// Handle is a borrowed version.
type Handle struct {
	meta *Meta
}

// Meta describes the version.
func (h *Handle) Meta() *Meta { return h.meta }

// Infer runs one request; see batch.Request for who owns which memory.
func (h *Handle) Infer(context.Context, *batch.Request) (*batch.Result, error) {
	return nil, fault.New(fault.ModelNotReady, "Model %q is not loaded.", h.meta.Name)
}

// Stats are the version's counters since it was loaded.
func (h *Handle) Stats() batch.Stats { return batch.Stats{} }

// Release gives the version back.
func (h *Handle) Release() {}
