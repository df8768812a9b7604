package api

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-gateway/sluice/control/registry"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/secretbox"
	"github.com/sluice-gateway/sluice/spec"
)

// Usage tells how services are used. The telemetry of the process implements it.
type Usage interface {
	ServiceUsage(serviceID string) ServiceUsage
}

// ServiceUsage is the use of one service since the process started.
type ServiceUsage struct {
	Invocations, Failures int64
	RequestsPerMinute     int64
	Models                map[string]ModelUsage // by model id
}

// ModelUsage is the use of one model of a service.
type ModelUsage struct {
	Invocations, Failures int64
	CPUCores              float64
	MemoryMB              float64
}

// Config of the API. Zero fields mean the default.
type Config struct {
	// EdgeURL is the base of prediction addresses, "https://host:port". It may change until
	// the listeners are up.
	EdgeURL func() string
	// Specifications that services may ask for (default DefaultSpecifications).
	Specifications []Specification
	// AppsPerUser bounds apps (default 5), ServicesPerProject services (default 10,000).
	AppsPerUser, ServicesPerProject int
	// Now is the clock (default time.Now).
	Now func() time.Time
	// Web bounds requests.
	Web web.Config
}

// Deps are the collaborators of the API.
type Deps struct {
	Store    *store.Store
	Registry *registry.Registry
	Ring     *secretbox.Keyring
	Gate     web.Gatekeeper
	// Usage may be nil.
	Usage Usage
	// Logs of instances; nil where no instances run.
	Logs Logs
	// Routes of others that are served beside, such as those of identity.
	Routes []web.Route
}

// API is the v1 management API.
type API struct {
	cfg    Config
	d      Deps
	st     *store.Store
	log    *slog.Logger
	router *web.Router
	specs  map[string]Specification
	calls  *callLimit
}

// New returns the API.
func New(cfg Config, d Deps, log *slog.Logger) (*API, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}

	if cfg.AppsPerUser <= 0 {
		cfg.AppsPerUser = 5
	}

	if cfg.ServicesPerProject <= 0 {
		cfg.ServicesPerProject = 10_000
	}

	if cfg.Specifications == nil {
		cfg.Specifications = DefaultSpecifications()
	}

	a := &API{
		cfg: cfg, d: d, st: d.Store, log: log,
		specs: make(map[string]Specification, len(cfg.Specifications)), calls: newCallLimit(cfg.Now),
	}

	for _, s := range cfg.Specifications {
		a.specs[s.Specification] = s
	}

	if cfg.Web.Now == nil {
		cfg.Web.Now = cfg.Now
	}

	routes := append(a.Routes(), d.Routes...)

	router, err := web.New(cfg.Web, d.Gate, log, routes...)
	if err != nil {
		return nil, fmt.Errorf("build the management API: %w", err)
	}

	a.router = router

	return a, nil
}

// Handler serves the whole control API.
func (a *API) Handler() http.Handler { return a.router }

func (a *API) nowMillis() int64 { return a.cfg.Now().UnixMilli() }

func (a *API) predictURL(serviceID string) string {
	base := ""
	if a.cfg.EdgeURL != nil {
		base = a.cfg.EdgeURL()
	}

	return base + "/v1/infers/" + serviceID
}

// project is the project of the request.
func project(r *web.Request) string { return r.Var("project_id") }

// service reads the service in the path, which must belong to the project of the request.
func (a *API) service(r *web.Request) (store.Item[spec.Service], error) {
	return a.findService(r, r.Var("service_id"))
}

func (a *API) findService(r *web.Request, id string) (store.Item[spec.Service], error) {
	missing := fault.New(fault.ServiceNotFound, "Service %s does not exist.", clip(id))
	if !isUUID(id) {
		return store.Item[spec.Service]{}, missing
	}

	it, err := a.st.Services.Get(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) || err == nil && it.Value.ProjectID != project(r) {
		return it, missing
	}

	if err != nil {
		return it, fmt.Errorf("read service: %w", err)
	}

	return it, nil
}

// model reads the model in the path.
func (a *API) model(r *web.Request) (store.Item[spec.Model], error) {
	return a.findModel(r, r.Var("model_id"))
}

func (a *API) findModel(r *web.Request, id string) (store.Item[spec.Model], error) {
	missing := fault.New(fault.ModelNotFound, "Model (%s) does not exist.", clip(id))
	if !isUUID(id) {
		return store.Item[spec.Model]{}, missing
	}

	it, err := a.st.Models.Get(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) || err == nil && it.Value.ProjectID != project(r) {
		return it, missing
	}

	if err != nil {
		return it, fmt.Errorf("read model: %w", err)
	}

	return it, nil
}

func isUUID(s string) bool {
	return len(s) == 36 && uuid.Validate(s) == nil
}

func clip(s string) string {
	const most = 64
	if len(s) <= most {
		return s
	}

	return s[:most] + "…"
}

// newUUID makes ids of models and services.
func newUUID() (string, error) {
	id, err := uuid.NewRandom()
	if err != nil {
		return "", fmt.Errorf("make an id: %w", err)
	}

	return id.String(), nil
}
