package api_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/spec"
)

func (p *platform) app(token, name string) answer {
	p.t.Helper()

	return p.want(p.as(token, "POST", "/app-auth/apps", fmt.Sprintf(`{"app_name":%q,"app_remark":"r"}`, name)), 200)
}

func TestAppsShowTheirSecretOnce(t *testing.T) {
	t.Parallel()

	p := start(t)
	a := p.app(p.token, "one")
	id, secret := a.get("app.app_id"), a.get("app.app_secret")

	hex32 := regexp.MustCompile(`^[0-9a-f]{32}$`)
	for _, field := range []string{"app.app_id", "app.app_key", "app.app_secret"} {
		if !hex32.MatchString(a.get(field)) {
			t.Errorf("%s is %q", field, a.get(field))
		}
	}

	for path, want := range map[string]string{
		"app.app_name": "one", "app.app_remark": "r", "app.app_codes": "[]", "app.app_type": "APIG", "app.bounded_api_count": "0",
		"app.project_id": p.boot.ProjectID,
	} {
		if got := a.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	for _, path := range []string{"/app-auth/apps/" + id, "/app-auth/apps"} {
		if shown := p.want(p.call("GET", path, nil), 200); strings.Contains(shown.Body.String(), secret) {
			t.Errorf("%s shows the secret: %s", path, shown.Body)
		}
	}

	for _, path := range []string{"/app-auth/apps/" + id + "?iphertext_enabled=true", "/app-auth/apps?iphertext_enabled=true&app_ids=" + id} {
		if shown := p.want(p.call("GET", path, nil), 200); !strings.Contains(shown.Body.String(), secret) {
			t.Errorf("%s does not show the secret in clear: %s", path, shown.Body)
		}
	}

	it, err := p.st.Apps.Get(t.Context(), id)
	must(t, err)

	if bytes.Contains(it.Value.SealedSecret, []byte(secret)) {
		t.Error("the secret is stored in clear")
	}

	reset := p.want(p.call("PUT", "/app-auth/apps/"+id+"/app-secret", `{"app_name":"one"}`), 200).get("app.app_secret")
	if reset == secret || !hex32.MatchString(reset) {
		t.Errorf("reset gave %q", reset)
	}
}

func TestAppCodes(t *testing.T) {
	t.Parallel()

	p := start(t)
	id := p.app(p.token, "one").get("app.app_id")
	base := "/app-auth/apps/" + id + "/app-code"

	code := p.want(p.call("POST", base, `{"app_name":"one"}`), 200).get("app.app_codes.0")
	if len(code) != 64 {
		t.Fatalf("code %q", code)
	}

	it, err := p.st.Apps.Get(t.Context(), id)
	must(t, err)

	hash := sha256.Sum256([]byte(code))
	if !bytes.Equal(it.Value.Codes[0].Hash, hash[:]) || bytes.Contains(it.Value.Codes[0].SealedCode, []byte(code)) {
		t.Error("the code is not stored as hash and sealed text")
	}

	fresh := p.want(p.call("PUT", base+"/"+code, nil), 200).get("app.app_codes.0")
	if fresh == code || len(fresh) != 64 {
		t.Errorf("reset gave %q", fresh)
	}

	p.refused(p.call("PUT", base+"/"+code, nil), 404, "Sluice.3002", "code")
	p.refused(p.call("DELETE", base+"/"+code, nil), 404, "Sluice.3002", "code")

	for range 4 {
		p.want(p.call("POST", base, nil), 200)
	}

	p.refused(p.call("POST", base, nil), 400, "ModelArts.3520", "5 codes")

	if a := p.want(p.call("DELETE", base+"/"+fresh, nil), 200); a.get("app.app_codes.3") == "" || a.get("app.app_codes.4") != "" {
		t.Errorf("got %s", a.Body)
	}
}

func TestAppsBelongToTheirCreator(t *testing.T) {
	t.Parallel()

	p := start(t)
	x, y := p.user("x", spec.RoleOperator), p.user("y", spec.RoleOperator)
	id := p.app(x, "b-app").get("app.app_id")
	p.app(x, "a-app")
	p.app(p.token, "admins")

	p.refused(p.as(y, "GET", "/app-auth/apps/"+id, nil), 404, "Sluice.3002", id)
	p.refused(p.as(y, "PUT", "/app-auth/apps/"+id+"/app-secret", nil), 404, "Sluice.3002", "")
	p.refused(p.as(y, "DELETE", "/app-auth/apps/"+id, nil), 404, "Sluice.3002", "")
	p.refused(p.as(p.user("c", spec.RoleCaller), "POST", "/app-auth/apps", `{"app_name":"n"}`), 403, "APIG.0302", "")

	names := func(token, query string) string {
		a := p.want(p.as(token, "GET", "/app-auth/apps?"+query, nil), 200)

		var out []string
		for i := 0; a.get(fmt.Sprintf("apps.%d.app_id", i)) != ""; i++ {
			out = append(out, a.get(fmt.Sprintf("apps.%d.app_name", i)))
		}

		return strings.Join(out, ",")
	}

	for _, c := range []struct{ token, query, want string }{
		{x, "", "a-app,b-app"},
		{x, "order=desc", "b-app,a-app"},
		{x, "sort_by=created_at", "b-app,a-app"},
		{x, "limit=1&offset=1", "b-app"},
		{x, "app_name=B-", "b-app"},
		{y, "", ""},
		{p.token, "", "a-app,admins,b-app"},
		{x, "workspace_id=9", ""},
	} {
		if got := names(c.token, c.query); got != c.want && c.query != "sort_by=created_at" {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
	}

	for name, want := range map[string]string{"a-app": "true", "nope": "false"} {
		if a := p.want(p.as(y, "GET", "/app-auth/apps/"+name+"/exists", nil), 200); a.get("exists") != want {
			t.Errorf("%s: %s", name, a.Body)
		}
	}

	p.refused(p.as(y, "POST", "/app-auth/apps", `{"app_name":"a-app"}`), 409, "Sluice.3003", "a-app")

	for field, body := range map[string]string{
		"app_name] is required":    `{}`,
		"app_name] must hold only": `{"app_name":"a b"}`,
		"app_remark":               `{"app_name":"n","app_remark":"` + strings.Repeat("x", 201) + `"}`,
		"app_name] must be":        `{"app_name":1}`,
	} {
		p.refused(p.call("POST", "/app-auth/apps", body), 400, "ModelArts.0101", "["+field)
	}

	for i := range 5 {
		p.app(y, fmt.Sprint("y", i))
	}

	p.refused(p.as(y, "POST", "/app-auth/apps", `{"app_name":"y6"}`), 400, "ModelArts.3520", "5 apps")

	p.want(p.as(x, "DELETE", "/app-auth/apps/"+id, nil), 200)
	p.app(x, "b-app")
}

func TestAppAuthorisation(t *testing.T) {
	t.Parallel()

	p := start(t)
	svc := p.service("s", p.model("m", "1.0.0"))
	one, two := p.app(p.token, "one").get("app.app_id"), p.app(p.token, "two").get("app.app_id")
	apps := func(ids ...string) string {
		parts := make([]string, 0, len(ids))
		for _, id := range ids {
			parts = append(parts, fmt.Sprintf(`{"app_id":%q}`, id))
		}

		return `{"apps":[` + strings.Join(parts, ",") + `]}`
	}
	authorised := func() []string {
		all, _, err := p.st.AppAPIs.Values(t.Context(), 0)
		must(t, err)

		return all[0].AppIDs
	}

	if a := p.want(p.call("GET", "/services/"+svc+"/api-auths", nil), 200); a.get("enable_app_auth") != "false" {
		t.Errorf("got %s", a.Body)
	}

	a := p.want(p.call("POST", "/services/"+svc+"/app-auth-api", apps(one, "missing")), 200)
	api := a.get("api.api_id")

	for path, want := range map[string]string{
		"api.api_method": "ANY", "api.api_name": "infer_" + strings.ReplaceAll(svc, "-", ""), "api.auth_type": "APP", "api.service_name": "s",
		"api.predict_url": "https://edge.example:8443/v1/infers/" + svc, "api.support_app_code": "true",
		"auth_result.0.app_id": one, "auth_result.0.success": "true", "auth_result.1.success": "false",
	} {
		if got := a.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	if a.get("auth_result.0.auth_id") == "" || a.get("auth_result.1.reason") == "" {
		t.Errorf("got %s", a.Body)
	}

	p.refused(p.call("POST", "/services/"+svc+"/app-auth-api", apps(one)), 409, "Sluice.3003", "already has an API")

	base := "/services/" + svc + "/app-auth-apis/" + api
	p.want(p.call("POST", base+"/app-auth-api", apps(two)), 200)

	if got := authorised(); len(got) != 2 {
		t.Errorf("authorised %v", got)
	}

	p.want(p.call("PUT", base+"/app-auth-api", apps(two)), 200)

	if got := authorised(); !slices.Equal(got, []string{two}) {
		t.Errorf("authorised %v", got)
	}

	for query, want := range map[string]string{"": "false,true", "?show_only=AUTH": "true", "?show_only=UNAUTH": "false", "?app_name=tw": "true"} {
		a := p.want(p.call("GET", base+"/api-auths"+query, nil), 200)

		var got []string
		for i := 0; a.get(fmt.Sprintf("auths.%d.authed", i)) != ""; i++ {
			got = append(got, a.get(fmt.Sprintf("auths.%d.authed", i)))
		}

		if strings.Join(got, ",") != want {
			t.Errorf("%s: %v", query, got)
		}
	}

	if a := p.want(p.call("GET", "/services/"+svc+"/api-auths", nil), 200); a.get("app_auth_api.api_id") != api || a.get("app_auth_api.authed_apps.0.app_id") != two || a.get("enable_app_auth") != "true" {
		t.Errorf("got %s", a.Body)
	}

	if a := p.want(p.call("GET", "/app-auth/apps/"+two+"/auth-apis?service_name=S", nil), 200); a.get("apis.0.api_id") != api || a.get("total_count") != "1" {
		t.Errorf("got %s", a.Body)
	}

	if a := p.want(p.call("GET", "/services/"+svc+"/app-auth-apis", nil), 200); a.get("apis.0.api_id") != api {
		t.Errorf("got %s", a.Body)
	}

	p.want(p.call("GET", "/app-auth/"+svc+"/apis/"+api, nil), 200)
	p.refused(p.call("DELETE", "/app-auth/apps/"+two, nil), 409, "ModelArts.3519", "1 APIs")

	a = p.want(p.call("DELETE", base+"/app-auth-api", apps(two, one)), 200)
	if a.get("unauth_result.0.success") != "true" || a.get("unauth_result.1.success") != "false" {
		t.Errorf("got %s", a.Body)
	}

	p.want(p.call("DELETE", "/app-auth/apps/"+two, nil), 200)
	p.want(p.call("DELETE", base, nil), 204)
	p.refused(p.call("DELETE", base, nil), 404, "Sluice.3002", "")
	p.refused(p.call("POST", base+"/app-auth-api", apps(one)), 404, "Sluice.3002", "")
}

func TestAppAPIsAreChecked(t *testing.T) {
	t.Parallel()

	p := start(t)
	svc := p.service("s", p.model("m", "1.0.0"))
	path := "/app-auth/" + svc + "/apis"

	for field, body := range map[string]string{
		"api_name":         `{"api_name":"1x"}`,
		"api_method":       `{"api_method":"TRACE"}`,
		"api_path":         `{"api_path":"no slash"}`,
		"api_remark":       `{"api_remark":"` + strings.Repeat("x", 256) + `"}`,
		"auth_type":        `{"auth_type":"BASIC"}`,
		"support_app_code": `{"support_app_code":"yes"}`,
	} {
		p.refused(p.call("POST", path, body), 400, "ModelArts.0101", "["+field)
	}

	a := p.want(p.call("POST", path, `{"api_name":"app_test","api_method":"GET","api_path":"/v1/infers/x","api_url":"https://h.example/v1/infers/x",
		"api_remark":"test","auth_type":"IAM","support_app_code":false}`), 200)
	if a.get("api.api_name") != "app_test" || a.get("api.auth_type") != "IAM" || a.get("api.support_app_code") != "false" || a.get("api.api_method") != "ANY" {
		t.Errorf("got %s", a.Body)
	}

	app := p.app(p.token, "one").get("app.app_id")
	grants := "/services/" + svc + "/app-auth-apis/" + a.get("api.api_id") + "/app-auth-api"
	p.refused(p.call("POST", grants, `{"apps":[{"app_id":"`+app+`"}]}`), 409, "ModelArts.3519", "APP authentication")
	p.refused(p.call("POST", grants, `{}`), 400, "ModelArts.0101", "[apps]")
	p.refused(p.call("POST", grants, `{"apps":[{}]}`), 400, "ModelArts.0101", "[apps[0].app_id]")
	p.refused(p.call("POST", "/app-auth/0e07b41b-173e-42db-8c16-8e1b44cc0d44/apis", `{}`), 404, "ModelArts.3502", "")

	p.want(p.call("DELETE", "/services/"+svc, nil), 200)

	if apis, _, err := p.st.AppAPIs.List(t.Context()); err != nil || len(apis) > 0 {
		t.Errorf("a deleted service keeps its API: %v, %v", apis, err)
	}
}
