package spec

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
)

// Bounds of the block "serving". configs/schema/serving.v1.json states the same ones.
const (
	maxBatch      = 65536
	maxInstances  = 256
	maxThreads    = 1024
	maxLabels     = 100_000
	maxImageSide  = 16384
	maxImageCells = 1 << 26
	maxDim        = 1 << 31
	maxQueueDelay = 10_000_000     // µs
	maxTimeout    = 24 * 3_600_000 // ms, given in µs
	maxBytes      = 1 << 50
	maxPipelines  = 64
)

// servingRule is the block "serving"; unlike the rest of config.json it is strict.
func servingRule() object {
	return object{
		strict: true,
		fields: map[string]rule{
			"version":        integer(0, ServingVersion),
			"model_file":     text(1, maxText, relativePath),
			"max_batch_size": integer(0, maxBatch),
			"instances":      integer(0, maxInstances),
			"threads": object{strict: true, fields: map[string]rule{
				"intra_op": integer(0, maxThreads),
				"inter_op": integer(0, maxThreads),
			}}.check,
			"execution":   executionRule().check,
			"batching":    batchingRule().check,
			"warmup":      warmupRule().check,
			"preprocess":  list(maxPipelines, preprocessRule().check),
			"postprocess": list(maxPipelines, postprocessRule().check),
			"labels":      list(maxLabels, text(1, 1024)),
			"labels_file": text(1, maxText, relativePath),
			"limits": object{strict: true, fields: map[string]rule{
				"max_image_pixels": integer(0, maxBytes),
				"max_images":       integer(0, 10_000),
				"max_body_bytes":   integer(0, maxBytes),
			}}.check,
		},
		after: servingTogether,
	}
}

// servingTogether checks what several members of "serving" say together.
func servingTogether(m *mistakes, path string, o map[string]any) {
	_, labels := o["labels"]
	if _, file := o["labels_file"]; file && labels {
		m.addf(member(path, "labels_file"), "give labels or labels_file, not both")
	}

	if most := intOf(o["max_batch_size"]); most > 0 {
		for _, at := range [][2]string{{"batching", "preferred_batch_sizes"}, {"warmup", "batch_sizes"}} {
			block, _ := o[at[0]].(map[string]any)
			sizes, _ := block[at[1]].([]any)

			for i, s := range sizes {
				if intOf(s) > most {
					m.addf(element(member(member(path, at[0]), at[1]), i), "is above max_batch_size %d", most)
				}
			}
		}
	}

	uniqueMember(m, member(path, "preprocess"), o["preprocess"], "input")
	postprocessTogether(m, member(path, "postprocess"), o["postprocess"])
}

func executionRule() object {
	providers := []string{"cpu", "cuda", "tensorrt", "webgpu", "openvino"}

	return object{
		strict: true,
		fields: map[string]rule{
			"provider":              oneOf(append(slices.Clone(providers), "auto")...),
			"fallback":              list(len(providers), oneOf(providers...)),
			"strict":                boolean(),
			"device_id":             integer(0, 1023),
			"arena_limit_bytes":     integer(0, maxBytes),
			"cache_optimized_model": boolean(),
		},
		after: func(m *mistakes, path string, o map[string]any) {
			fallback, _ := o["fallback"].([]any)
			if len(fallback) > 0 && o["strict"] == true {
				m.addf(member(path, "fallback"), "must be empty when strict is true")
			}

			seen := map[any]bool{o["provider"]: true}

			for i, p := range fallback {
				if seen[p] {
					m.addf(element(member(path, "fallback"), i), "names provider %s a second time", p)
				}

				seen[p] = true
			}
		},
	}
}

func batchingRule() object {
	return object{
		strict: true,
		fields: map[string]rule{
			"disabled":                     boolean(),
			"preferred_batch_sizes":        list(256, integer(1, maxBatch)),
			"max_queue_delay_microseconds": integer(0, maxQueueDelay),
			"max_queue_rows":               integer(0, 1<<24),
			"priority_levels":              integer(0, 32),
			"default_priority":             integer(0, 32),
			"strict_priority":              boolean(),
			"default_timeout_microseconds": integer(0, maxTimeout*1000),
			"pad_to_buckets":               boolean(),
		},
		after: func(m *mistakes, path string, o map[string]any) {
			sizes, _ := o["preferred_batch_sizes"].([]any)
			for i := 1; i < len(sizes); i++ {
				if intOf(sizes[i]) <= intOf(sizes[i-1]) {
					m.addf(element(member(path, "preferred_batch_sizes"), i), "must be above the one before it")
				}
			}

			if levels := intOf(o["priority_levels"]); intOf(o["default_priority"]) > max(levels, 1) {
				m.addf(member(path, "default_priority"), "is above priority_levels %d", max(levels, 1))
			}
		},
	}
}

func warmupRule() object {
	return object{strict: true, fields: map[string]rule{
		"disabled":    boolean(),
		"batch_sizes": list(64, integer(1, maxBatch)),
		"shapes":      dict(maxPipelines, notEmpty, list(32, integer(1, maxDim))),
	}}
}

func notEmpty(s string) string {
	if s == "" {
		return "must not be empty"
	}

	return ""
}

func preprocessRule() object {
	return object{
		strict: true,
		fields: map[string]rule{
			"input": text(1, 1024),
			"field": text(1, 1024),
			"image": imageRule().check,
		},
		required: []string{"input"},
	}
}

func imageRule() object {
	return object{
		strict: true,
		fields: map[string]rule{
			"width":            integer(1, maxImageSide),
			"height":           integer(1, maxImageSide),
			"channels":         channelsRule,
			"layout":           oneOf("CHW", "HWC", "FLAT"),
			"resize":           oneOf("area", "bilinear", "bicubic", "nearest"),
			"fit":              oneOf("stretch", "contain", "cover"),
			"background":       oneOf("white", "black", "auto"),
			"invert":           oneOf("never", "always", "auto"),
			"center_content":   boolean(),
			"margin":           number(0, 1),
			"stretch_contrast": boolean(),
			"scale":            anyNumber(),
			"mean":             list(3, anyNumber()),
			"std":              list(3, nonZero),
			"bgr":              boolean(),
		},
		required: []string{"width", "height", "channels"},
		after:    imageTogether,
	}
}

func channelsRule(m *mistakes, path string, v any) any {
	n, ok := v.(json.Number)
	if i, whole := wholeNumber(n.String()); ok && whole && (i == 1 || i == 3) {
		return integer(1, 3)(m, path, v)
	}

	m.addf(path, "want 1 or 3, got %s", kindOf(v))

	return v
}

func nonZero(m *mistakes, path string, v any) any {
	if n, ok := v.(json.Number); ok {
		if f, err := n.Float64(); err == nil && f == 0 {
			m.addf(path, "must not be 0")

			return v
		}
	}

	return anyNumber()(m, path, v)
}

func imageTogether(m *mistakes, path string, o map[string]any) {
	channels := intOf(o["channels"])

	if intOf(o["width"])*intOf(o["height"])*channels > maxImageCells {
		m.addf(path, "width x height x channels is above %d", maxImageCells)
	}

	for _, k := range []string{"mean", "std"} {
		if a, ok := o[k].([]any); ok && int64(len(a)) != channels && len(a) > 0 {
			m.addf(member(path, k), "must have one number per channel (%d), has %d", channels, len(a))
		}
	}

	if o["bgr"] == true && channels != 3 {
		m.addf(member(path, "bgr"), "needs channels 3")
	}

	if _, ok := o["margin"]; ok && o["center_content"] != true {
		m.addf(member(path, "margin"), "needs center_content true")
	}
}

func postprocessRule() object {
	return object{
		strict: true,
		fields: map[string]rule{
			"output":     text(1, 1024),
			"kind":       oneOf("classification", "tensor"),
			"activation": oneOf("none", "softmax", "sigmoid"),
			"top_k":      integer(0, maxLabels),
			"threshold":  anyNumber(),
			"field":      text(1, 1024),
		},
		required: []string{"output"},
	}
}

// postprocessTogether refuses two entries that would write the same members of the answer.
func postprocessTogether(m *mistakes, path string, v any) {
	entries, _ := v.([]any)
	taken := map[string]string{}

	for i, e := range entries {
		o, _ := e.(map[string]any)
		names := []string{"predicted_label", "scores"}

		if o["kind"] == "tensor" {
			name, ok := o["field"].(string)
			if !ok {
				name, _ = o["output"].(string)
			}

			names = []string{name}
		}

		for _, name := range names {
			if first, ok := taken[name]; ok {
				m.addf(element(path, i), "writes %s, as %s does", name, first)

				break
			}

			taken[name] = element("postprocess", i)
		}
	}
}

// uniqueMember refuses two elements with the same value of key.
func uniqueMember(m *mistakes, path string, v any, key string) {
	elems, _ := v.([]any)
	seen := map[any]bool{}

	for i, e := range elems {
		o, _ := e.(map[string]any)
		if seen[o[key]] {
			m.addf(member(element(path, i), key), "names %s a second time", strings.TrimPrefix(kindOf(o[key]), "the string "))
		}

		seen[o[key]] = true
	}
}

// intOf is the value of a checked integer, 0 where it is absent.
func intOf(v any) int64 {
	n, ok := v.(json.Number)
	if !ok {
		return 0
	}

	i, ok := wholeNumber(n.String())
	if !ok {
		return math.MaxInt64
	}

	return i
}
