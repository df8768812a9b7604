package ort

import (
	"fmt"
	"slices"

	ortgo "github.com/yalue/onnxruntime_go"

	"github.com/sluice-gateway/sluice/runtime/engine"
)

// plainOptions load a model only to look at it.
func plainOptions() (*ortgo.SessionOptions, error) {
	return newOptions(func(o *ortgo.SessionOptions) []error {
		return []error{
			o.SetGraphOptimizationLevel(ortgo.GraphOptimizationLevelDisableAll),
			o.SetIntraOpNumThreads(1),
			o.SetCpuMemArena(false),
			o.AddSessionConfigEntry("session.disable_prepacking", "1"),
		}
	})
}

func newOptions(fill func(o *ortgo.SessionOptions) []error) (*ortgo.SessionOptions, error) {
	o, err := ortgo.NewSessionOptions()
	if err != nil {
		return nil, fmt.Errorf("make session options: %w", err)
	}

	errs := fill(o)
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		_ = o.Destroy() // never fails

		return nil, fmt.Errorf("make session options: %w", errs[i])
	}

	return o, nil
}

// boundOptions load a model to run it.
func (e *Engine) boundOptions(spec engine.LoadSpec, p provider, file, save string) (*ortgo.SessionOptions, error) {
	o, err := newOptions(func(o *ortgo.SessionOptions) []error { return fillOptions(o, spec, p, file, save) })
	if err != nil || p.name == "cpu" {
		return o, err
	}

	if err := e.bindProvider(o, spec, p); err != nil {
		_ = o.Destroy() // never fails

		return nil, err
	}

	return o, nil
}

func fillOptions(o *ortgo.SessionOptions, spec engine.LoadSpec, p provider, file, save string) []error {
	var mode ortgo.ExecutionMode = ortgo.ExecutionModeSequential
	if spec.InterOpThreads > 1 {
		mode = ortgo.ExecutionModeParallel
	}

	var level ortgo.GraphOptimizationLevel = ortgo.GraphOptimizationLevelDisableAll
	if file == spec.Path { // any other file is optimised already
		level = ortgo.GraphOptimizationLevelEnableAll
	}

	errs := []error{
		o.SetIntraOpNumThreads(max(1, spec.IntraOpThreads)),
		o.SetInterOpNumThreads(max(1, spec.InterOpThreads)),
		o.SetExecutionMode(mode),
		// Spinning pool threads would take the cores from the other executors.
		o.AddSessionConfigEntry("session.intra_op.allow_spinning", "0"),
		o.AddSessionConfigEntry("session.inter_op.allow_spinning", "0"),
		o.SetGraphOptimizationLevel(level),
	}

	if spec.ArenaLimitBytes > 0 && p.name == "cpu" {
		errs = append(errs, o.SetCpuMemArena(false), o.SetMemPattern(false))
	}

	if save != "" {
		errs = append(errs, o.SetOptimizedModelFilePath(save))
	}

	return errs
}

// bindProvider appends the provider through the binding.
func (e *Engine) bindProvider(o *ortgo.SessionOptions, spec engine.LoadSpec, p provider) error {
	if err := e.certain(p); err != nil {
		return err
	}

	keys, values := providerOptions(spec, p)
	options := make(map[string]string, len(keys))

	for i, k := range keys {
		options[k] = values[i]
	}

	var err error

	switch p.name {
	case "cuda":
		err = appendCUDA(o, options)
	case "tensorrt":
		err = appendTensorRT(o, options)
	case "openvino":
		err = o.AppendExecutionProviderOpenVINO(options)
	default:
		err = o.AppendExecutionProvider(p.named, options)
	}

	if err != nil {
		return missing(p, cleanText(said(err)))
	}

	return nil
}

func appendCUDA(o *ortgo.SessionOptions, options map[string]string) error {
	c, err := ortgo.NewCUDAProviderOptions()
	if err != nil {
		return err //nolint:wrapcheck // read with said
	}

	if err = c.Update(options); err == nil {
		err = o.AppendExecutionProviderCUDA(c)
	}

	return join(err, c.Destroy())
}

func appendTensorRT(o *ortgo.SessionOptions, options map[string]string) error {
	c, err := ortgo.NewTensorRTProviderOptions()
	if err != nil {
		return err //nolint:wrapcheck // read with said
	}

	if err = c.Update(options); err == nil {
		err = o.AppendExecutionProviderTensorRT(c)
	}

	return join(err, c.Destroy())
}
