package api_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"net/http/httptest"
	"strings"
	"testing"
)

// mutate changes one thing in a JSON value: a type, a bound, a name, or the nesting.
func mutate(r *rand.Rand, v any) any {
	odd := []any{
		nil, true, -1, 0, 1.5, 1e300, "", "x", " ", "\x00", "../../etc/passwd", strings.Repeat("y", 5000), "𝄞中",
		[]any{},
		map[string]any{},
		[]any{nil},
		[]any{[]any{map[string]any{"a": []any{}}}},
		map[string]any{"": nil, "a/b": 1},
		"9223372036854775808", 9.3e18, "*", "%00", "a,b",
	}

	switch x := v.(type) {
	case map[string]any:
		out := map[string]any{}
		keys := make([]string, 0, len(x))

		for k := range x {
			keys = append(keys, k)
			out[k] = x[k]
		}

		if len(keys) == 0 || r.IntN(4) == 0 {
			return odd[r.IntN(len(odd))]
		}

		k := keys[r.IntN(len(keys))]

		switch r.IntN(5) {
		case 0:
			delete(out, k)
		case 1:
			out[k+"x"] = out[k]
		default:
			out[k] = mutate(r, out[k])
		}

		return out
	case []any:
		out := append([]any{}, x...)

		switch {
		case len(out) == 0 || r.IntN(5) == 0:
			return odd[r.IntN(len(odd))]
		case r.IntN(4) == 0:
			return append(out, out...)
		}

		i := r.IntN(len(out))
		out[i] = mutate(r, out[i])

		return out
	default:
		return odd[r.IntN(len(odd))]
	}
}

// TestMutatedRequestsNeverFailInside sends wrong requests of many kinds to every operation
// that takes a body, and wrong paths and parameters to the others.
func TestMutatedRequestsNeverFailInside(t *testing.T) {
	t.Parallel()

	p := start(t)
	m := p.model("m", "1.0.0")
	svc := p.service("s", m)
	app := p.app(p.token, "one").get("app.app_id")
	api := p.want(p.call("POST", "/services/"+svc+"/app-auth-api", `{"apps":[{"app_id":"`+app+`"}]}`), 200).get("api.api_id")
	user := p.want(p.call("POST", "/v3/users", `{"user":{"name":"bob","password":"Pass-word-1"}}`), 201).get("user.id")

	full := `{"service_name":"z","infer_type":"real-time","description":"d","config":[{"model_id":"` + m + `","weight":"100","specification":"custom",
		"custom_spec":{"cpu":1,"memory":10},"instance_count":1,"envs":{"A":"b"},"additional_properties":{"max_surge":1,"max_unavailable":0.5,"log_volume":[{}]}}],
		"schedule":[{"type":"stop","time_unit":"HOURS","duration":1}],"tags":[{"key":"k","value":"v"}],"auth_types":["TOKEN"],"priority":1,
		"traffic_policy":{"sticky":{"by":"header","name":"h"},"rules":[{"match":{"cidr":"10.0.0.0/8"},"model_id":"` + m + `"}]},
		"retry_policy":{"attempts":2},"limits":{"burst":1},"additional_properties":{"websocket_upgrade":true,"smn_notification":{},"log_report_channels":[{"type":"LTS"}]},
		"service_secrets":[{"secretId":"s","mouthPath":"/"}],"status":"stopped","upgrade_action":"pause","workspace_id":"0"}`
	bodies := []struct{ method, path, body string }{
		{"POST", "/models", `{"model_name":"z","model_version":"1.0.0","model_type":"ONNX","source_location":"/nowhere","initial_config":"{}","install_type":["batch"],"apis":[{"url":"/"}],"model_docs":[{"doc_name":"d","doc_url":"http://x"}],"dependencies":[{"installer":"pip","packages":[{"package_name":"n"}]}]}`},
		{"POST", "/services", full},
		{"PUT", "/services/" + svc, full},
		{"PATCH", "/services/" + svc, `[{"op":"replace","path":"/config/0/envs/X","value":{"a":1}},{"op":"replace","path":"/config/0/weight","value":100}]`},
		{"POST", "/services/" + svc + "/tags/create", `{"tags":[{"key":"k","value":"v"}]}`},
		{"DELETE", "/services/" + svc + "/tags/delete", `{"tags":[{"key":"k","value":"v"}]}`},
		{"POST", "/app-auth/apps", `{"app_name":"x","app_remark":"y","workspace_id":"0"}`},
		{"POST", "/app-auth/" + svc + "/apis", `{"api_name":"abc","api_method":"GET","api_path":"/a","auth_type":"APP","support_app_code":true}`},
		{"POST", "/services/" + svc + "/app-auth-apis/" + api + "/app-auth-api", `{"apps":[{"app_id":"` + app + `"}]}`},
		{"PUT", "/app-auth/apps/" + app + "/app-secret", `{"app_name":"x"}`},
		{"POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":"bob","password":"p","domain":{"name":"d"}}}},"scope":{"project":{"name":"n","domain":{"id":"x"}}}}}`},
		{"POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["hw_ak_sk"],"hw_ak_sk":{"access":{"key":"a"},"secret":{"key":"s"}}},"scope":{"domain":{"id":"x"}}}}`},
		{"POST", "/v3/auth/tokens", `{"auth":{"identity":{"methods":["token"],"token":{"id":"a.b.c"}}}}`},
		{"POST", "/v3/users", `{"user":{"name":"q","password":"Pass-word-1","enabled":true,"description":"d"}}`},
		{"PATCH", "/v3/users/" + user, `{"user":{"name":"q","description":"d"}}`},
		{"PUT", "/v3/users/" + user + "/grants", `{"grants":[{"project_id":"*","role":"caller","statements":[{"effect":"Deny","actions":["a:*"],"resources":["*"]}]}]}`},
		{"POST", "/v3/projects", `{"project":{"name":"q","description":"d"}}`},
		{"POST", "/v3.0/OS-CREDENTIAL/credentials", `{"credential":{"user_id":"` + user + `","description":"d"}}`},
		{"POST", "/v3.0/OS-CREDENTIAL/securitytokens", `{"auth":{"identity":{"methods":["token"],"token":{"duration_seconds":900}}}}`},
	}

	r := rand.New(rand.NewPCG(1, 2))

	for i := range 3000 {
		b := bodies[r.IntN(len(bodies))]

		var v any

		must(t, json.Unmarshal([]byte(b.body), &v))

		for range 1 + r.IntN(3) {
			v = mutate(r, v)
		}

		body, err := json.Marshal(v)
		must(t, err)

		if r.IntN(5) == 0 && len(body) > 0 { // bytes, too
			body = bytes.Clone(body)
			body[r.IntN(len(body))] = byte(r.IntN(256))
		}

		a := p.call(b.method, b.path, string(body))
		if a.Code >= 500 && a.Code != 501 || !json.Valid(a.Body.Bytes()) && a.Body.Len() > 0 {
			t.Fatalf("request %d, %s %s %.300s: %d %s", i, b.method, b.path, body, a.Code, a.Body)
		}
	}

	odd := []string{"", ".", "..", "%2e%2e", "%00", "%ff", "a%2fb", strings.Repeat("x", 600), "%E4%B8%AD", "*", ",", svc + ",", svc + "," + svc, "0", "-1", "'", "%0a"}
	paths := []string{
		"/models/{}", "/services/{}", "/services/{}/events", "/services/{}/logs", "/services/{}/monitor", "/services/{}/predict/endpoints",
		"/app-auth/apps/{}", "/app-auth/apps/{}/exists", "/app-auth/apps/{}/auth-apis", "/app-auth/{}/apis/{}", "/services/" + svc + "/app-auth-apis/{}/api-auths",
		"/models?model_name={}&offset={}", "/services?limit={}&sort_by={}", "/services/" + svc + "/events?start_time={}&event_type={}", "/app-auth/apps?app_ids={}&iphertext_enabled={}",
		"/v1/{}/models", "/v3/users/{}", "/v3/users/{}/grants", "/v3/projects/{}", "/v3/users?name={}", "/v3.0/OS-CREDENTIAL/credentials/{}", "/v3/projects/{}/users/{}/roles/{}",
	}

	for _, path := range paths {
		for _, method := range []string{"GET", "HEAD", "DELETE", "PUT", "POST", "PATCH", "OPTIONS", "TRACE", "BREW"} {
			for _, o := range odd {
				if method == "DELETE" && strings.Contains(o, svc) {
					continue
				}

				target := strings.ReplaceAll(path, "{}", o)
				if !strings.HasPrefix(target, "/v") {
					target = p.base + target
				}

				req := httptest.NewRequest(method, "/", strings.NewReader("{}"))
				req.RequestURI = target

				u, err := req.URL.Parse(target)
				if err != nil {
					continue // net/http answers that by itself
				}

				req.URL = u
				req.Header.Set("X-Auth-Token", p.token)

				w := httptest.NewRecorder()
				p.handler.ServeHTTP(w, req)

				if w.Code >= 500 && w.Code != 501 {
					t.Fatalf("%s %s: %d %s", method, target, w.Code, w.Body)
				}
			}
		}
	}
}
