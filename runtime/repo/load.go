package repo

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/spec"
)

// defaultMaxBatch is the batch size of models that can batch and do not say how much.
const defaultMaxBatch = 64

// load brings src up beside what serves as v and swaps it in.
func (r *Repo) load(ctx context.Context, v *version, src Source) error {
	fail := func(err error) error {
		r.mu.Lock()
		defer r.mu.Unlock()

		reason := fault.From(err).Message()
		if ctx.Err() != nil {
			reason = "the load was cancelled"
		}

		if v.current != nil {
			// The old one serves on; only the reason tells that a reload failed.
			r.set(v, Ready, "the last load failed: "+reason)
		} else {
			r.set(v, Failed, reason)
		}

		return fmt.Errorf("load model %s/%s: %w", src.Name, src.Version, err)
	}

	if err := r.wait(ctx); err != nil {
		return fail(err)
	}

	if err := v.lock(ctx); err != nil {
		return fail(err)
	}
	defer v.unlock()

	r.mu.Lock()
	aside := r.aside(v)
	r.mu.Unlock()

	if aside {
		return nil
	}

	select {
	case r.slots <- struct{}{}:
		defer func() { <-r.slots }()
	case <-ctx.Done():
		return fail(ctx.Err())
	}

	start := time.Now()

	next, err := r.bring(ctx, v, src)
	if err != nil {
		return fail(err)
	}

	if err := r.swap(v, src, next); err != nil { //nolint:contextcheck // what serves lives as long as Run
		return fail(err)
	}

	r.log.Info("model ready", slog.String("model", src.Name), slog.String("version", src.Version),
		slog.String("provider", next.meta.Provider), slog.Int("max_batch_size", next.meta.MaxBatchSize),
		slog.Duration("took", time.Since(start).Round(time.Millisecond)))

	if r.hooks.Loaded != nil {
		r.hooks.Loaded(src.Name, src.Version, time.Since(start))
	}

	return nil
}

// swap makes next serve and retires what it replaces.
func (r *Repo) swap(v *version, src Source, next *loaded) error {
	r.mu.Lock()

	if r.life == nil || r.draining {
		r.mu.Unlock()

		return errors.Join(fault.New(fault.ShuttingDown, "The worker is shutting down."), next.sess.Close())
	}

	life := r.life
	r.wg.Go(func() { next.keep(life, r.log) })

	old := v.current
	v.current, v.src = next, src
	r.set(v, Ready, "")
	r.publish()
	r.mu.Unlock()

	if old != nil {
		old.retire()
	}

	return nil
}

// bring does everything up to being ready.
func (r *Repo) bring(ctx context.Context, v *version, src Source) (*loaded, error) {
	step := func(s State) {
		r.mu.Lock()
		defer r.mu.Unlock()

		if v.current == nil {
			r.set(v, s, "")
		}
	}

	if r.cfg.Fetch != nil {
		step(Fetching)

		dir, err := r.cfg.Fetch(ctx, src)
		if err != nil {
			return nil, fmt.Errorf("fetch: %w", err)
		}

		src.Dir = dir
	}

	step(Verifying)

	if err := verify(ctx, src); err != nil {
		return nil, err
	}

	step(Loading)

	p, err := readPackage(src)
	if err != nil {
		return nil, err
	}

	ls := r.loadSpec(ctx, src, p)

	sess, err := r.eng.Load(ctx, ls)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}

	sess = r.gate(sess, &ls)

	r.trimGraphs()

	step(Warming)

	l, err := r.warmed(ctx, src, p, sess)
	if err != nil {
		return nil, errors.Join(err, sess.Close())
	}

	return l, nil
}

// pack is a package as read from its directory.
type pack struct {
	dir    string
	model  string // file
	config spec.PackageConfig
	labels []string
}

// readPackage reads config.json, if there is one, and what it names.
func readPackage(src Source) (*pack, error) {
	p := &pack{dir: src.Dir}

	st, err := os.Stat(src.Dir)
	if err != nil {
		return nil, fault.Wrap(fault.ModelInvalid, err, "The package cannot be read.")
	}

	if !st.IsDir() {
		p.dir, p.model = filepath.Dir(src.Dir), filepath.Base(src.Dir)
		p.config.ModelType, p.config.Serving = string(spec.EngineONNX), &spec.Serving{}

		return p, nil
	}

	data, err := os.ReadFile(filepath.Join(p.dir, "config.json"))

	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.config.ModelType = string(spec.EngineONNX)
	case err != nil:
		return nil, fault.Wrap(fault.ModelInvalid, err, "config.json cannot be read.")
	default:
		if p.config, err = spec.ParsePackageConfig(data); err != nil {
			return nil, fault.Wrap(fault.ModelInvalid, err, "config.json is not valid: %v", err)
		}
	}

	p.config.ModelType = cmp.Or(p.config.ModelType, string(spec.EngineONNX))
	if err := p.config.CheckEngine(); err != nil {
		return nil, fault.Wrap(fault.ModelInvalid, err, "config.json is not valid: %v", err)
	}

	if p.config.Engine() != spec.EngineONNX {
		return nil, fault.New(fault.ModelInvalid, "A package of engine %s is not run by this worker.", p.config.Engine())
	}

	if p.config.Serving == nil {
		p.config.Serving = &spec.Serving{}
	}

	if p.model, err = p.findModel(); err != nil {
		return nil, err
	}

	p.labels, err = p.readLabels()

	return p, err
}

// findModel is the model file: the named one, model.onnx, or the only one of its kind.
func (p *pack) findModel() (string, error) {
	if name := p.config.Serving.ModelFile; name != "" {
		if !filepath.IsLocal(name) {
			return "", fault.New(fault.ModelInvalid, "serving.model_file %q is not inside the package.", name)
		}

		return name, nil
	}

	const usual = "model.onnx"
	if _, err := os.Stat(filepath.Join(p.dir, usual)); err == nil {
		return usual, nil
	}

	found, err := filepath.Glob(filepath.Join(p.dir, "*.onnx"))
	if err != nil || len(found) != 1 {
		return "", fault.New(fault.ModelInvalid, "The package holds no %s, and %d other ONNX files.", usual, len(found))
	}

	return filepath.Base(found[0]), nil
}

// maxLabelBytes bounds a labels file.
const maxLabelBytes = 16 << 20

func (p *pack) readLabels() ([]string, error) {
	s := p.config.Serving
	if s.LabelsFile == "" {
		return s.Labels, nil
	}

	if !filepath.IsLocal(s.LabelsFile) {
		return nil, fault.New(fault.ModelInvalid, "serving.labels_file %q is not inside the package.", s.LabelsFile)
	}

	path := filepath.Join(p.dir, s.LabelsFile)
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() || st.Size() > maxLabelBytes {
		return nil, fault.Wrap(fault.ModelInvalid, err, "The labels file %q cannot be read.", s.LabelsFile)
	}

	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.ModelInvalid, err, "The labels file %q cannot be read.", s.LabelsFile)
	}

	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))

	var labels []string
	for line := range strings.Lines(string(data)) {
		labels = append(labels, strings.TrimRight(line, "\r\n"))
	}

	for len(labels) > 0 && labels[len(labels)-1] == "" {
		labels = labels[:len(labels)-1]
	}

	return labels, nil
}

// loadSpec tells the engine what the package asks for, within the cores there are.
func (r *Repo) loadSpec(ctx context.Context, src Source, p *pack) engine.LoadSpec {
	s := p.config.Serving
	ls := engine.LoadSpec{Path: filepath.Join(p.dir, p.model), IntraOpThreads: 1, InterOpThreads: 1}

	if t := s.Threads; t != nil {
		ls.IntraOpThreads, ls.InterOpThreads = max(1, t.IntraOp), max(1, t.InterOp)
	}

	instances := r.instances(p)
	if most := max(1, r.cfg.Cores/instances); ls.IntraOpThreads > most {
		r.log.Warn("fewer threads than asked for", slog.String("model", src.Name), slog.Int("asked", ls.IntraOpThreads),
			slog.Int("used", most), slog.Int("cores", r.cfg.Cores))
		ls.IntraOpThreads = most
	}

	ls.InterOpThreads = min(ls.InterOpThreads, max(1, r.cfg.Cores/instances/ls.IntraOpThreads))

	if e := s.Execution; e != nil {
		if e.Provider != "" {
			ls.Providers = append(ls.Providers, e.Provider)
		}

		ls.Providers = append(ls.Providers, e.Fallback...)
		ls.DeviceID, ls.ArenaLimitBytes, ls.Strict = e.DeviceID, e.ArenaLimitBytes, e.Strict

		if e.CacheOptimizedModel {
			ls.OptimizedModelPath = r.optimisedPath(ctx, src, p)
		}
	}

	return ls
}

// instances is the number of executors, within the cores there are.
func (r *Repo) instances(p *pack) int {
	return max(1, min(p.config.Serving.Instances, r.cfg.Cores))
}

// batchConfig is the package's batching for a session of the given batch size.
func batchConfig(src Source, p *pack, size, executors int) batch.Config {
	c := batch.Config{Name: src.Name, MaxBatchSize: size, Executors: executors}

	b := p.config.Serving.Batching
	if b == nil {
		return c
	}

	const us = time.Microsecond

	c.Alone = b.Disabled
	c.PreferredBatchSizes = b.PreferredBatchSizes
	c.MaxQueueDelay = time.Duration(b.MaxQueueDelayMicroseconds) * us
	c.MaxQueueRows = b.MaxQueueRows
	c.PriorityLevels, c.DefaultPriority, c.StrictPriority = b.PriorityLevels, b.DefaultPriority, b.StrictPriority
	c.DefaultTimeout = time.Duration(b.DefaultTimeoutMicroseconds) * us
	c.PadToBuckets = b.PadToBuckets

	if size == 1 {
		c.PreferredBatchSizes, c.MaxQueueDelay, c.PadToBuckets = nil, 0, false
	}

	return c
}
