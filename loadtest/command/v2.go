package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/report"
	"github.com/sluice-gateway/sluice/loadtest/request"
)

// infer makes an Open Inference request from the metadata of the model.
func (r *resolver) infer(ctx context.Context, it *request.Item, base *url.URL) (string, error) {
	shapes, err := parseShapes(r.flags.v2Shapes)
	if err != nil {
		return "", err
	}

	name := r.flags.model
	if name == "" {
		if name, err = r.onlyModel(ctx, base); err != nil {
			return "", err
		}
	}

	data, err := r.get(ctx, base, "/v2/models/"+url.PathEscape(name))
	if err != nil {
		return "", fmt.Errorf("--v2: %w", err)
	}

	var meta struct {
		Inputs []request.TensorMeta `json:"inputs"`
	}

	if err := json.Unmarshal(data, &meta); err != nil || len(meta.Inputs) == 0 {
		return "", fmt.Errorf("--v2: the metadata of model %s tells no inputs", name)
	}

	binary := r.flags.v2 == "binary"

	body, n, err := request.Infer(meta.Inputs, shapes, r.flags.v2Batch, binary)
	if err != nil {
		return "", fmt.Errorf("--v2: %w", err)
	}

	it.Body, it.Binary = body, true
	if it.Method == "" {
		it.Method = http.MethodPost
	}

	if !strings.HasSuffix(it.Target, "/infer") {
		it.Target = base.Path + "/v2/models/" + url.PathEscape(name) + "/infer"
	}

	if !binary {
		return "application/json", nil
	}

	it.Fields = append(it.Fields, request.Field{Name: request.InferenceHeader, Value: strconv.Itoa(n)})

	return "application/octet-stream", nil
}

// onlyModel finds the name of the model where there is no choice.
func (r *resolver) onlyModel(ctx context.Context, base *url.URL) (string, error) {
	if _, rest, ok := strings.Cut(r.flags.url, "/v2/models/"); ok {
		name, _, _ := strings.Cut(rest, "/")

		return name, nil
	}

	data, err := r.get(ctx, base, "/v2/models/stats")
	if refused := (*refusedError)(nil); errors.As(err, &refused) {
		return "", err
	}

	if err != nil {
		return "", fmt.Errorf("--v2: give --model (%w)", err)
	}

	list := parseStats(data)

	names := map[string]bool{}
	for _, m := range list {
		names[m.Name] = true
	}

	if len(names) != 1 {
		return "", fmt.Errorf("--v2: the target has %d models, give --model", len(names))
	}

	return list[0].Name, nil
}

func parseShapes(given map[string]string) (map[string][]int64, error) {
	out := make(map[string][]int64, len(given))

	for name, text := range given {
		for part := range strings.SplitSeq(text, "x") {
			n, err := strconv.ParseInt(part, 10, 64)
			if err != nil || n < 0 {
				return nil, usage("--v2-shape %s=%s: want dimensions such as 1x28x28", name, text)
			}

			out[name] = append(out[name], n)
		}
	}

	return out, nil
}

// modelStats is a member of V2 statistics.
type modelStats struct {
	Name       string `json:"name"`
	Inferences int64  `json:"inference_count"`
	Executions int64  `json:"execution_count"`
	Stats      map[string]struct {
		Count int64 `json:"count"`
		NS    int64 `json:"ns"`
	} `json:"inference_stats"`
}

func parseStats(data []byte) []modelStats {
	var doc struct {
		Models []modelStats `json:"model_stats"`
	}

	if json.Unmarshal(data, &doc) != nil {
		return nil
	}

	return doc.Models
}

// stats reads the statistics of all models of a target, nil if it has none.
func (r *resolver) stats(ctx context.Context, t *target) []modelStats {
	var all []modelStats

	for _, b := range t.bases {
		data, err := r.get(ctx, b, "/v2/models/stats")
		if err != nil {
			return nil // not a server of this protocol
		}

		all = append(all, parseStats(data)...)
	}

	return all
}

// split is how the server spent its time between two readings, nil if that cannot be told.
func split(before, after []modelStats, source string) *report.Server {
	if len(before) == 0 || len(before) != len(after) {
		return nil
	}

	s := &report.Server{Source: source}

	var queue, input, infer, output int64

	for i := range after {
		a, b := &after[i], &before[i]
		if a.Name != b.Name || a.Inferences < b.Inferences {
			return nil // another instance, or one that has begun anew
		}

		s.Inferences += a.Inferences - b.Inferences
		s.Executions += a.Executions - b.Executions
		queue += a.Stats["queue"].NS - b.Stats["queue"].NS
		input += a.Stats["compute_input"].NS - b.Stats["compute_input"].NS
		infer += a.Stats["compute_infer"].NS - b.Stats["compute_infer"].NS
		output += a.Stats["compute_output"].NS - b.Stats["compute_output"].NS
	}

	if s.Inferences <= 0 {
		return nil
	}

	mean := func(ns int64) time.Duration { return time.Duration(ns / s.Inferences) }
	s.Queue, s.Input, s.Infer, s.Output = mean(queue), mean(input), mean(infer), mean(output)

	return s
}
