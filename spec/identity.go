package spec

// Role is a named bundle of rights.
type Role string

// Built-in roles.
const (
	RoleAdministrator Role = "administrator" // everything in the domain
	RoleOperator      Role = "operator"      // manage models and services, predict
	RoleCaller        Role = "caller"        // predict only
)

// Actions that policies grant or deny. Resource names have the form
// "modelarts:{project_id}:service:{service_id}"; "*" matches any run of characters.
const (
	ActionPredict = "modelarts:service:predict"
)

// Domain is an account: it owns users and projects.
type Domain struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Project isolates models and services.
type Project struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	DomainID string `json:"domain_id"`
	Enabled  bool   `json:"enabled"`
	// Description and CreatedAt are for people.
	Description string `json:"description,omitempty"`
	CreatedAt   int64  `json:"created_at,omitempty"`
}

// User is somebody who can get a token or own an access key.
type User struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	DomainID string `json:"domain_id"`
	Enabled  bool   `json:"enabled"`
	// PasswordHash is an argon2id hash in PHC form.
	PasswordHash string  `json:"password_hash,omitempty"`
	Grants       []Grant `json:"grants,omitempty"`
	// TokensValidFrom invalidates tokens issued before it (ms since the epoch).
	TokensValidFrom int64 `json:"tokens_valid_from,omitempty"`
	// TokenGeneration counts how often that happened. From the first time on, tokens of earlier generations are
	// invalid and others valid, whatever the clocks said when they were issued.
	TokenGeneration int64  `json:"token_generation,omitempty"`
	Description     string `json:"description,omitempty"`
	CreatedAt       int64  `json:"created_at,omitempty"`
}

// Grant gives a user rights in a project ("*" for every project of the domain).
// A user without grants may do nothing.
type Grant struct {
	ProjectID  string      `json:"project_id"`
	Role       Role        `json:"role,omitempty"`
	Statements []Statement `json:"statements,omitempty"`
}

// Statement allows or denies actions on resources. Deny wins.
type Statement struct {
	Effect    string   `json:"effect"` // Allow | Deny
	Actions   []string `json:"actions"`
	Resources []string `json:"resources,omitempty"` // empty means all
}

// AccessKey is a permanent or temporary AK/SK pair.
type AccessKey struct {
	AccessKey string `json:"access_key"`
	// SealedSecret is the SK encrypted with the keyring (internal/secretbox).
	SealedSecret []byte `json:"sealed_secret"`
	UserID       string `json:"user_id"`
	DomainID     string `json:"domain_id"`
	// ProjectID restricts a temporary key to a project; empty means any project that the user has.
	ProjectID string `json:"project_id,omitempty"`
	// SecurityTokenHash is the SHA-256 of the X-Security-Token that a temporary key must carry.
	SecurityTokenHash []byte `json:"security_token_hash,omitempty"`
	ExpiresAt         int64  `json:"expires_at,omitempty"` // ms since the epoch; 0 means never
	Enabled           bool   `json:"enabled"`
	Description       string `json:"description,omitempty"`
	CreatedAt         int64  `json:"created_at,omitempty"`
}

// App is an application that calls services by key and secret or by code.
type App struct {
	ID           string    `json:"id"`
	Name         string    `json:"name"`
	Remark       string    `json:"remark,omitempty"`
	ProjectID    string    `json:"project_id"`
	UserID       string    `json:"user_id"`
	WorkspaceID  string    `json:"workspace_id,omitempty"`
	Key          string    `json:"key"`
	SealedSecret []byte    `json:"sealed_secret"`
	Codes        []AppCode `json:"codes,omitempty"` // at most 5
	Enabled      bool      `json:"enabled"`
	CreatedAt    int64     `json:"created_at"`
	UpdatedAt    int64     `json:"updated_at"`
}

// AppCode is a bearer code of an app; Hash is what the gateway compares.
type AppCode struct {
	SealedCode []byte `json:"sealed_code"`
	Hash       []byte `json:"hash"` // SHA-256 of the code
}

// AppAPI is the published API of a service for APP authentication.
type AppAPI struct {
	ID             string   `json:"id"`
	Name           string   `json:"name"`
	ServiceID      string   `json:"service_id"`
	ProjectID      string   `json:"project_id"`
	Remark         string   `json:"remark,omitempty"`
	AuthType       string   `json:"auth_type"`
	SupportAppCode bool     `json:"support_app_code"`
	AppIDs         []string `json:"app_ids,omitempty"` // apps that may call
	// AuthIDs maps an app id to the id of its grant.
	AuthIDs   map[string]string `json:"auth_ids,omitempty"`
	CreatedAt int64             `json:"created_at"`
}

// TokenKey is a public key that verifies tokens.
type TokenKey struct {
	ID        string `json:"id"`
	PublicKey []byte `json:"public_key"` // Ed25519, 32 bytes
}

// Revocation makes one token invalid until it would expire anyway.
type Revocation struct {
	TokenID   string `json:"token_id"`
	ExpiresAt int64  `json:"expires_at"` // ms since the epoch
}

// SigningKey is a key pair that signs tokens.
type SigningKey struct {
	ID        string `json:"id"`
	PublicKey []byte `json:"public_key"` // Ed25519, 32 bytes
	// SealedSeed is the private seed encrypted with the keyring (internal/secretbox).
	SealedSeed []byte `json:"sealed_seed"`
	CreatedAt  int64  `json:"created_at"` // ms since the epoch
	// RetiredAt is when the key stopped signing; it verifies until its last token has expired.
	RetiredAt int64 `json:"retired_at,omitempty"`
}

// Public is the part of the key that verifiers get.
func (k *SigningKey) Public() TokenKey { return TokenKey{ID: k.ID, PublicKey: k.PublicKey} }
