package spec

// ModelStatus is the life of a model in the registry (v1 names).
type ModelStatus string

// Model statuses.
const (
	ModelPublishing ModelStatus = "publishing"
	ModelPublished  ModelStatus = "published"
	ModelFailed     ModelStatus = "failed"
)

// Model is one immutable version of a model package.
type Model struct {
	ID          string `json:"id"`
	ProjectID   string `json:"project_id"`
	DomainID    string `json:"domain_id"`
	WorkspaceID string `json:"workspace_id"`
	Owner       string `json:"owner"` // user id
	Name        string `json:"name"`
	Version     string `json:"version"`
	// Type is model_type of the v1 API: ONNX, Custom, External, Image, TensorFlow …
	Type           string      `json:"type"`
	Description    string      `json:"description,omitempty"`
	SourceLocation string      `json:"source_location"`
	InstallType    []string    `json:"install_type,omitempty"`
	Runtime        string      `json:"runtime,omitempty"`
	Status         ModelStatus `json:"status"`
	FailReason     string      `json:"fail_reason,omitempty"`
	// Deleting models take no new users; they go as soon as nobody uses them.
	Deleting bool `json:"deleting,omitempty"`
	// Package tells where the files are on the control machine and what they hash to.
	Package PackageRef `json:"package"`
	// ConfigJSON is config.json as given; Config is the same, parsed.
	ConfigJSON string        `json:"config_json,omitempty"`
	Config     PackageConfig `json:"config"`
	// Extra keeps v1 fields that Sluice only stores and shows (model_docs, dependencies …), as JSON.
	Extra     map[string]string `json:"extra,omitempty"`
	CreatedAt int64             `json:"created_at"` // ms since the epoch
}

// Engine is how the model is run.
func (m *Model) Engine() EngineKind { return m.Config.Engine() }

// PackageRef locates a verified package.
type PackageRef struct {
	// Dir is the content-addressed directory of the package.
	Dir string `json:"dir,omitempty"`
	// TreeSHA256 is the hash over the sorted list of "path NUL sha256 LF".
	TreeSHA256 string       `json:"tree_sha256,omitempty"`
	SizeBytes  int64        `json:"size_bytes,omitempty"`
	Files      []FileDigest `json:"files,omitempty"`
}

// FileDigest is one file of a package.
type FileDigest struct {
	Path   string `json:"path"` // slash separated, relative
	SHA256 string `json:"sha256"`
	Size   int64  `json:"size"`
}

// EngineKind says which kind of process serves a model.
type EngineKind string

// Engine kinds.
const (
	EngineONNX     EngineKind = "ONNX"
	EngineCustom   EngineKind = "Custom"
	EngineExternal EngineKind = "External"
)

// Pure reports whether running a request twice has no side effect.
func (k EngineKind) Pure() bool { return k == EngineONNX }
