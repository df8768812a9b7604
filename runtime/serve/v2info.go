package serve

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/codec/platform"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// Extensions of the protocol that are served, as told in server metadata.
var Extensions = []string{ //nolint:gochecknoglobals // a constant list
	"classification", "model_repository", "schedule_policy", "model_configuration",
	"binary_tensor_data", "parameters", "statistics",
}

const platformONNX = "onnxruntime_onnx"

// reply encodes v as the answer.
func (x *Exchange) reply(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}

	x.json(status)
	x.Out = append(x.Out, b...)

	return nil
}

func (a *App) serverMetadata(x *Exchange) error {
	if err := allow(x, "GET"); err != nil {
		return err
	}

	return x.reply(200, map[string]any{"name": "sluice", "version": a.cfg.Release, "extensions": Extensions})
}

// live is true as long as the process answers, also while draining.
func (a *App) live(x *Exchange) error {
	if err := allow(x, "GET", "HEAD"); err != nil {
		return err
	}

	return x.reply(200, map[string]bool{"live": true})
}

func (a *App) ready(x *Exchange) error {
	if err := allow(x, "GET", "HEAD"); err != nil {
		return err
	}

	if c := a.state.get(); c.phase != ready {
		return x.reply(503, map[string]any{"ready": false, "error": "Server is " + c.phase.String()})
	}

	return x.reply(200, map[string]bool{"ready": true})
}

func (a *App) modelReady(x *Exchange, r route) error {
	if err := allow(x, "GET", "HEAD"); err != nil {
		return err
	}

	m, err := a.acquire(r)
	if err != nil {
		return err
	}
	defer m.Release()

	if a.state.Draining() {
		return &statusError{fault.New(fault.ShuttingDown, "Server is draining"), 503}
	}

	return x.reply(200, map[string]any{"name": m.Meta().Name, "ready": true})
}

func (a *App) listModels(x *Exchange) error {
	if err := allow(x, "GET"); err != nil {
		return err
	}

	names := []string{}

	for _, s := range a.models.Index() {
		if s.State == repo.Ready && !slices.Contains(names, s.Name) {
			names = append(names, s.Name)
		}
	}

	return x.reply(200, map[string]any{"models": names})
}

type tensorInfo struct {
	Name  string  `json:"name"`
	Type  string  `json:"datatype"`
	Shape []int64 `json:"shape"`
}

func tensorInfos(in []engine.Info) []tensorInfo {
	out := make([]tensorInfo, 0, len(in))
	for i := range in {
		shape := in[i].Shape
		if shape == nil {
			shape = []int64{}
		}

		out = append(out, tensorInfo{in[i].Name, in[i].Type.String(), shape})
	}

	return out
}

// Versions lists the ready versions of a model.
func Versions(models Models, name string) []string {
	versions := []string{}

	for _, s := range models.Index() {
		if s.Name == name && s.State == repo.Ready {
			versions = append(versions, s.Version)
		}
	}

	return versions
}

func (a *App) metadata(x *Exchange, r route) error {
	if err := allow(x, "GET"); err != nil {
		return err
	}

	m, err := a.acquire(r)
	if err != nil {
		return err
	}
	defer m.Release()

	meta := m.Meta()

	return x.reply(200, struct {
		Name     string       `json:"name"`
		Versions []string     `json:"versions"`
		Platform string       `json:"platform"`
		Inputs   []tensorInfo `json:"inputs"`
		Outputs  []tensorInfo `json:"outputs"`
	}{meta.Name, Versions(a.models, meta.Name), Platform(meta), tensorInfos(meta.Inputs), tensorInfos(meta.Outputs)})
}

// Platform is the name that V2 clients know for what runs the model.
func Platform(meta *repo.Meta) string {
	if meta.Platform == "" {
		return platformONNX
	}

	return meta.Platform
}

// inputError names the input in an error.
func inputError(err error, input string) error {
	var f *fault.Error
	if !errors.As(err, &f) || f.Code == fault.Internal {
		return err
	}

	return fault.Wrap(f.Code, err, "input '%s': %s", input, f.Message())
}

// unwrapPicture takes a picture that came in base64, as JSON forces it to, and leaves others alone.
func unwrapPicture(b []byte) []byte {
	if len(b) == 0 || b[0] >= 0x80 {
		return b
	}

	if raw, err := platform.DecodeBase64(b); err == nil {
		return raw
	}

	return b
}

// span is a StatisticDuration of the protocol.
type span struct {
	Count int64 `json:"count"`
	NS    int64 `json:"ns"`
}

func spanOf(s batch.Span) span { return span{s.Count, s.Total.Nanoseconds()} }

type batchStats struct {
	Size    int  `json:"batch_size"`
	Input   span `json:"compute_input"`
	Compute span `json:"compute_infer"`
	Output  span `json:"compute_output"`
}

type modelStats struct {
	Name       string          `json:"name"`
	Version    string          `json:"version"`
	Last       int64           `json:"last_inference"`
	Inferences int64           `json:"inference_count"`
	Executions int64           `json:"execution_count"`
	Stats      map[string]span `json:"inference_stats"`
	Responses  struct{}        `json:"response_stats"`
	Batches    []batchStats    `json:"batch_stats"`
	Memory     []struct{}      `json:"memory_usage"`
}

func statsOf(meta *repo.Meta, s batch.Stats) modelStats {
	out := modelStats{
		Name: meta.Name, Version: meta.Version, Inferences: s.Inferences, Executions: s.Executions,
		Stats: map[string]span{
			"success": spanOf(s.Success), "fail": spanOf(s.Fail), "queue": spanOf(s.Queue),
			"compute_input": spanOf(s.CopyIn), "compute_infer": spanOf(s.Run), "compute_output": spanOf(s.CopyOut),
			"cache_hit": {}, "cache_miss": {},
		},
		Batches: []batchStats{}, Memory: []struct{}{},
	}

	if !s.LastInference.IsZero() {
		out.Last = s.LastInference.UnixMilli()
	}

	for _, b := range s.Batches {
		out.Batches = append(out.Batches, batchStats{b.BatchSize, spanOf(b.CopyIn), spanOf(b.Run), spanOf(b.CopyOut)})
	}

	return out
}

// stats answers for one version, all versions of a model, or all models.
func (a *App) stats(x *Exchange, model, version string) error {
	if err := allow(x, "GET"); err != nil {
		return err
	}

	if model != "" {
		m, err := a.acquire(route{model: model, version: version})
		if err != nil {
			return err
		}

		m.Release()
	}

	list := []modelStats{}

	for _, s := range a.models.Index() {
		if s.State != repo.Ready || (model != "" && s.Name != model) || (version != "" && s.Version != version) {
			continue
		}

		m, err := a.models.Acquire(s.Name, s.Version)
		if err != nil {
			continue // gone between the two calls
		}

		list = append(list, statsOf(m.Meta(), m.Stats()))
		m.Release()
	}

	return x.reply(200, map[string]any{"model_stats": list})
}
