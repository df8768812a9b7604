package serve

import (
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/spec"
)

type configTensor struct {
	Name string  `json:"name"`
	Type string  `json:"data_type"`
	Dims []int64 `json:"dims"`
}

type configGroup struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Count int    `json:"count"`
	GPUs  []int  `json:"gpus"`
}

type configBatching struct {
	Preferred []int `json:"preferred_batch_size"`
	Delay     int64 `json:"max_queue_delay_microseconds"`
	Levels    int   `json:"priority_levels"`
	Default   int   `json:"default_priority_level"`
}

type modelConfig struct {
	Name         string          `json:"name"`
	Platform     string          `json:"platform"`
	Backend      string          `json:"backend"`
	MaxBatchSize int             `json:"max_batch_size"`
	Input        []configTensor  `json:"input"`
	Output       []configTensor  `json:"output"`
	Batching     *configBatching `json:"dynamic_batching,omitempty"`
	Groups       []configGroup   `json:"instance_group"`
	File         string          `json:"default_model_filename"`
	Parameters   map[string]any  `json:"parameters"`
}

// config answers the model configuration extension.
func (a *App) config(x *Exchange, r route) error {
	if err := allow(x, "GET"); err != nil {
		return err
	}

	m, err := a.acquire(r)
	if err != nil {
		return err
	}
	defer m.Release()

	return x.reply(200, configOf(m.Meta()))
}

func configOf(meta *repo.Meta) modelConfig {
	serving := meta.Config.Serving
	if serving == nil {
		serving = &spec.Serving{}
	}

	c := modelConfig{
		Name: meta.Name, Platform: Platform(meta), Backend: "onnxruntime", File: meta.File,
		Input: configTensors(meta, meta.Inputs), Output: configTensors(meta, meta.Outputs),
		Groups:     []configGroup{{Name: meta.Name, Kind: "KIND_CPU", Count: meta.Executors, GPUs: []int{}}},
		Parameters: map[string]any{"provider": map[string]string{"string_value": meta.Provider}},
	}

	if len(meta.GPUs) > 0 {
		c.Groups[0].Kind, c.Groups[0].GPUs = "KIND_GPU", meta.GPUs
	}

	if meta.Batchable {
		c.MaxBatchSize = meta.MaxBatchSize
		c.Batching = batchingOf(serving.Batching)
	}

	return c
}

func batchingOf(b *spec.Batching) *configBatching {
	switch {
	case b == nil:
		return &configBatching{Preferred: []int{}}
	case b.Disabled:
		return nil
	default:
		out := &configBatching{b.PreferredBatchSizes, b.MaxQueueDelayMicroseconds, b.PriorityLevels, b.DefaultPriority}
		if out.Preferred == nil {
			out.Preferred = []int{}
		}

		return out
	}
}

// configTensors describes tensors without the batch dimension, as model configurations do.
func configTensors(meta *repo.Meta, infos []engine.Info) []configTensor {
	out := make([]configTensor, 0, len(infos))

	for i := range infos {
		dims := infos[i].Shape
		if meta.Batchable && len(dims) > 0 {
			dims = dims[1:]
		}

		if dims == nil {
			dims = []int64{}
		}

		name := infos[i].Type.String()
		if infos[i].Type == engine.Bytes {
			name = "STRING"
		}

		out = append(out, configTensor{infos[i].Name, "TYPE_" + name, dims})
	}

	return out
}
