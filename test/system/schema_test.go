package system_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestRequestsFitTheirSchemas switches the check of requests on for an engine with several APIs.
func TestRequestsFitTheirSchemas(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	greeting := map[string]any{
		"Content-type": "application/json",
		"data": map[string]any{
			"type": "object", "required": []string{"name"},
			"properties": map[string]any{"name": map[string]any{"type": "string", "maxLength": 2_000_000}},
		},
	}
	config := map[string]any{"schema_check": true, "apis": []any{
		map[string]any{"url": "/echo", "method": "post", "request": greeting},
		map[string]any{"url": "/say", "method": "post"},
		map[string]any{"url": "/about", "method": "get", "request": map[string]any{"data": map[string]any{"type": "object"}}},
	}}

	id := s.deploy("schema", s.publish("schema", "Custom", engineDir(t, "test/system/engine", engineConfig(config))), 1, nil)
	s.waitStatus(id, "running", 30*time.Second)

	url := s.Edge + "/v1/infers/" + id

	var packed bytes.Buffer

	z := gzip.NewWriter(&packed)
	_, _ = io.WriteString(z, `{"name":"you"}`)
	_ = z.Close()

	for name, tc := range map[string]struct {
		method, path string
		body         any
		header       string
		status       int
		want         string
	}{
		"fits":            {"POST", "/echo", `{"name":"you","more":1}`, "", 200, `{"name":"you","more":1}`},
		"by default":      {"POST", "", `{"name":"you"}`, "", 200, `{"name":"you"}`},
		"misses a member": {"POST", "/echo", `{"nam":"you"}`, "", 400, "Sluice.1015"},
		"wrong type":      {"POST", "/echo", `{"name":["you"]}`, "", 400, "/name"},
		"no JSON":         {"POST", "/echo", `{"name":`, "", 400, "ModelArts.4105"},
		"empty":           {"POST", "/echo", "", "", 400, "ModelArts.4202"},
		"packed":          {"POST", "/echo", packed.Bytes(), "gzip", 415, "Sluice.1004"},
		"long":            {"POST", "/echo", `{"name":"` + strings.Repeat("x", 900_000) + `"}`, "", 200, "xxx"},
		"too long":        {"POST", "/echo", `{"name":"` + strings.Repeat("x", 1_100_000) + `"}`, "", 413, "ModelArts.4104"},
		"no schema":       {"POST", "/say", "anything", "", 200, "said"},
		"a bodyless GET":  {"GET", "/about", nil, "", 200, "pid"},
		"undeclared":      {"POST", "/die", "{}", "", 404, "ModelArts.4204"},
	} {
		a := s.call(tc.method, url+tc.path, tc.body, "Content-Encoding", tc.header)
		if a.Status != tc.status || !strings.Contains(string(a.Body), tc.want) {
			t.Errorf("%s: %d %.200s, want %d %s", name, a.Status, a.Body, tc.status, tc.want)
		}
	}

	// A body of unknown length.
	for body, status := range map[string]int{`{"name":"you"}`: 200, `{"name":1}`: 400, strings.Repeat(" ", 1_100_000): 413} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/echo", io.MultiReader(strings.NewReader(body)))
		if err != nil {
			t.Fatal(err)
		}

		req.Header.Set("X-Auth-Token", s.token)

		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}

		_ = resp.Body.Close()

		if resp.StatusCode != status {
			t.Errorf("in chunks %.20s: %d, want %d", body, resp.StatusCode, status)
		}
	}

	// A schema that is none is found when the model is published.
	config["apis"] = []any{map[string]any{"url": "/", "method": "post", "request": map[string]any{"data": map[string]any{"$ref": "file:///etc/passwd"}}}}

	a := s.call("POST", s.api("/models"), map[string]any{
		"model_name": "bad", "model_version": "1.0.0", "model_type": "Custom",
		"source_location": engineDir(t, "test/system/engine", engineConfig(config)),
	})

	s.eventually(20*time.Second, "a failed model", func() bool {
		m, _ := a.json(t)["model_id"].(string)
		body := string(s.call("GET", s.api("/models/"+m), nil).Body)

		return a.Status == 400 && strings.Contains(string(a.Body), "apis[0].request.data") ||
			strings.Contains(body, "failed") && strings.Contains(body, "apis[0].request.data")
	})
}
