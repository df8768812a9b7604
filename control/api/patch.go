package api

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/spec"
)

// Bounds of a JSON patch.
const (
	maxPatchOps   = 100
	maxPatchDepth = 64
	configPrefix  = "/config/"
)

type patchOp struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	Value json.RawMessage `json:"value"`
}

// patchService replaces parts of the config as ShowService shows it.
func (a *API) patchService(r *web.Request) (any, error) {
	var ops []patchOp
	if err := r.Decode(&ops); err != nil {
		return nil, err
	}

	if len(ops) == 0 || len(ops) > maxPatchOps {
		return nil, web.Fieldf("body", "must be an array of 1 to %d operations", maxPatchOps)
	}

	s, changed, err := a.changeService(r, func(s *spec.Service, m *mistakes) error {
		entries, err := patchEntries(s, ops)
		if err != nil {
			return err
		}

		s.Entries = a.entries(entries, s.InferType, m)

		return nil
	})
	if err != nil {
		return nil, err
	}

	if !changed {
		return map[string]any{"resource_ids": resourceIDs(s)}, nil
	}

	return map[string]any{"update_time": s.UpdatedAt, "resource_ids": resourceIDs(s)}, nil
}

// patchEntries applies ops to the config of s and reads the outcome as a request.
func patchEntries(s *spec.Service, ops []patchOp) ([]entryIn, error) {
	views := make([]entryView, 0, len(s.Entries))
	for i := range s.Entries {
		views = append(views, viewEntry(&s.Entries[i], s, nil, nil))
	}

	var config []any

	decode(encode(views), &config)

	for i := range ops {
		if err := ops[i].apply(config, fmt.Sprintf("[%d]", i)); err != nil {
			return nil, err
		}
	}

	var body struct {
		Config []entryIn `json:"config"`
	}

	err := web.Unmarshal([]byte(encode(map[string]any{"config": config})), maxPatchDepth, &body)

	return body.Config, err
}

func (op *patchOp) apply(config []any, at string) error {
	if op.Op != "replace" {
		return web.Fieldf(at+".op", "must be replace")
	}

	rest, ok := strings.CutPrefix(op.Path, configPrefix)
	if !ok || rest == "" {
		return web.Fieldf(at+".path", "must begin with %s", configPrefix)
	}

	if len(op.Value) == 0 {
		return web.Required(at + ".value")
	}

	var value any

	decode(string(op.Value), &value)

	parts := strings.Split(rest, "/")
	for i, p := range parts {
		parts[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p)
	}

	if len(parts) > 1 && !patchable(parts[1]) {
		return web.Fieldf(at+".path", "names no field of the config that can be replaced: %s", clip(op.Path))
	}

	if !replace(config, parts, value) {
		return web.Fieldf(at+".path", "leads nowhere: %s", clip(op.Path))
	}

	return nil
}

// patchable reports whether an entry has a field of this name.
func patchable(name string) bool {
	for _, t := range []reflect.Type{reflect.TypeFor[entryIn](), reflect.TypeFor[entryExtra]()} {
		for f := range t.Fields() {
			tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if tag != "" && tag == name {
				return true
			}
		}
	}

	return false
}

// replace sets the value that parts lead to. The last member of an object may be missing,
// because fields without a value are not shown.
func replace(node any, parts []string, value any) bool {
	last := len(parts) == 1

	switch n := node.(type) {
	case []any:
		i, err := strconv.Atoi(parts[0])
		if err != nil || i < 0 || i >= len(n) || strconv.Itoa(i) != parts[0] {
			return false
		}

		if last {
			n[i] = value

			return true
		}

		return replace(n[i], parts[1:], value)
	case map[string]any:
		if last {
			n[parts[0]] = value

			return true
		}

		return replace(n[parts[0]], parts[1:], value)
	default:
		return false
	}
}
