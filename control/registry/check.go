package registry

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/apischema"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

const (
	configFile = "config.json"
	modelFile  = "model.onnx"
)

// preflight finds at once what is wrong with a model: its source, config.json, and whether
// the files are there that its engine needs.
func (g *Registry) preflight(m *spec.Model) error {
	if remote(m) {
		return g.preflightRemote(m)
	}

	source, err := g.source(m)
	if err != nil {
		return err
	}

	if source == "" {
		_, err := configure(m, []byte(m.ConfigJSON), nil)

		return err
	}

	info, err := os.Stat(source)

	switch {
	case errors.Is(err, fs.ErrNotExist), err != nil && strings.Contains(err.Error(), "not a directory"):
		return invalid(err, "source_location", "%s does not exist", source)
	case err != nil:
		return invalid(err, "source_location", "%s cannot be read", source)
	case info.Mode().IsRegular():
		name := filepath.Base(source)
		if strings.EqualFold(filepath.Ext(name), ".onnx") {
			name = modelFile
		}

		_, err := configure(m, []byte(m.ConfigJSON), func(file string) bool { return file == name })

		return err
	case !info.IsDir():
		return invalid(nil, "source_location", "%s is neither a directory nor a file", source)
	}

	root, err := os.OpenRoot(source)
	if err != nil {
		return invalid(err, "source_location", "%s cannot be read", source)
	}
	defer root.Close() //nolint:errcheck // read only

	_, _, err = configureRoot(m, root)

	return err
}

// configureRoot configures m from the files below root.
func configureRoot(m *spec.Model, root *os.Root) (spec.PackageConfig, string, error) {
	text := m.ConfigJSON

	if text == "" {
		data, err := readConfig(root)
		if err != nil {
			return spec.PackageConfig{}, "", err
		}

		text = string(data)
	}

	c, err := configure(m, []byte(text), func(file string) bool {
		info, err := root.Stat(file)

		return err == nil && info.Mode().IsRegular()
	})
	if err == nil {
		err = readCAs(root, &c)
	}

	return c, text, err
}

// readConfig reads config.json; a package may do without.
func readConfig(root *os.Root) ([]byte, error) {
	f, err := root.Open(configFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}

	if err != nil {
		return nil, invalid(err, configFile, "cannot be read")
	}
	defer f.Close() //nolint:errcheck // read only

	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, invalid(err, configFile, "is not a file")
	}

	data, err := io.ReadAll(io.LimitReader(f, spec.MaxPackageConfigBytes+1))
	if err != nil {
		return nil, invalid(err, configFile, "cannot be read")
	}

	return data, nil
}

// configure parses config.json and holds it against the model and its files. has tells
// which files there are; nil means that the package has none but config.json.
func configure(m *spec.Model, data []byte, has func(file string) bool) (c spec.PackageConfig, err error) {
	if len(data) > 0 {
		if c, err = spec.ParsePackageConfig(data); err != nil {
			return c, badConfig(err)
		}
	}

	if c.ModelType == "" {
		c.ModelType = m.Type
	}

	if asked, said := engineOf(m.Type), engineOf(c.ModelType); asked != said && asked != "" && said != "" {
		return c, invalid(nil, "model_type", "is %s, but config.json says %s", m.Type, c.ModelType)
	}

	if c.Engine() == spec.EngineExternal && len(c.Endpoints) == 0 && isHTTP(m.SourceLocation) {
		c.Endpoints = []spec.Endpoint{{URL: m.SourceLocation}}
	}

	if err := requestedAPIs(m, &c); err != nil {
		return c, err
	}

	if err := c.CheckEngine(); err != nil {
		return c, badConfig(err)
	}

	if err := checkSchemas(&c); err != nil {
		return c, err
	}

	return c, checkFiles(&c, has)
}

// checkSchemas compiles the schemas that gateways will check requests against.
func checkSchemas(c *spec.PackageConfig) error {
	if !c.SchemaCheck {
		return nil
	}

	if c.Engine() == spec.EngineONNX {
		return invalid(nil, "schema_check", "is for models of type Custom and External: others check their requests by themselves")
	}

	for i := range c.APIs {
		if _, err := apischema.Of(&c.APIs[i]); err != nil {
			return invalid(err, fmt.Sprintf("apis[%d].request.data", i), "is not a schema that requests can be checked against: %v", err)
		}
	}

	return nil
}

// engineOf is the engine that a model type names; "" for the names of frameworks, which
// leave it open.
func engineOf(modelType string) spec.EngineKind {
	switch modelType {
	case string(spec.EngineONNX), string(spec.EngineCustom), string(spec.EngineExternal), "Image":
		c := spec.PackageConfig{ModelType: modelType}

		return c.Engine()
	default:
		return ""
	}
}

// requestedAPIs takes the apis of the request where config.json declares none.
func requestedAPIs(m *spec.Model, c *spec.PackageConfig) error {
	text, ok := m.Extra["apis"]
	if !ok || len(c.APIs) > 0 {
		return nil
	}

	var apis []struct {
		Protocol string `json:"protocol"`
		URL      string `json:"url"`
		Method   string `json:"method"`
	}
	if err := json.Unmarshal([]byte(text), &apis); err != nil {
		return invalid(err, "apis", "must be an array of objects")
	}

	for _, a := range apis {
		c.APIs = append(c.APIs, spec.API{Protocol: a.Protocol, URL: a.URL, Method: a.Method})
	}

	return nil
}

func checkFiles(c *spec.PackageConfig, has func(file string) bool) error {
	if has == nil {
		has = func(string) bool { return false }
	}

	if f := c.TLSCACert; f != "" && !has(f) {
		return invalid(nil, "tls_ca_cert", "names the file %s, which the package does not hold", f)
	}

	if c.Engine() != spec.EngineONNX {
		for i := range c.Endpoints {
			if f := c.Endpoints[i].CACert; f != "" && !has(f) {
				return invalid(nil, fmt.Sprintf("endpoints[%d].ca_cert", i), "names the file %s, which the package does not hold", f)
			}
		}

		return nil
	}

	file := modelFile
	if c.Serving != nil && c.Serving.ModelFile != "" {
		file = c.Serving.ModelFile
	}

	if !has(file) {
		return invalid(nil, "source_location", "holds no file %s", file)
	}

	if c.Serving != nil && c.Serving.LabelsFile != "" && !has(c.Serving.LabelsFile) {
		return invalid(nil, "serving.labels_file", "names the file %s, which the package does not hold", c.Serving.LabelsFile)
	}

	return nil
}

// badConfig names the fields of config.json that are wrong.
func badConfig(err error) error {
	var texts []string

	for _, e := range web.Flatten(err) {
		var f *spec.FieldError
		if errors.As(e, &f) && f.Path != "" {
			texts = append(texts, fmt.Sprintf("field [%s] %s", f.Path, f.Msg))
		} else {
			texts = append(texts, e.Error())
		}
	}

	const most = 10
	if n := len(texts) - most; n > 0 {
		texts = append(texts[:most], fmt.Sprintf("and %d more mistakes", n))
	}

	return fault.New(fault.ModelInvalid, "The model package cannot be used. %s: %s.", configFile, strings.Join(texts, "; "))
}

func invalid(cause error, field, format string, args ...any) error {
	return fault.Wrap(fault.ModelInvalid, cause, "The model package cannot be used. The field [%s] %s.", field, fmt.Sprintf(format, args...))
}

func isHTTP(s string) bool {
	return strings.HasPrefix(s, "http://") || strings.HasPrefix(s, "https://")
}

// source is the local path that source_location means; "" when the model needs no files.
func (g *Registry) source(m *spec.Model) (string, error) {
	loc := m.SourceLocation

	switch {
	case loc == "" && m.ConfigJSON != "":
		return "", nil
	case loc == "":
		return "", invalid(nil, "source_location", "is required and cannot be empty")
	case m.Type == string(spec.EngineExternal) && isHTTP(loc):
		return "", nil
	}

	if u, ok := strings.CutPrefix(loc, "file://"); ok {
		p, err := filePath(u)
		if err != nil {
			return "", err
		}

		loc = p
	}

	if !filepath.IsAbs(loc) || strings.ContainsRune(loc, 0) {
		return "", invalid(nil, "source_location", "must be an absolute path or a file:// URL")
	}

	loc = filepath.Clean(loc)

	return loc, g.permitted(loc)
}

// filePath reads what follows file:// in a URL.
func filePath(rest string) (string, error) {
	u, err := url.Parse("file://" + rest)
	if err != nil || u.Host != "" && u.Host != "localhost" || u.RawQuery != "" || u.Fragment != "" {
		return "", invalid(err, "source_location", "is not a file:// URL of this machine")
	}

	return path.Clean("/" + u.Path), nil
}

// permitted holds a path, and what links make of it, against the configured directories.
func (g *Registry) permitted(loc string) error {
	target, err := filepath.EvalSymlinks(loc)
	if err != nil {
		target = loc // preflight tells what is wrong
	}

	for _, dir := range g.cfg.Hidden {
		if within(target, dir) || within(dir, target) {
			return invalid(nil, "source_location", "must not be in the data directory of the platform")
		}
	}

	if len(g.cfg.SourceRoots) == 0 {
		return nil
	}

	for _, dir := range g.cfg.SourceRoots {
		if within(target, dir) {
			return nil
		}
	}

	return invalid(nil, "source_location", "is outside of the directories that packages may come from")
}

func within(p, dir string) bool {
	if target, err := filepath.EvalSymlinks(dir); err == nil {
		dir = target
	}

	rel, err := filepath.Rel(dir, p)

	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}

// importPackage copies the files of m and configures it from the copy. fetched is where they
// are when they came from elsewhere.
func (g *Registry) importPackage(ctx context.Context, m *spec.Model, fetched string) error {
	source := fetched

	if source == "" {
		var err error
		if source, err = g.source(m); err != nil {
			return err
		}
	}

	overlay := map[string][]byte{}
	if m.ConfigJSON != "" {
		overlay[configFile] = []byte(m.ConfigJSON)
	}

	if source == "" && len(overlay) == 0 {
		c, err := configure(m, nil, nil)
		m.Config = c

		return err
	}

	ref, err := g.pkgs.Import(ctx, source, overlay)
	if err != nil {
		return fmt.Errorf("publish model %s: %w", m.ID, err)
	}

	root, err := os.OpenRoot(ref.Dir)
	if err != nil {
		return fmt.Errorf("publish model %s: %w", m.ID, err)
	}
	defer root.Close() //nolint:errcheck // read only

	c, text, err := configureRoot(m, root)
	if err != nil {
		return err
	}

	m.Package, m.Config, m.ConfigJSON = ref, c, text

	return nil
}
