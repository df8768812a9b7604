package api

import (
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/spec"
)

type eventView struct {
	Type      string `json:"event_type"`
	Info      string `json:"event_info"`
	OccurTime int64  `json:"occur_time"`
}

func (a *API) showEvents(r *web.Request) (any, error) {
	q := r.Query()
	kind := q.Enum("event_type", "", "normal", "abnormal")
	info := strings.ToLower(q.String("event_info"))
	from := q.Int("start_time", 0, 0, 1<<62)
	to := q.Int("end_time", 1<<62, 0, 1<<62)
	_ = q.Enum("sort_by", "occur_time", "occur_time")
	order := q.Enum("order", "desc", "asc", "desc")
	page := q.Page()

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	items, err := a.st.Events.List(r.Context(), it.ID)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}

	views := []eventView{}

	for _, ev := range items {
		e := ev.Value
		if (kind == "" || e.Type == kind) && e.OccurredAt >= from && e.OccurredAt <= to && strings.Contains(strings.ToLower(e.Info), info) {
			views = append(views, eventView{Type: e.Type, Info: e.Info, OccurTime: e.OccurredAt})
		}
	}

	if order == "desc" {
		slices.Reverse(views)
	}

	total := len(views)
	views = web.Cut(page, views)

	return map[string]any{
		"service_id": it.ID, "service_name": it.Value.Name, "total_count": total, "count": len(views), "events": views,
	}, nil
}

type logView struct {
	UpdateTime   int64          `json:"update_time"`
	Result       string         `json:"result"`
	Config       []entryView    `json:"config"`
	ExtendConfig map[string]any `json:"extend_config"`
	SuccessNum   int            `json:"success_num"`
	FailedNum    int            `json:"failed_num"`
	Detail       string         `json:"result_detail"`
}

// showLogs shows the updates of a service, newest first. update_time is what UpdateService
// answered: the first update from then on is meant.
func (a *API) showLogs(r *web.Request) (any, error) {
	q := r.Query()
	at := q.Int("update_time", 0, 0, 1<<62)

	if err := q.Err(); err != nil {
		return nil, err
	}

	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	items, err := a.st.UpdateLogs.List(r.Context(), it.ID)
	if err != nil {
		return nil, fmt.Errorf("read update logs: %w", err)
	}

	logs := []logView{}

	for _, item := range items {
		l := &item.Value
		if l.UpdateTime < at || at > 0 && len(logs) > 0 {
			continue
		}

		v := logView{
			UpdateTime: l.UpdateTime, Result: string(l.Result), Config: []entryView{}, ExtendConfig: map[string]any{},
			SuccessNum: l.SuccessNum, FailedNum: l.FailedNum, Detail: l.Detail,
		}
		for i := range l.Config {
			v.Config = append(v.Config, viewEntry(&l.Config[i], &it.Value, nil, nil))
		}

		logs = append(logs, v)
	}

	slices.Reverse(logs)

	return map[string]any{"service_id": it.ID, "service_name": it.Value.Name, "logs": logs}, nil
}

type monitorView struct {
	ModelID          string  `json:"model_id"`
	ModelName        string  `json:"model_name"`
	ModelVersion     string  `json:"model_version"`
	InvocationTimes  int64   `json:"invocation_times"`
	FailedTimes      int64   `json:"failed_times"`
	CPUUsage         float64 `json:"cpu_core_usage"`
	CPUTotal         float64 `json:"cpu_core_total"`
	MemoryUsage      float64 `json:"cpu_memory_usage"`
	MemoryTotal      float64 `json:"cpu_memory_total"`
	GPUUsage         float64 `json:"gpu_usage"`
	GPUTotal         float64 `json:"gpu_total"`
	GPUMemoryUsage   float64 `json:"gpu_memory_usage"`
	GPUMemoryTotal   float64 `json:"gpu_memory_total"`
	NPUUsage         float64 `json:"npu_usage"`
	NPUTotal         float64 `json:"npu_total"`
	NPUMemoryUsage   float64 `json:"npu_memory_usage"`
	NPUMemoryTotal   float64 `json:"npu_memory_total"`
	Instances        int     `json:"model_instance_count"`
	RunningInstances int     `json:"model_running_instance_count"`
	NodeID           string  `json:"node_id"`
	NodeName         string  `json:"node_name"`
}

func (a *API) showMonitor(r *web.Request) (any, error) {
	it, err := a.service(r)
	if err != nil {
		return nil, err
	}

	instances, err := a.instances(r, it.ID)
	if err != nil {
		return nil, err
	}

	var usage ServiceUsage
	if a.d.Usage != nil {
		usage = a.d.Usage.ServiceUsage(it.ID)
	}

	s := &it.Value
	monitors := []monitorView{}
	total, running := 0, 0

	for i := range s.Entries {
		e := &s.Entries[i]
		ready, _ := readyOf(instances, e.ModelID)
		u := usage.Models[e.ModelID]
		cpu, memory := a.size(e)
		v := monitorView{
			ModelID: e.ModelID, ModelName: e.ModelName, ModelVersion: e.ModelVersion,
			InvocationTimes: u.Invocations, FailedTimes: u.Failures, CPUUsage: u.CPUCores, MemoryUsage: u.MemoryMB,
			CPUTotal: cpu * float64(e.InstanceCount), MemoryTotal: memory * float64(e.InstanceCount),
			Instances: e.InstanceCount, RunningInstances: ready,
		}

		for j := range instances {
			if instances[j].ModelID == e.ModelID && instances[j].Node != "" {
				v.NodeID, v.NodeName = instances[j].Node, instances[j].Node
			}
		}

		total += e.InstanceCount
		running += ready
		monitors = append(monitors, v)
	}

	return map[string]any{
		"service_id": it.ID, "service_name": s.Name, "service_instance_count": total,
		"service_running_instance_count": running, "req_count_per_min": usage.RequestsPerMinute, "monitors": monitors,
	}, nil
}

type tagsIn struct {
	Tags *[]spec.Tag `json:"tags"`
}

func (in *tagsIn) read(r *web.Request) error {
	if err := r.Decode(in); err != nil {
		return err
	}

	if in.Tags == nil || len(*in.Tags) == 0 {
		return web.Required("tags")
	}

	var m mistakes

	for i, t := range *in.Tags {
		if err := spec.ValidateTagKey(t.Key); err != nil {
			m.addf(fmt.Sprintf("tags[%d].key", i), "%s", err)
		}

		if err := spec.ValidateTagValue(t.Value); err != nil {
			m.addf(fmt.Sprintf("tags[%d].value", i), "%s", err)
		}
	}

	return web.Invalid(m.errs...)
}

func (a *API) createTags(r *web.Request) (any, error) {
	var in tagsIn
	if err := in.read(r); err != nil {
		return nil, err
	}

	_, _, err := a.changeService(r, func(s *spec.Service, _ *mistakes) error {
		tags := slices.Clone(s.Tags)

		for _, t := range *in.Tags {
			tags = slices.DeleteFunc(tags, func(have spec.Tag) bool { return have.Key == t.Key })
			tags = append(tags, t)
		}

		s.Tags = tags

		return nil
	})

	return web.Reply{Status: http.StatusNoContent}, err
}

func (a *API) deleteTags(r *web.Request) (any, error) {
	var in tagsIn
	if err := in.read(r); err != nil {
		return nil, err
	}

	_, _, err := a.changeService(r, func(s *spec.Service, _ *mistakes) error {
		tags := slices.Clone(s.Tags)

		for _, t := range *in.Tags {
			n := len(tags)
			tags = slices.DeleteFunc(tags, func(have spec.Tag) bool {
				return have.Key == t.Key && (t.Value == "" || have.Value == t.Value)
			})

			if len(tags) == n {
				return web.NotFound("tag", t.Key)
			}
		}

		s.Tags = tags

		return nil
	})

	return web.Reply{Status: http.StatusNoContent}, err
}

func (a *API) listTags(r *web.Request) (any, error) {
	services, _, err := a.st.Services.Values(r.Context(), 0)
	if err != nil {
		return nil, fmt.Errorf("list tags: %w", err)
	}

	values := make(map[string]map[string]bool)

	for i := range services {
		if services[i].ProjectID != project(r) || services[i].Deleting {
			continue
		}

		for _, t := range services[i].Tags {
			if values[t.Key] == nil {
				values[t.Key] = make(map[string]bool)
			}

			values[t.Key][t.Value] = true
		}
	}

	type combined struct {
		Key    string   `json:"key"`
		Values []string `json:"values"`
	}

	tags := []combined{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		tags = append(tags, combined{Key: key, Values: slices.Sorted(maps.Keys(values[key]))})
	}

	return map[string]any{"tags": tags}, nil
}

// listClusters answers that there are no dedicated pools.
func (a *API) listClusters(r *web.Request) (any, error) {
	q := r.Query()
	_ = q.Page()

	return map[string]any{"total_count": 0, "count": 0, "clusters": []any{}}, q.Err()
}
