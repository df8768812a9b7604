package api

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/spec"
)

// serviceItem is a service in a list.
type serviceItem struct {
	ServiceID            string         `json:"service_id"`
	Name                 string         `json:"service_name"`
	Description          string         `json:"description"`
	Tenant               string         `json:"tenant"`
	Project              string         `json:"project"`
	Owner                string         `json:"owner"`
	PublishAt            int64          `json:"publish_at"`
	TransitionAt         int64          `json:"transition_at"`
	OperationTime        int64          `json:"operation_time"`
	InferType            string         `json:"infer_type"`
	WorkspaceID          string         `json:"workspace_id"`
	Status               string         `json:"status"`
	Progress             *int           `json:"progress,omitempty"` // while deploying
	ErrorMsg             string         `json:"error_msg,omitempty"`
	InvocationTimes      int64          `json:"invocation_times"`
	FailedTimes          int64          `json:"failed_times"`
	IsShared             bool           `json:"is_shared"`
	SharedCount          int            `json:"shared_count"`
	IsFree               bool           `json:"is_free"`
	SampleCollection     string         `json:"is_opened_sample_collection"`
	Schedule             []spec.Period  `json:"schedule,omitempty"`
	DueTime              int64          `json:"due_time,omitempty"`
	AdditionalProperties map[string]any `json:"additional_properties"`
	Tags                 []spec.Tag     `json:"tags,omitempty"`
}

// serviceDetail is a service by itself.
type serviceDetail struct {
	serviceItem

	UpdateTime         int64              `json:"update_time"`
	AccessAddress      string             `json:"access_address,omitempty"`
	Config             []entryView        `json:"config"`
	LoadBalancerPolicy string             `json:"load_balancer_policy,omitempty"`
	Priority           int                `json:"priority,omitempty"`
	ClusterID          *string            `json:"cluster_id,omitempty"`
	PoolName           *string            `json:"pool_name,omitempty"`
	VpcID              *string            `json:"vpc_id,omitempty"`
	SubnetID           *string            `json:"subnet_network_id,omitempty"`
	SecurityGroupID    *string            `json:"security_group_id,omitempty"`
	Secrets            []serviceSecret    `json:"service_secrets,omitempty"`
	AuthTypes          []spec.AuthType    `json:"auth_types"`
	Traffic            spec.TrafficPolicy `json:"traffic_policy"`
	Retry              spec.RetryPolicy   `json:"retry_policy"`
	Limits             spec.Limits        `json:"limits"`
	Direct             directView         `json:"direct_channel"`
	Generation         int64              `json:"generation"`
	Upgrade            *upgradeView       `json:"upgrade,omitempty"`
}

type upgradeView struct {
	StartedAt int64  `json:"started_at"`
	Ready     int    `json:"ready"`
	Total     int    `json:"total"`
	Paused    bool   `json:"paused"`
	Rollback  bool   `json:"rollback"`
	Reason    string `json:"reason,omitempty"`
}

// entryView is an entry in the form of the request that made it, and what became of it.
type entryView struct {
	ModelID       string              `json:"model_id"`
	ModelName     string              `json:"model_name"`
	ModelVersion  string              `json:"model_version"`
	Specification string              `json:"specification"`
	CustomSpec    *customSpecView     `json:"custom_spec,omitempty"`
	Status        string              `json:"status"`
	Weight        int                 `json:"weight"`
	InstanceCount int                 `json:"instance_count"`
	ReadyCount    int                 `json:"running_instance_count"`
	Scaling       bool                `json:"scaling"`
	SupportDebug  bool                `json:"support_debug"`
	Envs          map[string]string   `json:"envs"`
	DeployTimeout int                 `json:"deploy_timeout_in_seconds,omitempty"`
	Properties    entryPropertiesView `json:"additional_properties"`

	entryExtra
}

type customSpecView struct {
	CPU    float64   `json:"cpu"`
	Memory int       `json:"memory"`
	GPU    float64   `json:"gpu_p4,omitempty"`
	Ascend *spec.Int `json:"ascend_a310,omitempty"`
}

type entryPropertiesView struct {
	MaxSurge       float64          `json:"max_surge"`
	MaxUnavailable float64          `json:"max_unavailable"`
	Grace          int              `json:"termination_grace_period_seconds,omitempty"`
	LogVolume      []map[string]any `json:"log_volume,omitempty"`
	Volumes        []map[string]any `json:"persistent_volumes,omitempty"`
}

// statusOf is the status that users see: what was observed, unless what they want has
// changed since.
func statusOf(s *spec.Service, st *spec.ServiceState) spec.ServiceStatus {
	switch {
	case s.Deleting:
		return spec.ServiceDeleting
	case s.Stopped && (st == nil || st.Status == spec.ServiceStopped):
		return spec.ServiceStopped
	case s.Stopped:
		return spec.ServiceStopping
	case st == nil || st.Status == "" || st.Status == spec.ServiceStopped || st.Status == spec.ServiceStopping,
		st.Generation != s.Generation && st.Status == spec.ServiceRunning:
		return spec.ServiceDeploying
	default:
		return st.Status
	}
}

func (a *API) itemOfService(s *spec.Service, st *spec.ServiceState) serviceItem {
	status := statusOf(s, st)
	v := serviceItem{
		ServiceID: s.ID, Name: s.Name, Description: s.Description, Tenant: s.DomainID, Project: s.ProjectID,
		Owner: s.Owner, PublishAt: s.CreatedAt, TransitionAt: s.CreatedAt, OperationTime: a.nowMillis(),
		InferType: s.InferType, WorkspaceID: s.WorkspaceID, Status: string(status), SampleCollection: "false",
		IsFree: true, Schedule: s.Schedule, DueTime: s.StopAt, AdditionalProperties: map[string]any{}, Tags: s.Tags,
	}

	if st != nil {
		v.TransitionAt = cmp.Or(st.TransitionAt, v.TransitionAt)

		if status == spec.ServiceFailed || status == spec.ServiceConcerning {
			v.ErrorMsg = st.ErrorMsg
		}
	}

	if status == spec.ServiceDeploying {
		progress := 0
		if st != nil && st.Generation == s.Generation {
			progress = st.Progress
		}

		v.Progress = &progress
	}

	var extra serviceExtra

	decode(s.ExtraJSON, &extra)

	if extra.Kept != nil {
		v.AdditionalProperties = extra.Kept
	}

	if a.d.Usage != nil {
		u := a.d.Usage.ServiceUsage(s.ID)
		v.InvocationTimes, v.FailedTimes = u.Invocations, u.Failures
	}

	return v
}

func (a *API) showService(r *web.Request) (any, error) {
	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	st, err := a.state(r, it.ID)
	if err != nil {
		return nil, err
	}

	instances, err := a.instances(r, it.ID)
	if err != nil {
		return nil, err
	}

	s := &it.Value
	v := serviceDetail{
		serviceItem: a.itemOfService(s, st), UpdateTime: s.UpdatedAt, AccessAddress: a.predictURL(s.ID),
		Config: []entryView{}, LoadBalancerPolicy: s.LoadBalancerPolicy, Priority: s.Priority,
		AuthTypes: s.Policy.AuthTypes, Traffic: s.Policy.Traffic, Retry: s.Policy.Retry, Limits: s.Policy.Limits,
		Direct: viewDirect(s.Direct), Generation: s.Generation,
	}

	if len(v.AuthTypes) == 0 {
		v.AuthTypes = []spec.AuthType{spec.AuthToken, spec.AuthAKSK, spec.AuthApp}
	}

	var extra serviceExtra

	decode(s.ExtraJSON, &extra)
	v.ClusterID, v.PoolName, v.VpcID = extra.ClusterID, extra.PoolName, extra.VpcID
	v.SubnetID, v.SecurityGroupID, v.Secrets = extra.SubnetID, extra.SecurityGroupID, extra.Secrets

	for i := range s.Entries {
		v.Config = append(v.Config, viewEntry(&s.Entries[i], s, st, instances))
	}

	if st != nil && st.Upgrade != nil {
		u := st.Upgrade
		v.Upgrade = &upgradeView{
			StartedAt: u.StartedAt, Ready: st.Ready, Total: st.Total, Paused: u.PausedAt != 0,
			Rollback: u.Rollback, Reason: u.Reason,
		}
	}

	return v, nil
}

// state is the observed state of a service, nil while nobody has observed it.
func (a *API) state(r *web.Request, id string) (*spec.ServiceState, error) {
	it, err := a.st.ServiceStates.Get(r.Context(), id)
	if errors.Is(err, store.ErrNotFound) {
		return nil, nil //nolint:nilnil // nothing is an answer
	}

	if err != nil {
		return nil, fmt.Errorf("read the state of a service: %w", err)
	}

	return &it.Value, nil
}

func (a *API) instances(r *web.Request, id string) ([]spec.Instance, error) {
	items, _, err := a.st.Instances.ListPrefix(r.Context(), id+"/")
	if err != nil {
		return nil, fmt.Errorf("read the instances of a service: %w", err)
	}

	out := make([]spec.Instance, len(items))
	for i := range items {
		out[i] = items[i].Value
	}

	return out, nil
}

func readyOf(instances []spec.Instance, modelID string) (ready, failed int) {
	for i := range instances {
		if instances[i].ModelID != modelID {
			continue
		}

		if instances[i].State == spec.InstanceReady {
			ready++
		}

		if instances[i].State == spec.InstanceFailed {
			failed++
		}
	}

	return ready, failed
}

func viewEntry(e *spec.Entry, s *spec.Service, st *spec.ServiceState, instances []spec.Instance) entryView {
	ready, failed := readyOf(instances, e.ModelID)
	v := entryView{
		ModelID: e.ModelID, ModelName: e.ModelName, ModelVersion: e.ModelVersion, Specification: e.Specification,
		Weight: e.Weight, InstanceCount: e.InstanceCount, ReadyCount: ready, Envs: e.Envs, DeployTimeout: e.DeployTimeoutSeconds,
		Properties: entryPropertiesView{MaxSurge: e.MaxSurge, MaxUnavailable: e.MaxUnavailable, Grace: e.TerminationGraceSeconds},
	}

	if v.Envs == nil {
		v.Envs = map[string]string{}
	}

	decode(e.ExtraJSON, &v.entryExtra)
	v.Properties.LogVolume, v.Properties.Volumes = v.LogVolume, v.Volumes
	v.LogVolume, v.Volumes = nil, nil

	if e.CustomSpec != nil {
		v.CustomSpec = &customSpecView{CPU: e.CustomSpec.CPU, Memory: e.CustomSpec.Memory, GPU: e.CustomSpec.GPU, Ascend: v.Ascend}
		v.Ascend = nil
	}

	switch {
	case s.Stopped || s.Deleting:
		v.Status = "stopped"
	case ready >= e.InstanceCount:
		v.Status = "ready"
	case failed > 0 && ready == 0 && st != nil && st.Status == spec.ServiceFailed:
		v.Status = "failed"
	case ready > 0 && failed > 0:
		v.Status = "concerning"
	default:
		v.Status = "notReady"
	}

	return v
}

func (a *API) listServices(r *web.Request) (any, error) {
	q := r.Query()
	f := serviceFilter{
		id: q.String("service_id"), name: q.String("service_name"), model: q.String("model_id"),
		workspace: q.String("workspace_id"), kind: q.Enum("infer_type", "", realTime, "batch", "edge"),
		status: q.Enum("status", "", "running", "deploying", "concerning", "failed", "stopped", "finished",
			"stopping", "deleting", "pending", "waiting"),
		tags: q.String("tags"),
	}
	sortBy := q.Enum("sort_by", "publish_at", "publish_at", "service_name", "transition_at")
	order := q.Enum("order", "desc", "asc", "desc")
	page := q.Page()

	if err := q.Err(); err != nil {
		return nil, err
	}

	services, _, err := a.st.Services.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list services: %w", err)
	}

	states, err := a.states(r)
	if err != nil {
		return nil, err
	}

	views := []serviceItem{}

	for i := range services {
		s := &services[i]
		if s.ProjectID != project(r) || !f.match(s) {
			continue
		}

		if v := a.itemOfService(s, states[s.ID]); f.status == "" || v.Status == f.status {
			views = append(views, v)
		}
	}

	sortServices(views, sortBy, order)

	total := len(views)
	views = web.Cut(page, views)

	return map[string]any{"total_count": total, "count": len(views), "services": views}, nil
}

func (a *API) states(r *web.Request) (map[string]*spec.ServiceState, error) {
	states, _, err := a.st.ServiceStates.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list the states of services: %w", err)
	}

	out := make(map[string]*spec.ServiceState, len(states))
	for i := range states {
		out[states[i].ServiceID] = &states[i]
	}

	return out, nil
}

// serviceFilter is what ListServices asks for.
type serviceFilter struct {
	id, name, model, workspace, kind, status, tags string
}

func (f *serviceFilter) match(s *spec.Service) bool {
	return (f.id == "" || s.ID == f.id) &&
		strings.Contains(strings.ToLower(s.Name), strings.ToLower(f.name)) &&
		(f.workspace == "" || s.WorkspaceID == f.workspace) &&
		(f.kind == "" || s.InferType == f.kind) &&
		(f.model == "" || slices.ContainsFunc(s.Entries, func(e spec.Entry) bool { return e.ModelID == f.model })) &&
		matchTags(f.tags, s.Tags)
}

// matchTags accepts "key", "key=value", and several of them with commas; all must hold.
func matchTags(want string, tags []spec.Tag) bool {
	for part := range strings.SplitSeq(want, ",") {
		if part == "" {
			continue
		}

		key, val, exact := strings.Cut(part, "=")
		if !slices.ContainsFunc(tags, func(t spec.Tag) bool { return t.Key == key && (!exact || t.Value == val) }) {
			return false
		}
	}

	return true
}

func sortServices(views []serviceItem, by, order string) {
	slices.SortStableFunc(views, func(x, y serviceItem) int {
		var c int

		switch by {
		case "service_name":
			c = strings.Compare(x.Name, y.Name)
		case "transition_at":
			c = cmp.Compare(x.TransitionAt, y.TransitionAt)
		}

		c = cmp.Or(c, cmp.Compare(x.PublishAt, y.PublishAt), strings.Compare(x.Name, y.Name), strings.Compare(x.ServiceID, y.ServiceID))
		if order == "desc" {
			c = -c
		}

		return c
	})
}
