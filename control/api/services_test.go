package api_test

import (
	"fmt"
	"maps"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/spec"
)

func TestServiceIsCreatedAndShown(t *testing.T) {
	t.Parallel()

	p := start(t)
	m1, m2 := p.model("tf", "3.0.0"), p.model("tf", "3.0.1")
	body := serviceBody("服务-1_a",
		entry(m1, "70", "envs", map[string]string{"A": "b"}, "additional_properties", map[string]any{
			"max_surge": 0.5, "max_unavailable": 1, "termination_grace_period_seconds": 60,
			"persistent_volumes": []any{map[string]any{"name": "v", "mount_path": "/x"}},
		}, "pool_name", "pool"),
		entry(m2, 30, "specification", "custom", "custom_spec", map[string]any{"cpu": 1.5, "memory": 7500, "gpu_p4": 0.5}, "deploy_timeout_in_seconds", 30))

	maps.Copy(body, map[string]any{
		"description": "demo", "workspace_id": "0", "load_balancer_policy": "LEAST_CONNECTIONS", "priority": 2, "vpc_id": "v", "extra": 1,
		"additional_properties": map[string]any{"websocket_upgrade": true, "smn_notification": map[string]any{"topic_urn": "u", "events": []int{3}}},
		"auth_types":            []string{"TOKEN", "NONE"},
		"traffic_policy": map[string]any{
			"sticky": map[string]any{"by": "header", "name": "X-User"},
			"rules":  []any{map[string]any{"match": map[string]any{"header": map[string]any{"name": "X-Gray", "value": "1"}}, "model_id": m2}},
		},
		"retry_policy":    map[string]any{"attempts": 2},
		"limits":          map[string]any{"requests_per_second": 5.5, "burst": 7, "concurrency": 3, "body_bytes": 1000, "timeout_seconds": 9},
		"service_secrets": []any{map[string]any{"secretId": "s", "mouthPath": "/m"}},
		"tags":            []any{map[string]any{"key": "team", "value": "a"}},
		"schedule":        []any{map[string]any{"type": "stop", "time_unit": "HOURS", "duration": 1}},
	})

	made := p.want(p.call("POST", "/services", body), 200)
	id := made.get("service_id")

	if len(id) != 36 || !strings.HasPrefix(made.get("resource_ids.0"), "INF-") {
		t.Fatalf("got %s", made.Body)
	}

	a := p.want(p.call("GET", "/services/"+id, nil), 200)
	for path, want := range map[string]string{
		"service_id": id, "service_name": "服务-1_a", "description": "demo", "infer_type": "real-time", "status": "deploying", "progress": "0",
		"project": p.boot.ProjectID, "workspace_id": "0", "access_address": "https://edge.example:8443/v1/infers/" + id,
		"invocation_times": "7", "failed_times": "2", "is_shared": "false", "shared_count": "0", "is_free": "true",
		"load_balancer_policy": "LEAST_CONNECTIONS", "priority": "2", "vpc_id": "v", "additional_properties.websocket_upgrade": "true",
		"additional_properties.smn_notification.topic_urn": "u", "auth_types": "[TOKEN NONE]", "traffic_policy.sticky.name": "X-User",
		"traffic_policy.rules.0.model_id": m2, "retry_policy.attempts": "2", "limits.requests_per_second": "5.5", "limits.burst": "7",
		"service_secrets.0.mouthPath": "/m", "tags.0.key": "team", "schedule.0.time_unit": "HOURS",
		"config.0.model_id": m1, "config.0.model_name": "tf", "config.0.model_version": "3.0.0", "config.0.weight": "70",
		"config.0.instance_count": "1", "config.0.envs.A": "b", "config.0.status": "notReady", "config.0.scaling": "false",
		"config.0.additional_properties.max_surge": "0.5", "config.0.additional_properties.max_unavailable": "1",
		"config.0.additional_properties.termination_grace_period_seconds": "60", "config.0.pool_name": "pool",
		"config.0.additional_properties.persistent_volumes.0.mount_path": "/x",
		"config.1.custom_spec.cpu":                                       "1.5", "config.1.custom_spec.memory": "7500", "config.1.custom_spec.gpu_p4": "0.5",
		"config.1.specification": "custom", "config.1.additional_properties.max_surge": "1", "config.1.deploy_timeout_in_seconds": "30",
	} {
		if got := a.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	for _, path := range []string{"publish_at", "update_time", "transition_at", "operation_time", "due_time", "tenant", "owner"} {
		if a.get(path) == "" || a.get(path) == "0" {
			t.Errorf("%s is missing", path)
		}
	}

	it, err := p.st.Services.Get(t.Context(), id)
	must(t, err)

	s := it.Value
	if !s.WebSocket || s.Generation != 1 || s.StopAt < time.Now().Add(50*time.Minute).UnixMilli() || s.Entries[0].MaxUnavailable != 1 ||
		s.Entries[0].TerminationGraceSeconds != 60 || s.Entries[1].CustomSpec.CPU != 1.5 || s.Policy.Limits.BodyBytes != 1000 {
		t.Errorf("stored %+v", s)
	}
}

func TestServiceMistakesAreNamed(t *testing.T) {
	t.Parallel()

	p := start(t)
	m := p.model("m", "1.0.0")
	with := func(change ...any) map[string]any {
		b := serviceBody("s", entry(m, 100))
		for i := 0; i < len(change); i += 2 {
			b[change[i].(string)] = change[i+1]
		}

		return b
	}
	config := func(change ...any) map[string]any { return with("config", []any{entry(m, 100, change...)}) }

	for field, b := range map[string]map[string]any{
		"service_name] is required":              with("service_name", nil),
		"service_name] must hold only":           with("service_name", "a/b"),
		"infer_type] is required":                with("infer_type", nil),
		"infer_type] must be":                    with("infer_type", "online"),
		"description":                            with("description", "a+b"),
		"config] is required":                    with("config", nil),
		"config] must have at least one":         with("config", []any{}),
		"config] must be an array":               with("config", map[string]any{}),
		"config] weights must sum to 100":        config("weight", 99),
		"config[0].weight] is required":          config("weight", nil),
		"config[0].weight]":                      config("weight", "x"),
		"config[0].weight] must be 0 to 100":     config("weight", 101),
		"config[1].model_id] names the model":    with("config", []any{entry(m, 50), entry(m, 50)}),
		"config[0].model_id] is required":        config("model_id", ""),
		"config[0].model_id] must be a string":   config("model_id", 7),
		"config[0].instance_count] is required":  config("instance_count", nil),
		"config[0].instance_count] must be 1":    config("instance_count", 0),
		"config[0].instance_count] must be 1 to": config("instance_count", 129),
		"config[0].specification] is required":   config("specification", ""),
		"config[0].specification] must be one":   config("specification", "modelarts.vm.gpu.huge"),
		"config[0].custom_spec":                  config("specification", "custom"),
		"config[0].custom_spec.cpu":              config("specification", "custom", "custom_spec", map[string]any{"cpu": 0.001, "memory": 1}),
		"config[0].envs.A] must be a string":     config("envs", map[string]any{"A": 1}),
		"config[0].additional_properties.max_su": config("additional_properties", map[string]any{"max_surge": -1}),
		"config[0].additional_properties.termin": config("additional_properties", map[string]any{"termination_grace_period_seconds": 301}),
		"config[0].additional_properties] max_s": config("additional_properties", map[string]any{"max_surge": 0, "max_unavailable": 0}),
		"priority] must be 1 to 3":               with("priority", 4),
		"load_balancer_policy":                   with("load_balancer_policy", "RANDOM"),
		"schedule[0].time_unit":                  with("schedule", []any{map[string]any{"type": "stop", "time_unit": "YEARS", "duration": 1}}),
		"schedule[0].duration":                   with("schedule", []any{map[string]any{"type": "stop", "time_unit": "DAYS", "duration": 0}}),
		"auth_types[0]":                          with("auth_types", []string{"BASIC"}),
		"traffic_policy.stikcy] is unknown":      with("traffic_policy", map[string]any{"stikcy": 1}),
		"traffic_policy.sticky.by":               with("traffic_policy", map[string]any{"sticky": map[string]any{"by": "moon"}}),
		"traffic_policy.rules[0].model_id":       with("traffic_policy", map[string]any{"rules": []any{map[string]any{"match": map[string]any{"app": "a"}, "model_id": "x"}}}),
		"limits.requests_per_second":             with("limits", map[string]any{"requests_per_second": -1}),
		"limits.rps] is unknown":                 with("limits", map[string]any{"rps": 1}),
		"retry_policy.attempts":                  with("retry_policy", map[string]any{"attempts": 99}),
		"tags[0].key":                            with("tags", []any{map[string]any{"key": " x"}}),
		"additional_properties.websocket_upgrad": with("additional_properties", map[string]any{"websocket_upgrade": "yes"}),
	} {
		p.refused(p.call("POST", "/services", b), 400, "ModelArts.0101", "["+field)
	}

	p.refused(p.call("POST", "/services", config("model_id", "0e07b41b-173e-42db-8c16-8e1b44cc0d44")), 404, "ModelArts.3001", "config[0].model_id")
	p.refused(p.call("POST", "/services", with("infer_type", "batch")), 501, "Sluice.1007", "batch")

	must(t, p.st.Models.Put(t.Context(), "0e07b41b-173e-42db-8c16-8e1b44cc0d44", spec.Model{ProjectID: p.boot.ProjectID, Status: spec.ModelFailed, FailReason: "broken"}))
	p.refused(p.call("POST", "/services", config("model_id", "0e07b41b-173e-42db-8c16-8e1b44cc0d44")), 400, "ModelArts.3515", "broken")

	if services, _, err := p.st.Services.List(t.Context()); err != nil || len(services) > 0 {
		t.Errorf("refused services were stored: %v, %v", services, err)
	}

	p.want(p.call("POST", "/services", with()), 200)
	p.refused(p.call("POST", "/services", with()), 409, "ModelArts.3503", "Service s already exists")
}

func TestServiceStatusFollowsWhatWasObserved(t *testing.T) {
	t.Parallel()

	p := start(t)
	m := p.model("m", "1.0.0")
	id := p.service("s", m)
	status := func() string { return p.want(p.call("GET", "/services/"+id, nil), 200).get("status") }

	for _, c := range []struct {
		state spec.ServiceState
		want  string
	}{
		{spec.ServiceState{Status: spec.ServiceDeploying, Generation: 1, Progress: 50}, "deploying"},
		{spec.ServiceState{Status: spec.ServiceRunning, Generation: 1}, "running"},
		{spec.ServiceState{Status: spec.ServiceRunning, Generation: 0}, "deploying"}, // of an older declaration
		{spec.ServiceState{Status: spec.ServiceConcerning, Generation: 1}, "concerning"},
		{spec.ServiceState{Status: spec.ServiceFailed, Generation: 1, ErrorMsg: "no luck"}, "failed"},
	} {
		p.observe(id, c.state)

		a := p.call("GET", "/services/"+id, nil)
		if a.get("status") != c.want || (a.get("progress") != "") != (c.want == "deploying") ||
			(a.get("error_msg") == "no luck") != (c.want == "failed") {
			t.Errorf("%+v: %s", c.state, a.Body)
		}
	}

	must(t, p.st.Instances.Put(t.Context(), id+"/i1", spec.Instance{ServiceID: id, ModelID: m, State: spec.InstanceReady}))
	p.observe(id, spec.ServiceState{Status: spec.ServiceRunning, Generation: 1})

	if a := p.call("GET", "/services/"+id, nil); a.get("config.0.status") != "ready" || a.get("config.0.running_instance_count") != "1" {
		t.Errorf("got %s", a.Body)
	}

	p.want(p.call("PUT", "/services/"+id, `{"status":"stopped","config":[{"nonsense":1}]}`), 200)

	if s := status(); s != "stopping" {
		t.Errorf("after stop: %s", s)
	}

	p.observe(id, spec.ServiceState{Status: spec.ServiceStopped, Generation: 1})

	if s := status(); s != "stopped" {
		t.Errorf("stopped: %s", s)
	}

	if a := p.want(p.call("PUT", "/services/"+id, `{"status":"running"}`), 200); strings.TrimSpace(a.Body.String()) != "{}" {
		t.Errorf("got %s", a.Body)
	}

	if s := status(); s != "deploying" {
		t.Errorf("after start: %s", s)
	}

	p.refused(p.call("PUT", "/services/"+id, `{"status":"paused"}`), 400, "ModelArts.0101", "[status]")
}

func TestServiceUpdate(t *testing.T) {
	t.Parallel()

	p := start(t)
	m1, m2 := p.model("m", "1.0.0"), p.model("m", "1.0.1")
	id := p.service("s", m1)
	stored := func() spec.Service {
		it, err := p.st.Services.Get(t.Context(), id)
		must(t, err)

		return it.Value
	}

	if a := p.want(p.call("PUT", "/services/"+id, `{"description":"new","limits":{"concurrency":4}}`), 200); a.get("update_time") != "" {
		t.Errorf("a description is no upgrade: %s", a.Body)
	}

	if s := stored(); s.Description != "new" || s.Policy.Limits.Concurrency != 4 || s.Generation != 1 || s.Entries[0].ModelID != m1 {
		t.Errorf("stored %+v", s)
	}

	a := p.want(p.call("PUT", "/services/"+id, map[string]any{"config": []any{entry(m1, 40), entry(m2, 60)}}), 200)
	if a.get("update_time") == "" || a.get("resource_ids.1") == "" {
		t.Errorf("got %s", a.Body)
	}

	if s := stored(); s.Generation != 2 || len(s.Entries) != 2 || s.Entries[1].ModelVersion != "1.0.1" {
		t.Errorf("stored %+v", s)
	}

	for field, body := range map[string]string{
		"config] weights":  `{"config":[{"model_id":"` + m1 + `","weight":1,"specification":"local.cpu","instance_count":1}]}`,
		"service_name":     `{"service_name":"other"}`,
		"infer_type":       `{"infer_type":"batch"}`,
		"upgrade_action":   `{"upgrade_action":"hurry"}`,
		"description":      `{"description":7}`,
		"config[0].weight": `{"config":[{"model_id":"` + m1 + `","specification":"local.cpu","instance_count":1}]}`,
	} {
		p.refused(p.call("PUT", "/services/"+id, body), 400, "ModelArts.0101", "["+field)
	}

	p.want(p.call("PUT", "/services/"+id, `{"upgrade_action":"pause"}`), 200)

	if !stored().UpgradePaused {
		t.Error("not paused")
	}

	p.want(p.call("PUT", "/services/"+id, `{"upgrade_action":"abort"}`), 200)

	if s := stored(); s.UpgradePaused || s.UpgradeAborted != 2 {
		t.Errorf("stored %+v", s)
	}

	p.want(p.call("PUT", "/services/"+id, `{"additional_properties":{"websocket_upgrade":true}}`), 200)
	p.refused(p.call("PUT", "/services/"+id, `{"additional_properties":{"websocket_upgrade":false}}`), 400, "ModelArts.0101", "websocket_upgrade")
	p.refused(p.call("PUT", "/services/0e07b41b-173e-42db-8c16-8e1b44cc0d44", `{}`), 404, "ModelArts.3502", "")
}

func TestServicePatch(t *testing.T) {
	t.Parallel()

	p := start(t)
	m1, m2 := p.model("m", "1.0.0"), p.model("m", "1.0.1")
	id := p.want(p.call("POST", "/services", serviceBody("s", entry(m1, 100, "envs", map[string]string{"A": "1"},
		"custom_spec", map[string]any{"cpu": 2, "memory": 100, "ascend_a310": 1}, "specification", "custom",
		"src_path", "x", "additional_properties", map[string]any{"log_volume": []any{map[string]any{"host_path": "/h"}}}))), 200).get("service_id")

	patch := func(ops ...string) answer {
		return p.call("PATCH", "/services/"+id, "["+strings.Join(ops, ",")+"]")
	}
	op := func(path, value string) string {
		return fmt.Sprintf(`{"op":"replace","path":%q,"value":%s}`, path, value)
	}

	a := p.want(patch(op("/config/0/instance_count", "3"), op("/config/0/model_id", `"`+m2+`"`), op("/config/0/envs/B~1C", `"2"`)), 200)
	if a.get("update_time") == "" || a.get("resource_ids.0") == "" {
		t.Errorf("got %s", a.Body)
	}

	it, err := p.st.Services.Get(t.Context(), id)
	must(t, err)

	e := it.Value.Entries[0]
	if e.InstanceCount != 3 || e.ModelID != m2 || e.ModelVersion != "1.0.1" || e.Envs["A"] != "1" || e.CustomSpec.Memory != 100 || it.Value.Generation != 2 {
		t.Errorf("stored %+v", e)
	}

	shown := p.call("GET", "/services/"+id, nil)
	if shown.get("config.0.custom_spec.ascend_a310") != "1" || shown.get("config.0.src_path") != "x" ||
		shown.get("config.0.additional_properties.log_volume.0.host_path") != "/h" {
		t.Errorf("a patch lost something: %s", shown.Body)
	}

	p.want(patch(op("/config/0/additional_properties/max_surge", "2"), op("/config/0/envs", "{}")), 200)
	p.want(patch(op("/config/0/envs", "{}")), 200) // nothing changes

	for text, ops := range map[string][]string{
		"[[0].op]":                           {`{"op":"remove","path":"/config/0/envs"}`},
		"[[0].path] must begin with":         {op("/description", `"x"`)},
		"[[0].path] must begin":              {op("/config", `[]`)},
		"[[0].path] names no field":          {op("/config/0/color", `"x"`)},
		"[[0].path] leads nowhere":           {op("/config/5/envs", `{}`)},
		"[[0].path] leads":                   {op("/config/00/envs", `{}`)},
		"[[1].value] is required":            {op("/config/0/weight", "100"), `{"op":"replace","path":"/config/0/weight"}`},
		"[config[0].instance_count]":         {op("/config/0/instance_count", `"many"`)},
		"[config] weights":                   {op("/config/0/weight", "1")},
		"[config[0].envs] must be an object": {op("/config/0/envs", `"x"`)},
		"1 to 100 operations":                {},
	} {
		p.refused(patch(ops...), 400, "ModelArts.0101", text)
	}

	p.refused(p.call("PATCH", "/services/"+id, `{"op":"replace"}`), 400, "ModelArts.0101", "must be an array")
}

func TestConcurrentChangesAreAllKept(t *testing.T) {
	t.Parallel()

	p := start(t)
	id := p.service("s", p.model("m", "1.0.0"))

	var wg sync.WaitGroup
	for i := range 5 {
		wg.Go(func() {
			a := p.call("POST", "/services/"+id+"/tags/create", fmt.Sprintf(`{"tags":[{"key":"k%d","value":"v"}]}`, i))
			if a.Code != 204 {
				t.Errorf("got %d %s", a.Code, a.Body)
			}
		})
	}

	wg.Wait()

	it, err := p.st.Services.Get(t.Context(), id)
	must(t, err)

	if len(it.Value.Tags) != 5 {
		t.Fatalf("tags %+v", it.Value.Tags)
	}
}

func TestServiceDeletion(t *testing.T) {
	t.Parallel()

	p := start(t)
	m := p.model("m", "1.0.0")
	a, b, c := p.service("a", m), p.service("b", m), p.service("c", m)

	p.refused(p.call("DELETE", "/services/"+a+",0e07b41b-173e-42db-8c16-8e1b44cc0d44", nil), 404, "ModelArts.3502", "")

	if s := p.call("GET", "/services/"+a, nil).get("status"); s != "deploying" {
		t.Errorf("half of a refused deletion happened: %s", s)
	}

	if got := p.want(p.call("DELETE", "/services/"+a+","+b, nil), 200); got.Body.String() != "{}" {
		t.Errorf("got %s", got.Body)
	}

	for _, id := range []string{a, b} {
		if s := p.call("GET", "/services/"+id, nil).get("status"); s != "deleting" {
			t.Errorf("status %s", s)
		}
	}

	p.service("a", m) // the name is free
	p.refused(p.call("PUT", "/services/"+b, `{"description":"x"}`), 409, "ModelArts.3519", "being deleted")
	p.want(p.call("DELETE", "/services/"+b, nil), 200) // twice is no harm
	p.refused(p.as(p.user("c", spec.RoleCaller), "DELETE", "/services/"+c, nil), 403, "APIG.0302", "")
}

func TestServiceList(t *testing.T) {
	t.Parallel()

	p := start(t)
	m1, m2 := p.model("m", "1.0.0"), p.model("n", "1.0.0")
	a, b := p.service("alpha", m1), p.service("beta", m2)
	p.observe(b, spec.ServiceState{Status: spec.ServiceRunning, Generation: 1, TransitionAt: 5})
	p.want(p.call("POST", "/services/"+a+"/tags/create", `{"tags":[{"key":"team","value":"x"}]}`), 204)

	for query, want := range map[string]string{
		"": "beta,alpha", "order=asc": "alpha,beta", "sort_by=service_name": "beta,alpha", "sort_by=transition_at&order=asc": "beta,alpha",
		"service_name=ALPH": "alpha", "service_id=" + b: "beta", "model_id=" + m1: "alpha", "status=running": "beta", "status=deploying": "alpha",
		"infer_type=batch": "", "infer_type=real-time": "beta,alpha", "workspace_id=7": "", "tags=team": "alpha", "tags=team=y": "",
		"limit=1": "beta", "offset=1": "alpha",
	} {
		got := p.want(p.call("GET", "/services?"+query, nil), 200)

		var names []string
		for i := 0; got.get(fmt.Sprintf("services.%d.service_id", i)) != ""; i++ {
			names = append(names, got.get(fmt.Sprintf("services.%d.service_name", i)))
		}

		if s := strings.Join(names, ","); s != want || got.get("count") != strconv.Itoa(len(names)) {
			t.Errorf("%s: %s, want %s", query, s, want)
		}
	}

	p.refused(p.call("GET", "/services?status=x", nil), 400, "ModelArts.0101", "[status]")
}

func TestServiceTags(t *testing.T) {
	t.Parallel()

	p := start(t)
	m := p.model("m", "1.0.0")
	a, b := p.service("a", m), p.service("b", m)

	p.want(p.call("POST", "/services/"+a+"/tags/create", `{"tags":[{"key":"env","value":"1"},{"key":"team"}]}`), 204)
	p.want(p.call("POST", "/services/"+a+"/tags/create", `{"tags":[{"key":"env","value":"2"}]}`), 204)
	p.want(p.call("POST", "/services/"+b+"/tags/create", `{"tags":[{"key":"env","value":"3"}]}`), 204)

	if got := p.want(p.call("GET", "/services/tms/tags", nil), 200); got.get("tags.0.key") != "env" || got.get("tags.0.values") != "[2 3]" {
		t.Errorf("got %s", got.Body)
	}

	p.want(p.call("DELETE", "/services/"+a+"/tags/delete", `{"tags":[{"key":"env"}]}`), 204)
	p.refused(p.call("DELETE", "/services/"+a+"/tags/delete", `{"tags":[{"key":"env"}]}`), 404, "Sluice.3002", "env")
	p.refused(p.call("POST", "/services/"+a+"/tags/create", `{"tags":[]}`), 400, "ModelArts.0101", "[tags]")
	p.refused(p.call("POST", "/services/"+a+"/tags/create", `{"tags":[{"key":"_sys_x"}]}`), 400, "ModelArts.0101", "[tags[0].key]")

	many := make([]string, 21)
	for i := range many {
		many[i] = fmt.Sprintf(`{"key":"k%d"}`, i)
	}

	p.refused(p.call("POST", "/services/"+a+"/tags/create", `{"tags":[`+strings.Join(many, ",")+`]}`), 400, "ModelArts.0101", "[tags] must have at most 20")
}

func TestServiceHistoryAndNumbers(t *testing.T) {
	t.Parallel()

	p := start(t)
	m := p.model("m", "1.0.0")
	id := p.service("s", m)

	for i, ev := range []spec.Event{{Type: "normal", Info: "start to deploy service"}, {Type: "abnormal", Info: "Service s failed"}, {Type: "normal", Info: "pulled"}} {
		ev.OccurredAt = int64(100 + i)
		_, err := p.st.Events.Append(t.Context(), id, ev.OccurredAt, ev)
		must(t, err)
	}

	for query, want := range map[string]string{
		"": "102,101,100", "order=asc": "100,101,102", "event_type=abnormal": "101", "event_info=DEPLOY": "100",
		"start_time=101&end_time=101": "101", "limit=1": "102", "offset=2": "100",
	} {
		a := p.want(p.call("GET", "/services/"+id+"/events?"+query, nil), 200)

		var times []string
		for i := 0; a.get(fmt.Sprintf("events.%d.occur_time", i)) != ""; i++ {
			times = append(times, a.get(fmt.Sprintf("events.%d.occur_time", i)))
		}

		if s := strings.Join(times, ","); s != want || a.get("service_name") != "s" {
			t.Errorf("%s: %s, want %s", query, s, want)
		}
	}

	for gen, result := range []spec.UpdateResult{spec.UpdateFail, spec.UpdateRunning} {
		must(t, p.st.UpdateLogs.Set(t.Context(), id, int64(gen), spec.UpdateLog{
			ServiceID: id, UpdateTime: int64(1000 * (gen + 1)), Result: result, Detail: "d", Config: []spec.Entry{{ModelID: m}},
		}))
	}

	if a := p.want(p.call("GET", "/services/"+id+"/logs", nil), 200); a.get("logs.0.result") != "RUNNING" || a.get("logs.1.result") != "FAIL" || a.get("logs.1.config.0.model_id") != m {
		t.Errorf("got %s", a.Body)
	}

	if a := p.want(p.call("GET", "/services/"+id+"/logs?update_time=999", nil), 200); a.get("logs.0.update_time") != "1000" || a.get("logs.1.result") != "" {
		t.Errorf("got %s", a.Body)
	}

	must(t, p.st.Instances.Put(t.Context(), id+"/i", spec.Instance{ModelID: m, State: spec.InstanceReady, Network: "tcp", Address: "127.0.0.1:1", Direct: "10.0.0.1:31997", DirectGRPC: "10.0.0.1:31998", Node: "n1"}))

	a := p.want(p.call("GET", "/services/"+id+"/monitor", nil), 200)
	for path, want := range map[string]string{
		"service_instance_count": "1", "service_running_instance_count": "1", "req_count_per_min": "3", "monitors.0.model_id": m,
		"monitors.0.model_running_instance_count": "1", "monitors.0.node_id": "n1", "monitors.0.cpu_core_total": "1", "monitors.0.cpu_memory_total": "2048",
	} {
		if got := a.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	testDirectChannel(t, p, id, m)

	limited := false
	for range 25 {
		if a := p.call("GET", "/services/"+id+"/predict/endpoints", nil); a.Code == 429 && a.Header().Get("Retry-After") != "" {
			limited = true
		}
	}

	if !limited {
		t.Error("the look-up of endpoints is not limited")
	}

	if a := p.want(p.call("GET", "/services/specifications", nil), 200); a.get("specifications.0.specification") != "local.cpu" || a.get("specifications.0.category") != "CPU" {
		t.Errorf("got %s", a.Body)
	}

	p.want(p.call("GET", "/clusters", nil), 200)
}

func TestServiceAndModelCannotMissEachOther(t *testing.T) {
	t.Parallel()

	p := start(t)

	for i := range 8 {
		m := p.model(fmt.Sprint("m", i), "1.0.0")

		var (
			wg           sync.WaitGroup
			made, erased answer
		)

		wg.Go(func() { made = p.call("POST", "/services", serviceBody(fmt.Sprint("s", i), entry(m, 100))) })
		wg.Go(func() { erased = p.call("DELETE", "/models/"+m, nil) })
		wg.Wait()

		_, err := p.st.Models.Get(t.Context(), m)
		if gone := err != nil; gone && made.Code == 200 {
			t.Errorf("a service of a deleted model: %s, %s", made.Body, erased.Body)
		} else if !gone && made.Code != 200 && strings.Contains(erased.Body.String(), "3009") {
			t.Errorf("both gave up: %s, %s", made.Body, erased.Body)
		}
	}
}
