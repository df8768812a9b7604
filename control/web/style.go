package web

import (
	"encoding/json"
	"net/http"
	"strings"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Style is the form of error bodies.
type Style uint8

// Styles.
const (
	// ModelArts is {"error_code","error_msg","request_id"}.
	ModelArts Style = iota
	// IAM is {"error":{"code","message","title"}}.
	IAM
)

// styleOf chooses the form for a path that no operation has.
func styleOf(path string) Style {
	if strings.HasPrefix(path, "/v3/") || strings.HasPrefix(path, "/v3.0/") {
		return IAM
	}

	return ModelArts
}

func (s Style) body(f *fault.Error, requestID string) []byte {
	var v any

	if s == IAM {
		status := f.Code.Status()
		v = map[string]any{"error": map[string]any{
			"code": status, "message": f.Message(), "title": http.StatusText(status),
		}}
	} else {
		v = map[string]string{"error_code": f.Code.Wire(), "error_msg": f.Message(), "request_id": requestID}
	}

	body, err := json.Marshal(v)
	if err != nil {
		panic("BUG: error body does not encode: " + err.Error()) // strings and numbers only
	}

	return body
}
