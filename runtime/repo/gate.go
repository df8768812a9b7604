package repo

import (
	"context"
	"fmt"

	"golang.org/x/sync/semaphore"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// gated is a session whose runs take their threads from the cores that all models of the worker
// share. A model alone never waits there, as its instances times its threads are within the cores; several
// take turns, in the order in which they come.
type gated struct {
	engine.Session

	cores   *semaphore.Weighted
	threads int64
}

// gate puts sess behind the worker's cores, unless it computes elsewhere.
func (r *Repo) gate(sess engine.Session, ls *engine.LoadSpec) engine.Session {
	if accelerated(sess.Provider()) {
		return sess
	}

	threads := max(1, ls.IntraOpThreads) * max(1, ls.InterOpThreads)

	return &gated{Session: sess, cores: r.cores, threads: int64(min(threads, r.cfg.Cores))}
}

// accelerated tells the providers that compute on a GPU. OpenVINO is asked for the processor.
func accelerated(provider string) bool {
	return provider == "cuda" || provider == "tensorrt" || provider == "webgpu"
}

// Run implements engine.Session.
func (g *gated) Run(ctx context.Context, in []engine.Tensor, outputs []string) ([]engine.Tensor, func(), error) {
	if err := g.cores.Acquire(ctx, g.threads); err != nil {
		return nil, nil, fmt.Errorf("wait for a core: %w", err)
	}
	defer g.cores.Release(g.threads)

	return g.Session.Run(ctx, in, outputs) //nolint:wrapcheck // the session's own
}
