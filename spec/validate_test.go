package spec_test

import (
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/spec"
)

func TestNames(t *testing.T) {
	t.Parallel()

	for name, want := range map[string]bool{
		"mnist": true, "数字-识别_1": true, "-": true, strings.Repeat("a", 64): true, strings.Repeat("数", 64): true,
		"": false, strings.Repeat("a", 65): false, "a b": false, "a.b": false, "a/b": false, "é": false, "a\x00": false, "\xff": false,
	} {
		if got := spec.ValidateModelName(name) == nil; got != want {
			t.Errorf("model name %q: ok = %v", name, got)
		}

		if got := spec.ValidateServiceName(name) == nil; got != want {
			t.Errorf("service name %q: ok = %v", name, got)
		}
	}
}

func TestModelVersions(t *testing.T) {
	t.Parallel()

	for version, want := range map[string]bool{
		"0.0.0": true, "1.0.0": true, "10.99.12": true,
		"": false, "1.0": false, "1.0.0.0": false, "01.0.0": false, "1.0.100": false, "1.0.0\n": false, "v1.0.0": false, "1.-1.0": false,
	} {
		if got := spec.ValidateModelVersion(version) == nil; got != want {
			t.Errorf("version %q: ok = %v", version, got)
		}
	}
}

func TestDescriptions(t *testing.T) {
	t.Parallel()

	for _, c := range []struct {
		text           string
		model, service bool
	}{
		{"", true, true},
		{"手写数字 (v2), 97 %", true, true},
		{strings.Repeat("数", 100), true, true},
		{strings.Repeat("a", 101), false, false},
		{"a&b", false, false},
		{"a=b", false, false},
		{"<b>", false, false},
		{"it's", false, false},
		{"a+b", true, false},
		{"\xff", false, false},
	} {
		if got := spec.ValidateDescription(c.text) == nil; got != c.model {
			t.Errorf("model description %q: ok = %v", c.text, got)
		}

		if got := spec.ValidateServiceDescription(c.text) == nil; got != c.service {
			t.Errorf("service description %q: ok = %v", c.text, got)
		}
	}
}

func goodService() spec.Service {
	return spec.Service{
		Name: "mnist", InferType: "real-time",
		Entries: []spec.Entry{
			{ModelID: "a", Weight: 70, Specification: "local.cpu", InstanceCount: 1, MaxSurge: 1},
			{ModelID: "b", Weight: 30, Specification: "custom", CustomSpec: &spec.CustomSpec{CPU: 1.5, Memory: 512}, InstanceCount: 128, MaxUnavailable: 0.25},
		},
		Tags:     []spec.Tag{{Key: "team a", Value: "x/y"}},
		Schedule: []spec.Period{{Type: "stop", TimeUnit: "HOURS", Duration: 1}},
		Policy: spec.Policy{
			AuthTypes: []spec.AuthType{spec.AuthToken, spec.AuthNone},
			Traffic: spec.TrafficPolicy{
				Sticky: &spec.Sticky{By: "header", Name: "X-User"},
				Rules: []spec.Rule{
					{ModelID: "b", Match: spec.Match{Header: &spec.NameValue{Name: "x-gray", Value: "1"}}},
					{ModelID: "a", Match: spec.Match{CIDR: "10.0.0.0/8"}},
					{ModelID: "a", Match: spec.Match{CIDR: "::1"}},
				},
			},
			Retry:  spec.RetryPolicy{Attempts: 3, PerTryTimeoutSeconds: 1},
			Limits: spec.Limits{RequestsPerSecond: 10, Burst: 5},
		},
	}
}

func TestServiceValidateAccepts(t *testing.T) {
	t.Parallel()

	s := goodService()
	if err := s.Validate(); err != nil {
		t.Error(err)
	}

	batch := spec.Service{Name: "b", InferType: "batch", Entries: []spec.Entry{{ModelID: "a", Specification: "x", InstanceCount: 1, MaxSurge: 1}}}
	if err := batch.Validate(); err != nil {
		t.Errorf("batch without weight: %v", err)
	}

	dark := goodService()
	dark.Entries[0].Weight, dark.Entries[1].Weight = 100, 0

	if err := dark.Validate(); err != nil {
		t.Errorf("dark launch: %v", err)
	}
}

func TestServiceValidateRefuses(t *testing.T) {
	t.Parallel()

	for path, spoil := range map[string]func(*spec.Service){
		"service_name":                    func(s *spec.Service) { s.Name = "" },
		"description":                     func(s *spec.Service) { s.Description = "a+b" },
		"infer_type":                      func(s *spec.Service) { s.InferType = "realtime" },
		"priority":                        func(s *spec.Service) { s.Priority = 4 },
		"config":                          func(s *spec.Service) { s.Entries[0].Weight = 71 },
		"config[1].model_id":              func(s *spec.Service) { s.Entries[1].ModelID, s.Policy.Traffic.Rules = "", nil },
		"config[0].instance_count":        func(s *spec.Service) { s.Entries[0].InstanceCount = 0 },
		"config[1].instance_count":        func(s *spec.Service) { s.Entries[1].InstanceCount = 129 },
		"config[0].specification":         func(s *spec.Service) { s.Entries[0].Specification = "" },
		"config[1].custom_spec":           func(s *spec.Service) { s.Entries[1].CustomSpec = nil },
		"config[1].custom_spec.cpu":       func(s *spec.Service) { s.Entries[1].CustomSpec.CPU = math.NaN() },
		"config[1].custom_spec.memory":    func(s *spec.Service) { s.Entries[1].CustomSpec.Memory = 0 },
		"config[1].custom_spec.gpu":       func(s *spec.Service) { s.Entries[1].CustomSpec.GPU = -1 },
		`config[0].envs["A=B"]`:           func(s *spec.Service) { s.Entries[0].Envs = map[string]string{"A=B": ""} },
		"config[0].envs.A":                func(s *spec.Service) { s.Entries[0].Envs = map[string]string{"A": "\x00"} },
		"config[0].additional_properties": func(s *spec.Service) { s.Entries[0].MaxSurge = 0 },
		"tags[0].key":                     func(s *spec.Service) { s.Tags[0].Key = "_sys_x" },
		"tags[0].value":                   func(s *spec.Service) { s.Tags[0].Value = "a\nb" },
		"tags[1].key":                     func(s *spec.Service) { s.Tags = append(s.Tags, s.Tags[0]) },
		"schedule[0].time_unit":           func(s *spec.Service) { s.Schedule[0].TimeUnit = "WEEKS" },
		"schedule[0].type":                func(s *spec.Service) { s.Schedule[0].Type = "start" },
		"schedule[0].duration":            func(s *spec.Service) { s.Schedule[0].Duration = 0 },
		"schedule":                        func(s *spec.Service) { s.Schedule = append(s.Schedule, s.Schedule[0]) },
		"auth_types[1]":                   func(s *spec.Service) { s.Policy.AuthTypes[1] = "BASIC" },
		"traffic_policy.sticky.by":        func(s *spec.Service) { s.Policy.Traffic.Sticky.By = "ip" },
		"traffic_policy.sticky.name":      func(s *spec.Service) { s.Policy.Traffic.Sticky.Name = "" },
		"traffic_policy.rules[0].name":    func(s *spec.Service) { s.Policy.Traffic.Rules[0].Name = "a\r\nX-Evil: 1" },
		"traffic_policy.rules[0].match.header.value": func(s *spec.Service) {
			s.Policy.Traffic.Rules[0].Match.Header = &spec.NameValue{Name: "X", Value: "a\nb"}
		},
		"traffic_policy.rules[0].model_id": func(s *spec.Service) { s.Policy.Traffic.Rules[0].ModelID = "c" },
		"traffic_policy.rules[0].match":    func(s *spec.Service) { s.Policy.Traffic.Rules[0].Match = spec.Match{} },
		"traffic_policy.rules[0].match.header.name": func(s *spec.Service) {
			s.Policy.Traffic.Rules[0].Match.Header.Name = "a b"
		},
		"traffic_policy.rules[1].match.cidr":        func(s *spec.Service) { s.Policy.Traffic.Rules[1].Match.CIDR = "10.0.0.0/33" },
		"retry_policy.attempts":                     func(s *spec.Service) { s.Policy.Retry.Attempts = 11 },
		"retry_policy.per_try_timeout_seconds":      func(s *spec.Service) { s.Policy.Retry.PerTryTimeoutSeconds = -1 },
		"limits.requests_per_second":                func(s *spec.Service) { s.Policy.Limits.RequestsPerSecond = math.Inf(1) },
		"limits.body_bytes":                         func(s *spec.Service) { s.Policy.Limits.BodyBytes = -1 },
		"config[0].deploy_timeout_in_seconds":       func(s *spec.Service) { s.Entries[0].DeployTimeoutSeconds = -1 },
		"config[0].additional_properties.max_surge": func(s *spec.Service) { s.Entries[0].MaxSurge = 1.5 },
		"config[1].additional_properties.max_unavailable": func(s *spec.Service) {
			s.Entries[1].MaxUnavailable = math.NaN()
		},
		"config[0].additional_properties.termination_grace_period_seconds": func(s *spec.Service) {
			s.Entries[0].TerminationGraceSeconds = 301
		},
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()

			s := goodService()
			spoil(&s)

			err := s.Validate()
			if err == nil {
				t.Fatal("accepted")
			}

			if got := paths(t, err); !reflect.DeepEqual(got, []string{path}) {
				t.Errorf("mistakes at %v: %v", got, err)
			}
		})
	}
}

func TestServiceValidateReportsAllAtOnce(t *testing.T) {
	t.Parallel()

	s := spec.Service{InferType: "real-time", Entries: []spec.Entry{
		{ModelID: "a", Weight: 101, Specification: "x", InstanceCount: 1, MaxSurge: 1},
		{ModelID: "a", Weight: 1, InstanceCount: 1, MaxSurge: 1},
	}}

	want := []string{"config", "config[0].weight", "config[1].model_id", "config[1].specification", "service_name"}
	if got := paths(t, s.Validate()); !reflect.DeepEqual(got, want) {
		t.Errorf("mistakes at %v, want %v", got, want)
	}

	batch := spec.Service{Name: "b", InferType: "batch", Entries: append(s.Entries[:1:1], s.Entries[0])}
	if err := batch.Validate(); err == nil || !strings.Contains(err.Error(), "one entry for infer_type batch") {
		t.Errorf("batch with two entries: %v", err)
	}

	empty := spec.Service{Name: "b", InferType: "real-time"}
	if got := paths(t, empty.Validate()); !reflect.DeepEqual(got, []string{"config"}) {
		t.Errorf("no entries: mistakes at %v", got)
	}
}
