package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// maxCascade bounds what one deletion with cascade removes.
const maxCascade = 20

type modelIn struct {
	Name           string   `json:"model_name"`
	Version        string   `json:"model_version"`
	Type           string   `json:"model_type"`
	SourceLocation string   `json:"source_location"`
	Runtime        string   `json:"runtime"`
	InitialConfig  string   `json:"initial_config"`
	InstallType    []string `json:"install_type"`
	Description    string   `json:"description"`
	WorkspaceID    string   `json:"workspace_id"`

	modelExtra
}

// modelExtra are fields that are checked, kept and shown, and have no effect here.
type modelExtra struct {
	Algorithm        *string          `json:"model_algorithm"`
	Metrics          *string          `json:"model_metrics"`
	SourceCopy       *string          `json:"source_copy"`
	SourceType       *string          `json:"source_type"`
	SourceJobID      *string          `json:"source_job_id"`
	SourceJobVersion *string          `json:"source_job_version"`
	ExecutionCode    *string          `json:"execution_code"`
	Docs             []guideDoc       `json:"model_docs"`
	Dependencies     []dependency     `json:"dependencies"`
	APIs             []map[string]any `json:"apis"`
	InputParams      []map[string]any `json:"input_params"`
	OutputParams     []map[string]any `json:"output_params"`
	Template         map[string]any   `json:"template"`
}

type guideDoc struct {
	Name string `json:"doc_name"`
	URL  string `json:"doc_url"`
}

type dependency struct {
	Installer string              `json:"installer"`
	Packages  []dependencyPackage `json:"packages"`
}

type dependencyPackage struct {
	Name      string `json:"package_name"`
	Version   string `json:"package_version,omitempty"`
	Restraint string `json:"restraint,omitempty"`
}

func (a *API) createModel(r *web.Request) (any, error) {
	var in modelIn
	if err := r.Decode(&in); err != nil {
		return nil, err
	}

	if err := in.check(); err != nil {
		return nil, err
	}

	id, err := newUUID()
	if err != nil {
		return nil, err
	}

	m := &spec.Model{
		ID: id, ProjectID: project(r), DomainID: r.Principal.DomainID, Owner: r.Principal.UserID,
		WorkspaceID: cmp.Or(in.WorkspaceID, "0"), Name: in.Name, Version: in.Version, Type: in.Type,
		Description: in.Description, SourceLocation: in.SourceLocation, InstallType: in.installTypes(),
		Runtime: in.Runtime, ConfigJSON: in.InitialConfig, CreatedAt: a.nowMillis(), Extra: in.stored(),
	}

	if err := a.d.Registry.Create(r.Context(), m); err != nil {
		return nil, err
	}

	return map[string]string{"model_id": id}, nil
}

func (in *modelIn) check() error {
	var errs []error

	bad := func(path, format string, args ...any) {
		errs = append(errs, &spec.FieldError{Path: path, Msg: fmt.Sprintf(format, args...)})
	}

	required := func(path, value string, check func(string) error) {
		if value == "" {
			bad(path, "is required and cannot be empty")
		} else if err := check(value); err != nil {
			bad(path, "%s", err)
		}
	}

	required("model_name", in.Name, spec.ValidateModelName)
	required("model_version", in.Version, spec.ValidateModelVersion)
	required("model_type", in.Type, func(s string) error {
		if !slices.Contains(spec.ModelTypes(), s) {
			return errors.New("must be one of " + strings.Join(spec.ModelTypes(), ", "))
		}

		return nil
	})

	if err := spec.ValidateDescription(in.Description); err != nil {
		bad("description", "%s", err)
	}

	if in.SourceLocation == "" && in.InitialConfig == "" {
		bad("source_location", "is required and cannot be empty")
	}

	for path, v := range map[string]string{
		"source_location": in.SourceLocation, "runtime": in.Runtime, "workspace_id": in.WorkspaceID,
	} {
		if len(v) > 4096 || strings.ContainsRune(v, 0) {
			bad(path, "must have at most 4096 bytes and no NUL character")
		}
	}

	for i, t := range in.InstallType {
		if !slices.Contains([]string{"real-time", "realtime", "batch", "edge"}, t) {
			bad(fmt.Sprintf("install_type[%d]", i), "must be real-time, batch or edge")
		}
	}

	in.modelExtra.check(bad)

	return web.Invalid(errs...)
}

func (in *modelExtra) check(bad func(path, format string, args ...any)) {
	if in.SourceCopy != nil && *in.SourceCopy != "true" && *in.SourceCopy != "false" {
		bad("source_copy", "must be true or false, as a string")
	}

	if in.SourceType != nil && *in.SourceType != "" && *in.SourceType != "auto" {
		bad("source_type", "must be auto")
	}

	if len(in.Docs) > 3 {
		bad("model_docs", "must have at most 3 elements")
	}

	for i, d := range in.Docs {
		path := fmt.Sprintf("model_docs[%d]", i)
		if n := utf8.RuneCountInString(d.Name); n < 1 || n > 48 {
			bad(path+".doc_name", "must have 1 to 48 characters")
		}

		if !strings.HasPrefix(d.URL, "http://") && !strings.HasPrefix(d.URL, "https://") {
			bad(path+".doc_url", "must be an http or https URL")
		}
	}

	for i, d := range in.Dependencies {
		path := fmt.Sprintf("dependencies[%d]", i)
		if d.Installer != "pip" {
			bad(path+".installer", "must be pip")
		}

		for j, p := range d.Packages {
			if p.Name == "" || strings.ContainsAny(p.Name+p.Version, `&!'"<>=`) {
				bad(fmt.Sprintf("%s.packages[%d].package_name", path, j), "is required, without any of &!'\"<>=")
			}

			if !slices.Contains([]string{"", "EXACT", "ATLEAST", "ATMOST"}, p.Restraint) {
				bad(fmt.Sprintf("%s.packages[%d].restraint", path, j), "must be EXACT, ATLEAST or ATMOST")
			}
		}
	}
}

// installTypes spells and completes the list as the platform does.
func (in *modelIn) installTypes() []string {
	if len(in.InstallType) == 0 {
		return []string{"real-time", "edge", "batch"}
	}

	out := make([]string, 0, len(in.InstallType))

	for _, t := range in.InstallType {
		if t == "realtime" {
			t = "real-time"
		}

		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}

	return out
}

// stored are the fields that are only kept, as JSON by name.
func (in *modelIn) stored() map[string]string {
	data, err := json.Marshal(in.modelExtra)
	if err != nil {
		panic("BUG: decoded JSON does not encode: " + err.Error())
	}

	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		panic("BUG: encoded JSON does not decode: " + err.Error())
	}

	out := make(map[string]string)

	for name, raw := range fields {
		if s := string(raw); s != "null" {
			out[name] = s
		}
	}

	return out
}

func (a *API) showModel(r *web.Request) (any, error) {
	it, err := a.model(r)
	if err != nil {
		return nil, err
	}

	return a.viewModel(&it.Value), nil
}

type deleteFailure struct {
	ModelID string `json:"model_id"`
	Code    string `json:"error_code"`
	Msg     string `json:"error_msg"`
}

func (a *API) deleteModel(r *web.Request) (any, error) {
	q := r.Query()
	cascade := q.Bool("cascade")

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.model(r)
	if err != nil {
		return nil, err
	}

	ids := []string{it.ID}

	if cascade {
		if ids, err = a.versionsOf(r, &it.Value); err != nil {
			return nil, err
		}
	}

	deleted, failed := []string{}, []deleteFailure{}

	for _, id := range ids {
		err := a.d.Registry.Delete(r.Context(), id)
		if err == nil || errors.Is(err, store.ErrNotFound) {
			deleted = append(deleted, id)

			continue
		}

		f := fault.From(err)
		if f.Code == fault.Internal {
			a.log.Error("cannot delete a model", slog.String("model_id", id), slog.String("request_id", r.ID), slog.Any("error", err))
		}

		failed = append(failed, deleteFailure{ModelID: id, Code: f.Code.Wire(), Msg: f.Message()})
	}

	return map[string]any{"delete_success_list": deleted, "delete_failed_list": failed}, nil
}

// versionsOf lists m and the other versions of its name.
func (a *API) versionsOf(r *web.Request, m *spec.Model) ([]string, error) {
	index, _, err := a.st.Index.ListPrefix(r.Context(), store.IndexKey(store.IndexModel, m.ProjectID, m.Name)+"/")
	if err != nil {
		return nil, fmt.Errorf("list versions: %w", err)
	}

	ids := []string{m.ID}

	for _, it := range index {
		if it.Value != m.ID && len(ids) < maxCascade {
			ids = append(ids, it.Value)
		}
	}

	return ids, nil
}

// modelFilter is what ListModels asks for.
type modelFilter struct {
	name, version, status, kind, notKind, description, workspace string
	exact                                                        bool
}

func (f *modelFilter) match(m *spec.Model) bool {
	name := m.Name == f.name
	if !f.exact {
		name = strings.Contains(strings.ToLower(m.Name), strings.ToLower(f.name))
	}

	return (f.name == "" || name) &&
		(f.version == "" || m.Version == f.version) &&
		(f.status == "" || string(m.Status) == f.status) &&
		(f.kind == "" || m.Type == f.kind) &&
		(f.notKind == "" || m.Type != f.notKind) &&
		(f.workspace == "" || m.WorkspaceID == f.workspace) &&
		strings.Contains(strings.ToLower(m.Description), strings.ToLower(f.description))
}

func (a *API) listModels(r *web.Request) (any, error) {
	q := r.Query()
	f := modelFilter{
		name: q.String("model_name"), exact: q.Bool("exact_match"), version: q.String("model_version"),
		status:      q.Enum("model_status", "", "publishing", "published", "failed", "building", "building_failed"),
		kind:        q.Enum("model_type", "", spec.ModelTypes()...),
		notKind:     q.Enum("not_model_type", "", spec.ModelTypes()...),
		description: q.String("description"), workspace: q.String("workspace_id"),
	}
	sortBy := q.Enum("sort_by", "create_at", "create_at", "model_version", "model_size")
	order := q.Enum("order", "desc", "asc", "desc")
	page := q.Page()

	if f.kind != "" && f.notKind != "" {
		return nil, web.Fieldf("not_model_type", "excludes model_type")
	}

	if err := q.Err(); err != nil {
		return nil, err
	}

	models, _, err := a.st.Models.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list models: %w", err)
	}

	models = slices.DeleteFunc(models, func(m spec.Model) bool { return m.ProjectID != project(r) || !f.match(&m) })
	sortModels(models, sortBy, order)

	views := []modelItem{}
	for _, m := range web.Cut(page, models) {
		views = append(views, a.itemOf(&m))
	}

	return map[string]any{"total_count": len(models), "count": len(views), "models": views}, nil
}

func sortModels(models []spec.Model, by, order string) {
	slices.SortStableFunc(models, func(x, y spec.Model) int {
		var c int

		switch by {
		case "model_version":
			c = compareVersions(x.Version, y.Version)
		case "model_size":
			c = cmp.Compare(x.Package.SizeBytes, y.Package.SizeBytes)
		}

		c = cmp.Or(c, cmp.Compare(x.CreatedAt, y.CreatedAt), strings.Compare(x.ID, y.ID))
		if order == "desc" {
			c = -c
		}

		return c
	})
}

// compareVersions compares number by number: 1.0.10 is after 1.0.9.
func compareVersions(x, y string) int {
	xs, ys := strings.Split(x, "."), strings.Split(y, ".")
	for i := range min(len(xs), len(ys)) {
		if c := cmp.Or(cmp.Compare(len(xs[i]), len(ys[i])), strings.Compare(xs[i], ys[i])); c != 0 {
			return c
		}
	}

	return cmp.Compare(len(xs), len(ys))
}

func (a *API) listRuntimes(*web.Request) (any, error) {
	runtime := func(engine, name string) map[string]any {
		return map[string]any{
			"ai_engine": engine, "runtimes": []string{name}, "request_mode": []string{"sync"},
			"accelerators": []string{"cpu"}, "arch": []string{"X86", "ARM"}, "status_list": []string{"normal"},
			"image_source": []string{},
		}
	}
	list := []map[string]any{
		runtime("ONNX", "onnxruntime1.30"), runtime("Custom", "process"), runtime("External", "http"),
	}

	return map[string]any{"total_count": len(list), "count": len(list), "engine_runtimes": list}, nil
}
