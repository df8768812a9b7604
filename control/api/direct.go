package api

import (
	"cmp"
	"fmt"
	"net"
	"strconv"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/direct"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// Bounds of a direct channel.
const (
	maxDirectAllow = 64
	minDirectKey   = 16
	maxDirectKey   = 256
)

// directIn is direct_channel of a service. It replaces what there was, key included.
type directIn struct {
	Enabled bool     `json:"enabled"`
	Allow   []string `json:"allow"`
	Key     string   `json:"key"`
}

func (in *directIn) apply(s *spec.Service, m *mistakes) {
	if in == nil {
		return
	}

	if !in.Enabled {
		s.Direct = nil

		return
	}

	if len(in.Allow) > maxDirectAllow {
		m.addf("direct_channel.allow", "must have at most %d elements, has %d", maxDirectAllow, len(in.Allow))

		return
	}

	for i, a := range in.Allow {
		if _, err := direct.ParsePrefix(a); err != nil {
			m.addf(fmt.Sprintf("direct_channel.allow[%d]", i), "must be an address or a prefix such as 10.0.0.0/8, got %q", clip(a))
		}
	}

	d := &spec.Direct{Allow: in.Allow}

	if n := len(in.Key); n > 0 {
		if n < minDirectKey || n > maxDirectKey || !visible(in.Key) {
			m.addf("direct_channel.key", "must have %d to %d visible ASCII characters", minDirectKey, maxDirectKey)
		}

		d.KeyHash = direct.HashKey(in.Key)
	}

	s.Direct = d
}

// visible reports whether s can stand in a header as it is.
func visible(s string) bool {
	for i := range len(s) {
		if s[i] <= ' ' || s[i] > '~' {
			return false
		}
	}

	return true
}

// directView shows a direct channel without its key.
type directView struct {
	Enabled bool     `json:"enabled"`
	Allow   []string `json:"allow,omitempty"`
	HasKey  bool     `json:"has_key"`
}

func viewDirect(d *spec.Direct) directView {
	if d == nil {
		return directView{}
	}

	return directView{Enabled: true, Allow: d.Allow, HasKey: d.KeyHash != ""}
}

type endpointView struct {
	InstanceID string `json:"instance_id"`
	ModelID    string `json:"model_id"`
	Schema     string `json:"schema"`
	IP         string `json:"ip"`
	Port       int    `json:"port"`
	// Weight is that of the model version; its instances share it.
	Weight int    `json:"weight"`
	Status string `json:"status"`
	// GRPCPort is the door for gRPC, at instances that have one.
	GRPCPort int `json:"grpc_port,omitempty"`
}

// listEndpoints tells the addresses of ready instances, for callers that skip the edge.
func (a *API) listEndpoints(r *web.Request) (any, error) {
	if err := a.calls.allow(r.Principal); err != nil {
		return nil, err
	}

	q := r.Query()
	_ = q.Enum("type", "host_endpoints", "host_endpoints")

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	s := &it.Value

	switch {
	case s.Direct == nil:
		return nil, fault.New(fault.Forbidden, "The direct channel of service %s is off; direct_channel turns it on.", s.Name)
	case s.Stopped || s.Deleting:
		return nil, fault.New(fault.ServiceNotRunning, "Invalid request because requested service %s is unavailable.", s.Name)
	}

	instances, err := a.instances(r, it.ID)
	if err != nil {
		return nil, err
	}

	views := []endpointView{}

	for i := range instances {
		if v, ok := viewEndpoint(&instances[i], s); ok {
			views = append(views, v)
		}
	}

	return map[string]any{"service_id": it.ID, "endpoints": views}, nil
}

// viewEndpoint shows an instance that is able to serve callers past the gateway.
func viewEndpoint(inst *spec.Instance, s *spec.Service) (endpointView, bool) {
	host, port, ok := hostPort(inst.Direct)
	if !ok || inst.State != spec.InstanceReady {
		return endpointView{}, false
	}

	v := endpointView{
		InstanceID: inst.ID, ModelID: inst.ModelID, Schema: cmp.Or(inst.DirectScheme, "http"), IP: host, Port: port,
		Status: string(inst.State),
	}
	_, v.GRPCPort, _ = hostPort(inst.DirectGRPC)

	for i := range s.Entries {
		if s.Entries[i].ModelID == inst.ModelID {
			v.Weight = s.Entries[i].Weight
		}
	}

	return v, true
}

func hostPort(address string) (host string, port int, ok bool) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, false
	}

	port, err = strconv.Atoi(text)

	return host, port, err == nil
}
