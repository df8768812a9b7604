package api_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/spec"
)

func TestModelIsCreatedAndShown(t *testing.T) {
	t.Parallel()

	p := start(t)
	config := `{"model_type":"ONNX","model_algorithm":"image_classification","metrics":{"f1":0.9},
		"apis":[{"protocol":"http","url":"/","method":"post"}],"health":{"check_method":"HTTP","url":"/health","period_seconds":"10"}}`
	id := p.want(p.call("POST", "/models", map[string]any{
		"model_name": "手写-digits_1", "model_version": "1.0.10", "model_type": "ONNX", "description": "a model",
		"source_location": "file://" + p.pkg(map[string]string{"model.onnx": "x"}), "initial_config": config,
		"install_type": []string{"realtime"}, "runtime": "python3.6", "source_copy": "true", "unknown": 1,
		"model_docs":   []map[string]string{{"doc_name": "d", "doc_url": "http://x"}},
		"dependencies": []map[string]any{{"installer": "pip", "packages": []map[string]string{{"package_name": "numpy", "package_version": "1", "restraint": "EXACT"}}}},
	}), 200).get("model_id")

	a := p.published(id)
	for path, want := range map[string]string{
		"model_id": id, "model_name": "手写-digits_1", "model_version": "1.0.10", "model_type": "ONNX", "model_status": "published",
		"project": p.boot.ProjectID, "workspace_id": "0", "description": "a model", "install_type": "[real-time]",
		"model_algorithm": "image_classification", "source_copy": "true", "model_docs.0.doc_name": "d",
		"dependencies.0.packages.0.package_name": "numpy", "model_metrics": `{"f1":0.9}`, "runtime": "python3.6",
		"apis": `[{"protocol":"http","url":"/","method":"post"}]`, "input_params": "[]",
	} {
		if got := a.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	var c map[string]any
	if err := json.Unmarshal([]byte(a.get("config")), &c); err != nil || c["model_algorithm"] != "image_classification" {
		t.Errorf("config is %q", a.get("config"))
	}

	if a.get("create_at") == "" || a.get("model_size") == "0" || a.get("tenant") == "" || a.get("owner") == "" {
		t.Errorf("got %s", a.Body)
	}
}

func TestModelMistakesAreNamed(t *testing.T) {
	t.Parallel()

	p := start(t)
	good := p.pkg(map[string]string{"model.onnx": "x"})
	body := func(change ...any) map[string]any {
		b := map[string]any{"model_name": "m", "model_version": "1.0.0", "model_type": "ONNX", "source_location": good}
		for i := 0; i < len(change); i += 2 {
			b[change[i].(string)] = change[i+1]
		}

		return b
	}

	for field, b := range map[string]map[string]any{
		"model_name":                          body("model_name", ""),
		"model_name] must have 1 to 64":       body("model_name", strings.Repeat("x", 65)),
		"model_name] must hold only":          body("model_name", "a b"),
		"model_name] must be a string":        body("model_name", 1),
		"model_version":                       body("model_version", "01.0.0"),
		"model_version] is required":          body("model_version", nil),
		"model_type":                          body("model_type", "Onnx"),
		"description":                         body("description", "a<b"),
		"source_location] is required":        body("source_location", nil),
		"install_type[0]":                     body("install_type", []string{"Real-Time"}),
		"install_type] must be an array":      body("install_type", "batch"),
		"source_copy":                         body("source_copy", "yes"),
		"model_docs[0].doc_url":               body("model_docs", []any{map[string]any{"doc_name": "x", "doc_url": "ftp://x"}}),
		"dependencies[0].installer":           body("dependencies", []any{map[string]any{"installer": "npm"}}),
		"initial_config] must be a string":    body("initial_config", map[string]any{}),
		"dependencies[0].packages[0].restrai": body("dependencies", []any{map[string]any{"installer": "pip", "packages": []any{map[string]any{"package_name": "x", "restraint": "X"}}}}),
	} {
		p.refused(p.call("POST", "/models", b), 400, "ModelArts.0101", "["+field)
	}

	p.refused(p.call("POST", "/models", body("source_location", "/no/such")), 400, "Sluice.3001", "[source_location] /no/such does not exist")
	p.refused(p.call("POST", "/models", body("initial_config", `{"serving":{"x":1}}`)), 400, "Sluice.3001", "serving.x")
	p.refused(p.call("POST", "/models", ""), 400, "ModelArts.4202", "")
	p.refused(p.call("POST", "/models", "{"), 400, "ModelArts.4105", "")
	p.refused(p.call("PUT", "/models", body()), 405, "Sluice.1006", "")

	p.want(p.call("POST", "/models", body()), 200)
	p.refused(p.call("POST", "/models", body()), 409, "ModelArts.3002", "Model (m, 1.0.0) already exists")
}

func TestModelListFiltersSortsAndPages(t *testing.T) {
	t.Parallel()

	p := start(t)
	for _, v := range []string{"1.0.2", "1.0.10", "1.0.9"} {
		p.model("Alpha", v)
	}

	p.model("beta_x", "1.0.0")

	for query, want := range map[string]string{
		"":                                      "beta_x 1.0.0,Alpha 1.0.9,Alpha 1.0.10,Alpha 1.0.2",
		"order=asc":                             "Alpha 1.0.2,Alpha 1.0.10,Alpha 1.0.9,beta_x 1.0.0",
		"model_name=alph&sort_by=model_version": "Alpha 1.0.10,Alpha 1.0.9,Alpha 1.0.2",
		"model_name=alph&exact_match=true":      "",
		"model_name=beta_x&exact_match=true":    "beta_x 1.0.0",
		"model_version=1.0.9":                   "Alpha 1.0.9",
		"model_status=failed":                   "",
		"model_type=Custom":                     "",
		"not_model_type=Custom&limit=1":         "beta_x 1.0.0",
		"offset=1&limit=2":                      "Alpha 1.0.9,Alpha 1.0.10",
		"offset=9":                              "",
		"workspace_id=1":                        "",
	} {
		a := p.want(p.call("GET", "/models?"+query, nil), 200)

		var names []string
		for i := 0; a.get(fmt.Sprintf("models.%d.model_id", i)) != ""; i++ {
			names = append(names, a.get(fmt.Sprintf("models.%d.model_name", i))+" "+a.get(fmt.Sprintf("models.%d.model_version", i)))
		}

		if got := strings.Join(names, ","); got != want || a.get("count") != strconv.Itoa(len(names)) {
			t.Errorf("%s: %s (count %s), want %s", query, got, a.get("count"), want)
		}
	}

	if a := p.call("GET", "/models?limit=1", nil); a.get("total_count") != "4" {
		t.Errorf("total_count %s", a.get("total_count"))
	}

	for _, query := range []string{"limit=x", "order=up", "sort_by=x", "model_status=x", "model_type=x", "exact_match=x", "model_type=ONNX&not_model_type=Custom"} {
		p.refused(p.call("GET", "/models?"+query, nil), 400, "ModelArts.0101", "[")
	}
}

func TestModelDeletion(t *testing.T) {
	t.Parallel()

	p := start(t)
	a, b, c := p.model("m", "1.0.0"), p.model("m", "1.0.1"), p.model("other", "1.0.0")
	p.service("s", b)

	got := p.want(p.call("DELETE", "/models/"+a+"?cascade=true", nil), 200)
	if got.get("delete_success_list") != "["+a+"]" || got.get("delete_failed_list.0.model_id") != b ||
		got.get("delete_failed_list.0.error_code") != "ModelArts.3009" {
		t.Fatalf("got %s", got.Body)
	}

	p.refused(p.call("GET", "/models/"+a, nil), 404, "ModelArts.3001", "")
	p.refused(p.call("DELETE", "/models/"+a, nil), 404, "ModelArts.3001", "")
	p.refused(p.call("GET", "/models/x", nil), 404, "ModelArts.3001", "")
	p.want(p.call("DELETE", "/models/"+c, nil), 200)
	p.want(p.call("GET", "/models/ai-engine-runtimes", nil), 200)
	p.model("m", "1.0.0") // name and version are free again
}

func TestModelsAreIsolatedAndGuarded(t *testing.T) {
	t.Parallel()

	p := start(t)
	id := p.model("m", "1.0.0")
	caller, operator, nobody := p.user("c", spec.RoleCaller), p.user("o", spec.RoleOperator), p.user("n", "")

	p.refused(p.as("", "GET", "/models", nil), 401, "APIG.0301", "")
	p.refused(p.as("junk", "GET", "/models", nil), 401, "APIG.0301", "")

	for _, token := range []string{caller, nobody} {
		p.refused(p.as(token, "GET", "/models", nil), 403, "APIG.0302", "")
		p.refused(p.as(token, "DELETE", "/models/"+id, nil), 403, "APIG.0302", "")
	}

	p.want(p.as(operator, "GET", "/models/"+id, nil), 200)

	// Another project of the same domain, and one that does not exist.
	other := p.want(p.call("POST", "/v3/projects", `{"project":{"name":"other"}}`), 201).get("project.id")
	p.refused(p.call("GET", "/v1/"+other+"/models", nil), 403, "ModelArts.0210", "")
	p.refused(p.call("GET", "/v1/"+strings.Repeat("0", 32)+"/models", nil), 403, "ModelArts.0210", "")

	scoped := p.want(p.as("", "POST", "/v3/auth/tokens", fmt.Sprintf(
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"password":%q}}},"scope":{"project":{"id":%q}}}}`,
		p.boot.User, p.boot.Password, other)), 201).Header().Get("X-Subject-Token")
	p.refused(p.as(scoped, "GET", "/v1/"+other+"/models/"+id, nil), 404, "ModelArts.3001", "")

	domain := p.want(p.as("", "POST", "/v3/auth/tokens", fmt.Sprintf(
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"password":%q}}}}}`,
		p.boot.User, p.boot.Password)), 201).Header().Get("X-Subject-Token")
	p.refused(p.as(domain, "GET", "/models", nil), 401, "ModelArts.0207", "")

	p.refused(p.call("GET", "/v1", nil), 404, "APIG.0101", "")
	p.refused(p.call("GET", "/v9/x/models", nil), 404, "APIG.0101", "")
}
