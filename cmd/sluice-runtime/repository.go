package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// maxEntries bounds the models of a repository, and the versions of a model.
const maxEntries = 10_000

// policies are the values of --version-policy: one for all models, or NAME=POLICY.
type policies struct {
	all    repo.Policy
	models map[string]repo.Policy
}

// String implements flag.Value.
func (p *policies) String() string { return "" }

// Set implements flag.Value.
func (p *policies) Set(value string) error {
	name, text, named := strings.Cut(value, "=")
	if !named {
		name, text = "", value
	}

	policy, err := parsePolicy(text)

	switch {
	case err != nil:
		return err
	case !named:
		p.all = policy
	case name == "":
		return fmt.Errorf("%q names no model", value)
	default:
		if p.models == nil {
			p.models = map[string]repo.Policy{}
		}

		p.models[name] = policy
	}

	return nil
}

func parsePolicy(text string) (repo.Policy, error) {
	kind, rest, _ := strings.Cut(text, ":")

	switch kind {
	case "all":
		if rest == "" {
			return repo.Policy{}, nil
		}
	case "latest":
		n := 1

		if rest != "" {
			var err error
			if n, err = strconv.Atoi(rest); err != nil {
				n = 0
			}
		}

		if n > 0 {
			return repo.Policy{Latest: n}, nil
		}
	case "specific":
		if list := strings.Split(rest, ","); rest != "" && !slices.Contains(list, "") {
			return repo.Policy{Specific: list}, nil
		}
	}

	return repo.Policy{}, fmt.Errorf("want all, latest:N or specific:V,V, got %q", text)
}

// scanned is a repository whose models lie in a directory, which is looked at when the worker starts
// and whenever a model is to be loaded: NAME/VERSION/ with a package, or a package in NAME/ as version 1.
type scanned struct {
	serve.Repository

	dir string
}

// Load implements serve.Models: what is new in the directory is added, what is gone is unloaded, and
// what serves is loaded anew beside what serves.
func (s *scanned) Load(ctx context.Context, name string) error {
	sources, err := s.sources(name)
	if err != nil {
		return err
	}

	if len(sources) == 0 {
		return fault.New(fault.ModelNotFound, "Model %q does not exist.", clip(name))
	}

	var errs []error

	for _, src := range sources {
		errs = append(errs, s.Add(ctx, src))
	}

	for _, have := range s.Index() {
		gone := have.Name == name && !slices.ContainsFunc(sources, func(src repo.Source) bool { return src.Version == have.Version })

		switch {
		case !gone:
		case have.State == repo.Unloaded: // seen so in the index since the last load
			s.Forget(name, have.Version)
		default:
			errs = append(errs, s.Unload(ctx, name, have.Version))
		}
	}

	return errors.Join(errs...)
}

// models names the models of the directory.
func (s *scanned) models() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("read the model repository: %w", err)
	}

	var names []string

	for _, e := range entries {
		if st, err := os.Stat(filepath.Join(s.dir, e.Name())); err == nil && st.IsDir() && usable(e.Name()) {
			names = append(names, e.Name())
		}
	}

	if len(names) > maxEntries {
		return nil, fmt.Errorf("the model repository holds more than %d models", maxEntries)
	}

	return names, nil
}

// sources lists the versions of a model.
func (s *scanned) sources(name string) ([]repo.Source, error) {
	if !usable(name) {
		return nil, nil
	}

	dir := filepath.Join(s.dir, name)
	if isPackage(dir) {
		return []repo.Source{{Name: name, Version: "1", Dir: dir}}, nil
	}

	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return nil, nil
		}

		return nil, fault.Wrap(fault.ModelInvalid, err, "The directory of model %q cannot be read.", clip(name))
	}

	var list []repo.Source

	for _, e := range entries {
		if version := filepath.Join(dir, e.Name()); usable(e.Name()) && isPackage(version) {
			list = append(list, repo.Source{Name: name, Version: e.Name(), Dir: version})
		}
	}

	if len(list) > maxEntries {
		return nil, fault.New(fault.ModelInvalid, "Model %q has more than %d versions.", clip(name), maxEntries)
	}

	// The newest first: what the policy puts aside is not loaded before.
	slices.SortFunc(list, func(a, b repo.Source) int { return repo.CompareVersions(b.Version, a.Version) })

	return list, nil
}

// usable reports whether a name is one of a directory right inside, and not a hidden one.
func usable(name string) bool {
	return name != "" && name[0] != '.' && len(name) <= 255 && !strings.ContainsAny(name, "/\\\x00")
}

// isPackage reports whether dir holds what a package must have.
func isPackage(dir string) bool {
	if st, err := os.Stat(filepath.Join(dir, "config.json")); err == nil && st.Mode().IsRegular() {
		return true
	}

	found, err := filepath.Glob(filepath.Join(escape(dir), "*.onnx"))

	return err == nil && len(found) > 0
}

// escape takes the meaning from the signs that patterns have.
func escape(path string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`).Replace(path)
}

func clip(name string) string {
	const most = 100
	if len(name) > most {
		return strings.ToValidUTF8(name[:most], "") + "..."
	}

	return name
}

// loadAll loads every model of the repository. Those that fail are left to the index and to another try, as
// long as one serves or there are none.
func (w *worker) loadAll(ctx context.Context, models *scanned) error {
	start := time.Now()

	names, err := models.models()
	if err != nil {
		return w.fail(ctx, err)
	}

	var g errgroup.Group

	g.SetLimit(max(2, repo.Cores()))

	for _, name := range names {
		g.Go(func() error {
			if err := models.Load(ctx, name); err != nil && ctx.Err() == nil {
				w.log.ErrorContext(ctx, "a model cannot be loaded", slog.Any("model", name), slog.Any("error", err))
			}

			return nil
		})
	}

	_ = g.Wait() // always nil

	if ctx.Err() != nil {
		return nil //nolint:nilerr // told to stop while loading
	}

	ready := 0

	for _, s := range models.Index() {
		if s.State == repo.Ready {
			ready++
		}
	}

	if ready == 0 && len(names) > 0 {
		return w.fail(ctx, fault.New(fault.ModelInvalid, "None of the %d models of the repository can be loaded.", len(names)))
	}

	w.state.SetReady()
	w.log.InfoContext(ctx, "ready", slog.Int("models", len(names)), slog.Int("versions", ready), slog.Duration("took", time.Since(start)))

	return nil
}
