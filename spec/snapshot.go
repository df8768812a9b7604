package spec

// SnapshotSchema is the version of the snapshot's shape. The shape only grows, so that a
// gateway works with a control process that is one version older or newer.
const SnapshotSchema = 1

// Snapshot is everything a gateway needs. It holds no secret in clear: sealed fields are
// opened with the keyring of the process.
type Snapshot struct {
	Schema   int   `json:"schema"`
	Revision int64 `json:"revision"`

	Services    []Route      `json:"services,omitempty"`
	Projects    []Project    `json:"projects,omitempty"`
	Users       []User       `json:"users,omitempty"` // without PasswordHash
	AccessKeys  []AccessKey  `json:"access_keys,omitempty"`
	Apps        []App        `json:"apps,omitempty"`
	TokenKeys   []TokenKey   `json:"token_keys,omitempty"`
	Revocations []Revocation `json:"revocations,omitempty"`
}

// Route is one service as the gateway sees it.
type Route struct {
	ServiceID   string    `json:"service_id"`
	ServiceName string    `json:"service_name"`
	ProjectID   string    `json:"project_id"`
	DomainID    string    `json:"domain_id"`
	Revision    int64     `json:"revision"` // changes whenever anything in the route does
	Running     bool      `json:"running"`  // desired; false answers ServiceNotRunning
	WebSocket   bool      `json:"websocket,omitempty"`
	Balancer    string    `json:"balancer,omitempty"` // v1 load_balancer_policy or a picker's name
	Policy      Policy    `json:"policy"`
	Versions    []Version `json:"versions"`
	// AppIDs may call by APP authentication; AppCodes tells whether codes are accepted.
	AppIDs   []string `json:"app_ids,omitempty"`
	AppCodes bool     `json:"app_codes,omitempty"`
}

// Version is an entry of a service with its live instances.
type Version struct {
	ModelID      string     `json:"model_id"`
	ModelName    string     `json:"model_name"`
	ModelVersion string     `json:"model_version"`
	Weight       int        `json:"weight"`
	Engine       EngineKind `json:"engine"`
	Protocol     string     `json:"protocol,omitempty"` // http | https | ws | wss
	// TLSVerify and CAPEM say how the certificate of a Custom engine is verified.
	TLSVerify bool   `json:"tls_verify,omitempty"`
	CAPEM     string `json:"ca_pem,omitempty"`
	// APIs are the paths that the package declares. Empty means that it declares none: every path
	// goes to the engine, "/" by default.
	APIs []API `json:"apis,omitempty"`
	// SchemaCheck: the JSON of requests has to fit the schemas in APIs.
	SchemaCheck bool `json:"schema_check,omitempty"`

	Instances []Instance `json:"instances,omitempty"`
}
