package spec

// ServiceStatus is the observed status of a service (v1 names).
type ServiceStatus string

// Service statuses.
const (
	ServiceRunning    ServiceStatus = "running"
	ServiceDeploying  ServiceStatus = "deploying"
	ServiceConcerning ServiceStatus = "concerning"
	ServiceFailed     ServiceStatus = "failed"
	ServiceStopped    ServiceStatus = "stopped"
	ServiceStopping   ServiceStatus = "stopping"
	ServiceDeleting   ServiceStatus = "deleting"
	ServicePending    ServiceStatus = "pending"
	ServiceWaiting    ServiceStatus = "waiting"
	ServiceFinished   ServiceStatus = "finished"
)

// AuthType is a way of authenticating that a service may accept.
type AuthType string

// Ways of authenticating.
const (
	AuthToken AuthType = "TOKEN"
	AuthAKSK  AuthType = "AKSK"
	AuthApp   AuthType = "APP"
	AuthNone  AuthType = "NONE"
)

// Service is the desired state of a service, as a user declared it.
type Service struct {
	ID                 string   `json:"id"`
	ProjectID          string   `json:"project_id"`
	DomainID           string   `json:"domain_id"`
	WorkspaceID        string   `json:"workspace_id"`
	Owner              string   `json:"owner"` // user id
	OwnerName          string   `json:"owner_name"`
	Name               string   `json:"name"`
	Description        string   `json:"description,omitempty"`
	InferType          string   `json:"infer_type"` // real-time | batch | edge
	LoadBalancerPolicy string   `json:"load_balancer_policy,omitempty"`
	Priority           int      `json:"priority,omitempty"`
	Tags               []Tag    `json:"tags,omitempty"`
	Stopped            bool     `json:"stopped"` // desired: true after PUT {"status":"stopped"}
	Deleting           bool     `json:"deleting,omitempty"`
	Entries            []Entry  `json:"entries"`
	Policy             Policy   `json:"policy"`
	Schedule           []Period `json:"schedule,omitempty"`
	StopAt             int64    `json:"stop_at,omitempty"` // ms since the epoch; 0 means never
	WebSocket          bool     `json:"websocket,omitempty"`
	// Direct lets callers reach the instances without the gateway; nil is off.
	Direct *Direct `json:"direct,omitempty"`
	// ExtraJSON keeps additional_properties and other v1 fields that are stored and shown, as JSON text.
	ExtraJSON string `json:"extra_json,omitempty"`
	// Generation grows with every change of Entries that needs other instances.
	Generation int64 `json:"generation"`
	// UpgradePaused keeps a running upgrade where it is; UpgradeAborted is the generation
	// whose upgrade shall be undone.
	UpgradePaused  bool  `json:"upgrade_paused,omitempty"`
	UpgradeAborted int64 `json:"upgrade_aborted,omitempty"`
	CreatedAt      int64 `json:"created_at"`
	UpdatedAt      int64 `json:"updated_at"`
}

// Direct is the channel past the gateway: who may use it.
type Direct struct {
	// Allow lists the addresses and prefixes of callers; empty means all that reach the interface.
	Allow []string `json:"allow,omitempty"`
	// KeyHash is the SHA-256, in hexadecimal, of the key that callers must show; empty means none.
	KeyHash string `json:"key_hash,omitempty"`
}

// SpreadDirect hands the direct channel down to the entries: instances are made from them.
func (s *Service) SpreadDirect() {
	for i := range s.Entries {
		s.Entries[i].Direct = s.Direct
	}
}

// Tag is a label of a service.
type Tag struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

// Period is an entry of a schedule: stop the service after Duration units.
type Period struct {
	Type     string `json:"type"`      // "stop"
	TimeUnit string `json:"time_unit"` // DAYS | HOURS | MINUTES
	Duration int    `json:"duration"`
}

// Entry is one model version of a service, with its share of the traffic.
type Entry struct {
	ModelID       string            `json:"model_id"`
	ModelName     string            `json:"model_name"`
	ModelVersion  string            `json:"model_version"`
	Weight        int               `json:"weight"` // 0–100; all entries sum to 100
	Specification string            `json:"specification"`
	CustomSpec    *CustomSpec       `json:"custom_spec,omitempty"`
	InstanceCount int               `json:"instance_count"`
	Envs          map[string]string `json:"envs,omitempty"`
	// DeployTimeoutSeconds bounds how long instances may take to become ready.
	DeployTimeoutSeconds int `json:"deploy_timeout_seconds,omitempty"`
	// MaxSurge and MaxUnavailable: below 1 a fraction of InstanceCount, from 1 a count.
	MaxSurge       float64 `json:"max_surge"`
	MaxUnavailable float64 `json:"max_unavailable"`
	// TerminationGraceSeconds bounds how long an instance may take to drain.
	TerminationGraceSeconds int `json:"termination_grace_seconds,omitempty"`
	// Direct is that of the service.
	Direct *Direct `json:"direct,omitempty"`
	// ExtraJSON keeps v1 fields that are stored and shown, as JSON text.
	ExtraJSON string `json:"extra_json,omitempty"`
}

// CustomSpec is what an instance of specification "custom" gets.
type CustomSpec struct {
	CPU    float64 `json:"cpu"`    // cores
	Memory int     `json:"memory"` // MB
	GPU    float64 `json:"gpu,omitempty"`
}

// Policy is what the gateway enforces for a service.
type Policy struct {
	AuthTypes []AuthType    `json:"auth_types,omitempty"` // empty means TOKEN, AKSK, APP
	Traffic   TrafficPolicy `json:"traffic_policy,omitzero"`
	Retry     RetryPolicy   `json:"retry_policy,omitzero"`
	Limits    Limits        `json:"limits,omitzero"`
}

// TrafficPolicy chooses a version before weights do.
type TrafficPolicy struct {
	Sticky *Sticky `json:"sticky,omitempty"`
	Rules  []Rule  `json:"rules,omitempty"`
}

// Sticky assigns callers to versions by the hash of a value.
type Sticky struct {
	By   string `json:"by"` // header | cookie | query | principal | app
	Name string `json:"name,omitempty"`
}

// Rule sends matching requests to one model version.
type Rule struct {
	Name    string `json:"name,omitempty"`
	Match   Match  `json:"match"`
	ModelID string `json:"model_id"`
}

// Match holds conditions that must all be true.
type Match struct {
	Header    *NameValue `json:"header,omitempty"`
	Cookie    *NameValue `json:"cookie,omitempty"`
	Query     *NameValue `json:"query,omitempty"`
	Principal string     `json:"principal,omitempty"` // user id or name
	App       string     `json:"app,omitempty"`       // app id
	CIDR      string     `json:"cidr,omitempty"`
}

// NameValue is a named value; an empty Value matches any value that is present.
type NameValue struct {
	Name  string `json:"name"`
	Value string `json:"value,omitempty"`
}

// RetryPolicy bounds what the gateway tries again.
type RetryPolicy struct {
	// Attempts in all, the first included. 0 means the default of 3; 1 turns retries off.
	Attempts int `json:"attempts,omitempty"`
	// PerTryTimeoutSeconds bounds each attempt; 0 means only the total bound holds.
	PerTryTimeoutSeconds float64 `json:"per_try_timeout_seconds,omitempty"`
}

// Limits bound the use of a service. Zero means the gateway's default.
type Limits struct {
	RequestsPerSecond float64 `json:"requests_per_second,omitempty"`
	Burst             int     `json:"burst,omitempty"`
	Concurrency       int     `json:"concurrency,omitempty"`
	BodyBytes         int64   `json:"body_bytes,omitempty"`
	TimeoutSeconds    float64 `json:"timeout_seconds,omitempty"`
	// StreamIdleSeconds is how long a streamed answer may pause. A stream has no bound in all.
	StreamIdleSeconds float64 `json:"stream_idle_seconds,omitempty"`
}

// InstanceState is the life of one engine process or pod.
type InstanceState string

// Instance states, in the order in which an instance walks through them.
const (
	InstanceQueued    InstanceState = "queued"
	InstanceFetching  InstanceState = "fetching"
	InstanceVerifying InstanceState = "verifying"
	InstanceLoading   InstanceState = "loading"
	InstanceWarming   InstanceState = "warming"
	InstanceReady     InstanceState = "ready"
	InstanceDraining  InstanceState = "draining"
	InstanceStopped   InstanceState = "stopped"
	InstanceFailed    InstanceState = "failed"
)

// Instance is one engine process or pod of one entry.
type Instance struct {
	ID           string        `json:"id"`
	ServiceID    string        `json:"service_id"`
	ModelID      string        `json:"model_id"`
	ModelName    string        `json:"model_name"`
	ModelVersion string        `json:"model_version"`
	Generation   int64         `json:"generation"`
	State        InstanceState `json:"state"`
	Reason       string        `json:"reason,omitempty"`
	// Network and Address of the HTTP/1.1 server of the instance: "tcp" host:port or "unix" path.
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"`
	Scheme  string `json:"scheme,omitempty"` // http | https; empty means http
	// LinkAddress, when set, is where the instance speaks link: "unix:PATH", "tcp:HOST:PORT" on the
	// loopback interface, or "tls:HOST:PORT" where both sides show certificates.
	LinkAddress string `json:"link_address,omitempty"`
	// Direct is where callers that skip the gateway reach the instance, DirectGRPC its gRPC door: host:port.
	Direct       string `json:"direct,omitempty"`
	DirectGRPC   string `json:"direct_grpc,omitempty"`
	DirectScheme string `json:"direct_scheme,omitempty"`
	Node         string `json:"node,omitempty"`
	PID          int    `json:"pid,omitempty"`
	// Restarts counts the predecessors of this instance that ended by themselves.
	Restarts  int   `json:"restarts,omitempty"`
	StartedAt int64 `json:"started_at,omitempty"`
	ReadyAt   int64 `json:"ready_at,omitempty"`
	// EndedAt is when the process ended; RetryAt is when a failed one is replaced.
	EndedAt int64 `json:"ended_at,omitempty"`
	RetryAt int64 `json:"retry_at,omitempty"`
	// Failures in a row, without a stable time of service in between.
	Failures int `json:"failures,omitempty"`
	// Hopeless is true when trying again gives the same failure: the package cannot be loaded.
	Hopeless bool `json:"hopeless,omitempty"`
	// Endpoint is set for an instance of an External engine: how to talk to it.
	Endpoint *Endpoint `json:"endpoint,omitempty"`
	// Template identifies what the instance is made from: model, envs and specification.
	Template string `json:"template,omitempty"`
}

// Event is one line in the story of a service.
type Event struct {
	ServiceID  string `json:"service_id"`
	Type       string `json:"event_type"` // normal | abnormal
	Info       string `json:"event_info"`
	OccurredAt int64  `json:"occur_time"` // ms since the epoch
}
