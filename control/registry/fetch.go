package registry

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sluice-gateway/sluice/internal/pkgsource"
	"github.com/sluice-gateway/sluice/spec"
)

// Progress is how far the publication of a model is.
type Progress struct {
	// Stage is queued, fetching, or verifying: unpacked, its files are hashed on their way into the store.
	Stage string `json:"stage"`
	Bytes int64  `json:"bytes"`
	Total int64  `json:"total"` // -1 while it is unknown
}

// Stages of a publication.
const (
	stageQueued    = "queued"
	stageFetching  = "fetching"
	stageVerifying = "verifying"
)

// logEvery is how often a long fetch says in the log that it goes on.
const logEvery = 10 * time.Second

// remote reports whether the files of a model are to be fetched. The location of an external
// engine is where it answers, not where its files are.
func remote(m *spec.Model) bool {
	return pkgsource.Remote(m.SourceLocation) && (m.Type != string(spec.EngineExternal) || !isHTTP(m.SourceLocation))
}

// preflightRemote finds what is wrong with a model before its files are here.
func (g *Registry) preflightRemote(m *spec.Model) error {
	if g.cfg.Fetch == nil {
		return invalid(nil, "source_location", "must be an absolute path or a file:// URL")
	}

	if err := g.cfg.Fetch.Check(m.SourceLocation); err != nil {
		return err
	}

	if m.ConfigJSON == "" {
		return nil
	}

	_, err := configure(m, []byte(m.ConfigJSON), func(string) bool { return true })

	return err
}

// fetch brings the files of a model here; "" when they are.
func (g *Registry) fetch(ctx context.Context, m *spec.Model) (string, error) {
	if !remote(m) {
		return "", nil
	}

	if g.cfg.Fetch == nil {
		return "", g.preflightRemote(m)
	}

	begin := time.Now()
	said := begin
	log := g.log.With(slog.String("model_id", m.ID), slog.String("name", m.Name), slog.String("version", m.Version))

	log.Info("fetching a model package")

	last := Progress{Stage: stageFetching, Total: -1}
	g.note(m.ID, last)

	dir, err := g.cfg.Fetch.Fetch(ctx, m.ID, m.SourceLocation, func(done, total int64) {
		last.Bytes, last.Total = done, total
		g.note(m.ID, last)

		if now := time.Now(); now.Sub(said) >= logEvery {
			said = now

			log.Info("fetching a model package", slog.Int64("bytes", done), slog.Int64("total", total))
		}
	})
	if g.cfg.Hooks.Fetched != nil {
		g.cfg.Hooks.Fetched(last.Bytes, time.Since(begin), err)
	}

	if err != nil {
		return "", fmt.Errorf("publish model %s: %w", m.ID, err)
	}

	log.Info("model package fetched", slog.Int64("bytes", last.Bytes), slog.Duration("took", time.Since(begin)))

	return dir, nil
}

// discard removes what a fetch left.
func (g *Registry) discard(m *spec.Model) {
	if g.cfg.Fetch == nil || !remote(m) {
		return
	}

	if err := g.cfg.Fetch.Discard(m.ID); err != nil {
		g.log.Warn("cannot remove what a fetch left; the next start does it", slog.String("model_id", m.ID), slog.Any("error", err))
	}
}

// note keeps how far a publication is.
func (g *Registry) note(id string, p Progress) {
	g.mu.Lock()
	defer g.mu.Unlock()

	g.progress[id] = p
}

// verifying notes that the files of a model are here.
func (g *Registry) verifying(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()

	p := g.progress[id]
	p.Stage = stageVerifying

	if p.Total < p.Bytes {
		p.Total = p.Bytes
	}

	g.progress[id] = p
}

// forget ends what note has begun.
func (g *Registry) forget(id string) {
	g.mu.Lock()
	defer g.mu.Unlock()

	delete(g.progress, id)
}

// Progress tells how far a model is, while this process publishes it.
func (g *Registry) Progress(id string) (Progress, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()

	p, ok := g.progress[id]

	return p, ok
}

// Fetching sums up the fetches that this process is at: how many, how many bytes are here, and how many are
// known to be there.
func (g *Registry) Fetching() (fetches int, here, total int64) {
	g.mu.Lock()
	defer g.mu.Unlock()

	for _, p := range g.progress {
		if p.Stage != stageFetching {
			continue
		}

		fetches++
		here += p.Bytes
		total += max(p.Bytes, p.Total)
	}

	return fetches, here, total
}
