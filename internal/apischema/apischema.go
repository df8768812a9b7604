// Package apischema checks the JSON of requests against the schemas that a package declares for its APIs.
// A schema cannot refer to anything outside of itself: nothing is fetched or read.
package apischema

import (
	"bytes"
	"errors"
	"fmt"
	"mime"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// MaxBody is the longest body that is checked.
const MaxBody = 1 << 20

const (
	address   = "https://package.invalid/request" // what relative references start from
	maxReason = 300
)

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct{ compiled *jsonschema.Schema }

// Of compiles what an API declares about its requests; nil if there is nothing to check: no schema, or one
// for a body that is not JSON.
func Of(api *spec.API) (*Schema, error) {
	if api.Request == nil || api.Request.Data == nil || !isJSON(api.Request.ContentType) {
		return nil, nil //nolint:nilnil // nothing to check is a valid outcome
	}

	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft7)
	c.UseLoader(nowhere{})

	if err := c.AddResource(address, plain(api.Request.Data)); err != nil {
		return nil, fmt.Errorf("request schema: %w", err)
	}

	s, err := c.Compile(address)
	if err != nil {
		return nil, fmt.Errorf("request schema: %w", err)
	}

	return &Schema{compiled: s}, nil
}

// isJSON reports whether a declared content type is JSON; none counts as JSON.
func isJSON(contentType string) bool {
	if contentType == "" {
		return true
	}

	t, _, err := mime.ParseMediaType(contentType)

	return err == nil && (t == "application/json" || strings.HasSuffix(t, "+json"))
}

// nowhere loads nothing.
type nowhere struct{}

var errOutside = errors.New("a schema may not refer to others")

// Load implements jsonschema.URLLoader.
func (nowhere) Load(string) (any, error) { return nil, errOutside }

// plain takes out what the platform's documents write and JSON Schema does not know: "required": true, and
// the type "file".
func plain(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))

		for key, value := range v {
			_, flag := value.(bool)
			if key == "required" && flag || key == "type" && value == "file" {
				continue
			}

			out[key] = plain(value)
		}

		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, e := range v {
			out = append(out, plain(e))
		}

		return out
	default:
		return v
	}
}

// Check judges a body; what it returns is a fault that names the place.
func (s *Schema) Check(body []byte) error {
	if len(bytes.TrimSpace(body)) == 0 {
		return fault.New(fault.EmptyBody, "")
	}

	v, err := jsonschema.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		return fault.Wrap(fault.BadJSON, err, "The body is not JSON: %s.", clip(err.Error()))
	}

	var invalid *jsonschema.ValidationError
	if err = s.compiled.Validate(v); !errors.As(err, &invalid) {
		return err //nolint:wrapcheck // nil as a rule
	}

	// The first thing that is wrong by itself tells more than what is wrong for its sake.
	for len(invalid.Causes) > 0 {
		invalid = invalid.Causes[0]
	}

	return fault.Wrap(fault.SchemaMismatch, err, "The body does not fit the schema that the API declares: %s.", clip(invalid.Error()))
}

// clip makes one short line.
func clip(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxReason {
		s = strings.ToValidUTF8(s[:maxReason], "") + "…"
	}

	return s
}
