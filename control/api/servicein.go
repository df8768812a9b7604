package api

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// serviceIn is the body of CreateService and UpdateService. Absent fields are nil.
type serviceIn struct {
	Name        *string     `json:"service_name"`
	InferType   *string     `json:"infer_type"`
	Description *string     `json:"description"`
	WorkspaceID *string     `json:"workspace_id"`
	Config      *[]entryIn  `json:"config"`
	Status      *string     `json:"status"`
	Schedule    *[]periodIn `json:"schedule"`
	Priority    *int        `json:"priority"`
	Tags        *[]spec.Tag `json:"tags"`

	LoadBalancerPolicy *string            `json:"load_balancer_policy"`
	Properties         *servicePropertyIn `json:"additional_properties"`

	// Extensions of Sluice.
	AuthTypes *[]string           `json:"auth_types"`
	Traffic   *spec.TrafficPolicy `json:"traffic_policy" web:"strict"`
	Retry     *spec.RetryPolicy   `json:"retry_policy" web:"strict"`
	Limits    *spec.Limits        `json:"limits" web:"strict"`
	Direct    *directIn           `json:"direct_channel" web:"strict"`
	Upgrade   *string             `json:"upgrade_action"` // pause | resume | abort

	serviceExtra
}

// serviceExtra are fields of a service that are kept and shown, and have no effect here.
type serviceExtra struct {
	ClusterID       *string         `json:"cluster_id,omitempty"`
	PoolName        *string         `json:"pool_name,omitempty"`
	VpcID           *string         `json:"vpc_id,omitempty"`
	SubnetID        *string         `json:"subnet_network_id,omitempty"`
	SecurityGroupID *string         `json:"security_group_id,omitempty"`
	Secrets         []serviceSecret `json:"service_secrets,omitempty"`
	Kept            map[string]any  `json:"additional_properties,omitempty"`
}

// serviceSecret has the platform's own spelling.
type serviceSecret struct {
	SecretID  string `json:"secretId"`
	MountPath string `json:"mouthPath"`
}

type servicePropertyIn struct {
	Notification map[string]any   `json:"smn_notification"`
	LogChannels  []map[string]any `json:"log_report_channels"`
	WebSocket    *bool            `json:"websocket_upgrade"`
}

type periodIn struct {
	Type     string   `json:"type"`
	TimeUnit string   `json:"time_unit"`
	Duration spec.Int `json:"duration"`
}

type entryIn struct {
	ModelID       *string            `json:"model_id"`
	Weight        *spec.Int          `json:"weight"`
	Specification *string            `json:"specification"`
	CustomSpec    *customSpecIn      `json:"custom_spec"`
	InstanceCount *spec.Int          `json:"instance_count"`
	Envs          map[string]string  `json:"envs"`
	DeployTimeout *spec.Int          `json:"deploy_timeout_in_seconds"`
	Properties    *entryPropertiesIn `json:"additional_properties"`

	entryExtra
}

type customSpecIn struct {
	CPU    *float64  `json:"cpu"`
	Memory *spec.Int `json:"memory"`
	GPU    *float64  `json:"gpu_p4"`
	Ascend *spec.Int `json:"ascend_a310"`
}

type entryPropertiesIn struct {
	MaxSurge       *float64         `json:"max_surge"`
	MaxUnavailable *float64         `json:"max_unavailable"`
	Grace          *spec.Int        `json:"termination_grace_period_seconds"`
	LogVolume      []map[string]any `json:"log_volume"`
	Volumes        []map[string]any `json:"persistent_volumes"`
}

// entryExtra are fields of an entry that are kept and shown, and have no effect here.
type entryExtra struct {
	ClusterID   *string          `json:"cluster_id,omitempty"`
	PoolName    *string          `json:"pool_name,omitempty"`
	Affinity    map[string]any   `json:"affinity,omitempty"`
	Nodes       []string         `json:"nodes,omitempty"`
	SrcPath     *string          `json:"src_path,omitempty"`
	DestPath    *string          `json:"dest_path,omitempty"`
	ReqURI      *string          `json:"req_uri,omitempty"`
	MappingType *string          `json:"mapping_type,omitempty"`
	MappingRule map[string]any   `json:"mapping_rule,omitempty"`
	SrcType     *string          `json:"src_type,omitempty"`
	Ascend      *spec.Int        `json:"ascend_a310,omitempty"`
	LogVolume   []map[string]any `json:"log_volume,omitempty"`
	Volumes     []map[string]any `json:"persistent_volumes,omitempty"`
}

// mistakes collects wrong fields.
type mistakes struct{ errs []error }

func (m *mistakes) addf(path, format string, args ...any) {
	m.errs = append(m.errs, &spec.FieldError{Path: path, Msg: fmt.Sprintf(format, args...)})
}

func (m *mistakes) required(path string) { m.addf(path, "is required and cannot be empty") }

// defaultSurge is how many instances may be added during an upgrade unless stated.
const defaultSurge = 1

// entries turns the config of a request into entries; models fills in their names.
func (a *API) entries(in []entryIn, inferType string, m *mistakes) []spec.Entry {
	out := make([]spec.Entry, 0, len(in))

	for i := range in {
		path := fmt.Sprintf("config[%d]", i)
		out = append(out, a.entry(&in[i], path, m))

		if inferType == realTime && in[i].Weight == nil {
			m.required(path + ".weight")
		}
	}

	return out
}

func (a *API) entry(in *entryIn, path string, m *mistakes) spec.Entry {
	e := spec.Entry{
		ModelID: value(in.ModelID), Specification: value(in.Specification), Envs: in.Envs,
		Weight: int(value(in.Weight)), InstanceCount: int(value(in.InstanceCount)),
		DeployTimeoutSeconds: int(value(in.DeployTimeout)), MaxSurge: defaultSurge,
	}

	if in.InstanceCount == nil {
		m.required(path + ".instance_count")

		e.InstanceCount = 1 // one mistake is enough to tell
	}

	if _, known := a.specs[e.Specification]; e.Specification != "" && !known {
		m.addf(path+".specification", "must be one of %s", strings.Join(a.specNames(), ", "))
	}

	extra := in.entryExtra

	if c := in.CustomSpec; c != nil && e.Specification == customSpec {
		if c.CPU == nil || c.Memory == nil {
			m.addf(path+".custom_spec", "must have cpu and memory")
		}

		e.CustomSpec = &spec.CustomSpec{CPU: max(value(c.CPU), 0.01), Memory: max(int(value(c.Memory)), 1), GPU: value(c.GPU)}
		extra.Ascend = c.Ascend

		if c.CPU != nil && *c.CPU < 0.01 {
			m.addf(path+".custom_spec.cpu", "must be at least 0.01")
		}
	}

	if p := in.Properties; p != nil {
		e.MaxUnavailable = value(p.MaxUnavailable)
		e.TerminationGraceSeconds = int(value(p.Grace))
		extra.LogVolume, extra.Volumes = p.LogVolume, p.Volumes

		if p.MaxSurge != nil {
			e.MaxSurge = *p.MaxSurge
		}
	}

	e.ExtraJSON = encode(extra)

	return e
}

// models checks the models of entries and fills in their names. It returns the revisions
// that the entries depend on.
func (a *API) models(r *web.Request, entries []spec.Entry) (map[string]int64, error) {
	revisions := make(map[string]int64, len(entries))

	for i := range entries {
		e := &entries[i]

		it, err := a.findModel(r, e.ModelID)
		if err != nil {
			if f := fault.From(err); f.Code == fault.ModelNotFound {
				err = fault.New(fault.ModelNotFound, "%s (config[%d].model_id)", f.Message(), i)
			}

			return nil, err
		}

		m := &it.Value

		switch {
		case m.Deleting:
			return nil, fault.New(fault.ModelNotFound, "Model (%s) does not exist. (config[%d].model_id)", m.ID, i)
		case m.Status == spec.ModelFailed:
			return nil, fault.New(fault.ModelNotReady, "Model (%s, %s) of config[%d] could not be published: %s", m.Name, m.Version, i, m.FailReason)
		case m.Status != spec.ModelPublished:
			return nil, fault.New(fault.ModelNotReady, "Model (%s, %s) of config[%d] is still being published%s.", m.Name, m.Version, i, a.howFar(m.ID))
		}

		e.ModelName, e.ModelVersion = m.Name, m.Version
		revisions[it.ID] = it.Revision
	}

	return revisions, nil
}

// apply puts what is given, other than config and status, into a service.
func (in *serviceIn) apply(s *spec.Service, now time.Time, m *mistakes) {
	assign(&s.Description, in.Description)
	assign(&s.Priority, in.Priority)
	assign(&s.LoadBalancerPolicy, in.LoadBalancerPolicy)
	assign(&s.Policy.Traffic, in.Traffic)
	assign(&s.Policy.Retry, in.Retry)
	assign(&s.Policy.Limits, in.Limits)

	if in.Priority != nil && (*in.Priority < 1 || *in.Priority > 3) {
		m.addf("priority", "must be 1 to 3, got %d", *in.Priority)
	}

	if p := s.LoadBalancerPolicy; p != "" && !slices.Contains(balancers(), p) {
		m.addf("load_balancer_policy", "must be one of %s", strings.Join(balancers(), ", "))
	}

	if in.AuthTypes != nil {
		s.Policy.AuthTypes = nil
		for _, t := range *in.AuthTypes {
			s.Policy.AuthTypes = append(s.Policy.AuthTypes, spec.AuthType(t))
		}
	}

	if in.Tags != nil {
		s.Tags = *in.Tags
	}

	if in.Schedule != nil {
		s.Schedule = nil
		for _, p := range *in.Schedule {
			s.Schedule = append(s.Schedule, spec.Period{Type: p.Type, TimeUnit: p.TimeUnit, Duration: int(p.Duration)})
		}

		s.StopAt = stopAt(s.Schedule, now)
	}

	in.Direct.apply(s, m)
	in.applyExtra(s, m)
}

// balancers are the policies of the v1 API and those that Sluice has besides.
func balancers() []string {
	return []string{"ROUND_ROBIN", "LEAST_CONNECTIONS", "SOURCE_IP", "LEAST_REQUEST", "P2C", "CONSISTENT_HASH"}
}

func (in *serviceIn) applyExtra(s *spec.Service, m *mistakes) {
	var have serviceExtra

	decode(s.ExtraJSON, &have)

	for _, f := range []struct{ have, given **string }{
		{&have.ClusterID, &in.ClusterID},
		{&have.PoolName, &in.PoolName},
		{&have.VpcID, &in.VpcID},
		{&have.SubnetID, &in.SubnetID},
		{&have.SecurityGroupID, &in.SecurityGroupID},
	} {
		if *f.given != nil {
			*f.have = *f.given
		}
	}

	if in.Secrets != nil {
		have.Secrets = in.Secrets
	}

	if in.Properties != nil {
		in.Properties.keep(s, &have, m)
	}

	s.ExtraJSON = encode(have)
}

// keep checks additional_properties and keeps what is given.
func (p *servicePropertyIn) keep(s *spec.Service, have *serviceExtra, m *mistakes) {
	if have.Kept == nil {
		have.Kept = map[string]any{}
	}

	if p.Notification != nil {
		have.Kept["smn_notification"] = p.Notification
	}

	if p.LogChannels != nil {
		if old, on := have.Kept["log_report_channels"].([]any); on && len(old) > 0 && len(p.LogChannels) == 0 {
			m.addf("additional_properties.log_report_channels", "cannot be turned off once it is on")
		}

		have.Kept["log_report_channels"] = p.LogChannels
	}

	if p.WebSocket != nil {
		if s.WebSocket && !*p.WebSocket {
			m.addf("additional_properties.websocket_upgrade", "cannot be turned off once it is on")
		}

		s.WebSocket = *p.WebSocket
		have.Kept["websocket_upgrade"] = *p.WebSocket
	}
}

// stopAt is when a schedule stops the service that starts now; 0 means never.
func stopAt(schedule []spec.Period, now time.Time) int64 {
	if len(schedule) == 0 {
		return 0
	}

	unit := map[string]time.Duration{"DAYS": 24 * time.Hour, "HOURS": time.Hour, "MINUTES": time.Minute}[schedule[0].TimeUnit]
	if unit == 0 || schedule[0].Duration < 1 || schedule[0].Duration > 1_000_000 {
		return 0 // Validate tells
	}

	return now.UnixMilli() + int64(schedule[0].Duration)*unit.Milliseconds()
}

// finish adds what Validate finds and makes one fault of everything.
func (m *mistakes) finish(s *spec.Service) error {
	told := make(map[string]bool, len(m.errs))
	for _, err := range m.errs {
		var f *spec.FieldError
		if errors.As(err, &f) {
			told[f.Path] = true
		}
	}

	for _, err := range web.Flatten(s.Validate()) {
		var f *spec.FieldError
		if !errors.As(err, &f) || !told[f.Path] {
			m.errs = append(m.errs, err)
		}
	}

	return web.Invalid(m.errs...)
}

func value[T any](p *T) T {
	if p == nil {
		var zero T

		return zero
	}

	return *p
}

func assign[T any](dst, given *T) {
	if given != nil {
		*dst = *given
	}
}

func encode(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic("BUG: decoded JSON does not encode: " + err.Error())
	}

	return string(data)
}

// decode reads what encode wrote; nothing gives the zero value.
func decode(text string, dst any) {
	if text == "" {
		return
	}

	if err := json.Unmarshal([]byte(text), dst); err != nil {
		panic("BUG: stored fields do not decode: " + err.Error())
	}
}

func orZero(s string) string { return cmp.Or(s, "0") }
