package api

import (
	"encoding/json"
	"fmt"

	"github.com/sluice-gateway/sluice/control/registry"
	"github.com/sluice-gateway/sluice/spec"
)

// modelItem is a model in a list.
type modelItem struct {
	ModelID         string         `json:"model_id"`
	Name            string         `json:"model_name"`
	Version         string         `json:"model_version"`
	Type            string         `json:"model_type"`
	Size            int64          `json:"model_size"`
	Status          string         `json:"model_status"`
	Source          string         `json:"model_source"`
	Tenant          string         `json:"tenant"`
	Project         string         `json:"project"`
	Owner           string         `json:"owner"`
	CreateAt        int64          `json:"create_at"`
	Description     string         `json:"description"`
	WorkspaceID     string         `json:"workspace_id"`
	InstallType     []string       `json:"install_type"`
	Specification   map[string]any `json:"specification"`
	MarketFlag      bool           `json:"market_flag"`
	PublishableFlag bool           `json:"publishable_flag"`
	Tunable         bool           `json:"tunable"`
	SourceCopy      string         `json:"source_copy,omitempty"`
	SourceType      string         `json:"source_type,omitempty"`
	ErrorMsg        string         `json:"error_msg,omitempty"` // why it failed
	// Fetch is how far a model is that is being published.
	Fetch *registry.Progress `json:"fetch_progress,omitempty"`
}

func (a *API) itemOf(m *spec.Model) modelItem {
	item := modelItem{
		ModelID: m.ID, Name: m.Name, Version: m.Version, Type: m.Type, Size: m.Package.SizeBytes,
		Status: string(m.Status), Source: "custom", Tenant: m.DomainID, Project: m.ProjectID, Owner: m.Owner,
		CreateAt: m.CreatedAt, Description: m.Description, WorkspaceID: m.WorkspaceID, InstallType: m.InstallType,
		Specification: map[string]any{}, SourceCopy: extraText(m, "source_copy"), SourceType: extraText(m, "source_type"),
		ErrorMsg: m.FailReason,
	}

	if p, ok := a.d.Registry.Progress(m.ID); ok && m.Status == spec.ModelPublishing {
		item.Fetch = &p
	}

	return item
}

// howFar tells the progress of a publication in words, "" when it is not known.
func (a *API) howFar(id string) string {
	p, ok := a.d.Registry.Progress(id)

	switch {
	case !ok:
		return ""
	case p.Total > 0 && p.Bytes < p.Total:
		return fmt.Sprintf(": %s, %d of %d bytes", p.Stage, p.Bytes, p.Total)
	default:
		return ": " + p.Stage
	}
}

// modelDetail is a model by itself. APIs, Config and Metrics are JSON inside a string.
type modelDetail struct {
	modelItem

	Runtime          string            `json:"runtime"`
	SourceLocation   string            `json:"source_location"`
	ExecutionCode    string            `json:"execution_code"`
	ImageAddress     string            `json:"image_address"`
	InputParams      json.RawMessage   `json:"input_params"`
	OutputParams     json.RawMessage   `json:"output_params"`
	Dependencies     json.RawMessage   `json:"dependencies"`
	Docs             json.RawMessage   `json:"model_docs"`
	Template         json.RawMessage   `json:"template,omitempty"`
	Metrics          string            `json:"model_metrics"`
	APIs             string            `json:"apis"`
	Config           string            `json:"config"`
	Algorithm        string            `json:"model_algorithm"`
	SourceJobID      string            `json:"source_job_id"`
	SourceJobVersion string            `json:"source_job_version"`
	Labels           []string          `json:"model_labels"`
	LabelsMap        map[string]any    `json:"labels_map"`
	Health           *spec.Health      `json:"health,omitempty"`
	ReadinessHealth  *spec.Health      `json:"readiness_health,omitempty"`
	StartupHealth    *spec.Health      `json:"startup_health,omitempty"`
	SHA256           string            `json:"sha256,omitempty"`
	Files            []spec.FileDigest `json:"files,omitempty"`
}

func (a *API) viewModel(m *spec.Model) modelDetail {
	d := modelDetail{
		modelItem: a.itemOf(m), Runtime: m.Runtime, SourceLocation: m.SourceLocation,
		ExecutionCode: extraText(m, "execution_code"), InputParams: extraList(m, "input_params"),
		OutputParams: extraList(m, "output_params"), Dependencies: extraList(m, "dependencies"),
		Docs: extraList(m, "model_docs"), Metrics: extraText(m, "model_metrics"),
		APIs: apisText(m), Config: configText(m), Algorithm: extraText(m, "model_algorithm"),
		SourceJobID: extraText(m, "source_job_id"), SourceJobVersion: extraText(m, "source_job_version"),
		Labels: labels(m), LabelsMap: map[string]any{"labels": labels(m)},
		Health: m.Config.Health, ReadinessHealth: m.Config.ReadinessHealth, StartupHealth: m.Config.StartupHealth,
		SHA256: m.Package.TreeSHA256, Files: m.Package.Files,
	}

	if d.Algorithm == "" {
		d.Algorithm = m.Config.ModelAlgorithm
	}

	if d.Metrics == "" {
		d.Metrics = configMember(m, "metrics", "{}")
	}

	if t, ok := m.Extra["template"]; ok {
		d.Template = json.RawMessage(t)
	}

	return d
}

// extraText is a stored field that is a string.
func extraText(m *spec.Model, name string) string {
	var s string
	if err := json.Unmarshal([]byte(m.Extra[name]), &s); err != nil {
		return "" // absent
	}

	return s
}

func extraList(m *spec.Model, name string) json.RawMessage {
	if text, ok := m.Extra[name]; ok {
		return json.RawMessage(text)
	}

	return json.RawMessage("[]")
}

func labels(m *spec.Model) []string {
	if m.Config.Serving == nil || m.Config.Serving.Labels == nil {
		return []string{}
	}

	return m.Config.Serving.Labels
}

// configText is config.json in one line.
func configText(m *spec.Model) string {
	text := m.ConfigJSON
	if text == "" {
		text = "{}"
	}

	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		return text
	}

	data, err := json.Marshal(v)
	if err != nil {
		return text
	}

	return string(data)
}

// configMember is a member of config.json as it was written.
func configMember(m *spec.Model, name, fallback string) string {
	var c map[string]json.RawMessage
	if err := json.Unmarshal([]byte(m.ConfigJSON), &c); err != nil || c[name] == nil {
		return fallback
	}

	return string(c[name])
}

// apisText is what the model can be asked: what config.json declares, or else its root.
func apisText(m *spec.Model) string {
	if text := configMember(m, "apis", ""); text != "" && text != "null" {
		return text
	}

	if text, ok := m.Extra["apis"]; ok {
		return text
	}

	return `[{"protocol":"http","url":"/","method":"post"}]`
}
