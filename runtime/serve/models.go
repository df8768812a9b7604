package serve

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/codec/imaging"
	"github.com/sluice-gateway/sluice/runtime/codec/openinference"
	"github.com/sluice-gateway/sluice/runtime/codec/platform"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// Models is where models come from. Repository adapts repo.Repo.
type Models interface {
	Acquire(name, version string) (Model, error)
	Index() []repo.Status
	Load(ctx context.Context, name string) error
	Unload(ctx context.Context, name, version string) error
}

// Model is a borrowed version; it is released exactly once.
type Model interface {
	Meta() *repo.Meta
	Infer(ctx context.Context, req *batch.Request) (*batch.Result, error)
	Stats() batch.Stats
	Release()
}

// submitter is a Model that can run a request without anybody waiting for it.
type submitter interface {
	Submit(req *batch.Request, to batch.Receiver, out batch.Flusher) error
	Cancel(req *batch.Request, cause error)
	Batcher() *batch.Batcher
}

// Repository makes Models of a repo.Repo.
type Repository struct{ *repo.Repo }

// Acquire implements Models.
func (r Repository) Acquire(name, version string) (Model, error) {
	h, err := r.Repo.Acquire(name, version)
	if err != nil {
		return nil, err //nolint:wrapcheck // the repository's faults are what callers see
	}

	return h, nil
}

// compiled is what the codecs derive from a version's meta data, once.
type compiled struct {
	v2       *openinference.Model
	platform *platform.Model
	outputs  []string
	err      error
}

// cache keeps compiled models. A newer version under the same name and version replaces the older.
type cache struct {
	gate *imaging.Gate
	mu   sync.Mutex // held to write
	all  atomic.Pointer[map[*repo.Meta]*compiled]
}

func (c *cache) get(meta *repo.Meta) *compiled {
	if all := c.all.Load(); all != nil {
		if m := (*all)[meta]; m != nil {
			return m
		}
	}

	return c.add(meta)
}

func (c *cache) add(meta *repo.Meta) *compiled {
	c.mu.Lock()
	defer c.mu.Unlock()

	next := map[*repo.Meta]*compiled{}

	if all := c.all.Load(); all != nil {
		if m := (*all)[meta]; m != nil {
			return m
		}

		for k, v := range *all {
			if k.Name != meta.Name || k.Version != meta.Version {
				next[k] = v
			}
		}
	}

	m := &compiled{v2: &openinference.Model{Meta: meta}}
	if m.platform, m.err = platform.Compile(meta, c.gate); m.err == nil {
		m.v2.Pictures = m.platform.Pictures()
		m.outputs = m.platform.Outputs()
	}

	next[meta] = m
	c.all.Store(&next)

	return m
}
