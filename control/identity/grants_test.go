package identity_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestGrantsAreChecked(t *testing.T) {
	t.Parallel()

	p := start(t)
	admin := p.admin()
	id := p.user(admin, "bob")
	path := "/v3/users/" + id + "/grants"

	good := `{"grants":[{"project_id":"` + p.boot.ProjectID + `","statements":[{"effect":"Allow","actions":["modelarts:service:*"],"resources":["*"]},
		{"effect":"Deny","actions":["modelarts:service:delete"]}]}]}`
	p.want(p.call("PUT", path, admin, good), 200)

	if a := p.want(p.call("GET", path, admin, nil), 200); a.get("grants.0.statements.1.effect") != "Deny" {
		t.Fatalf("got %s", a.Body)
	}

	who := principalOf(t, p, p.login("bob", "Pass-word-1"))
	if err := p.svc.Authorize(who, "modelarts:service:create", p.boot.ProjectID, ""); err != nil {
		t.Errorf("allowed action: %v", err)
	}

	if err := p.svc.Authorize(who, "modelarts:service:delete", p.boot.ProjectID, "x"); err == nil {
		t.Error("denied action was allowed")
	}

	for in, field := range map[string]string{
		`{}`:                              "[grants]",
		`{"grants":[{"project_id":"*"}]}`: "[grants[0]]",
		`{"grants":[{"project_id":"x","role":"caller"}]}`:                                         "[grants[0].project_id]",
		`{"grants":[{"project_id":"*","role":"king"}]}`:                                           "[grants[0].role]",
		`{"grants":[{"project_id":"*","statements":[{"effect":"allow","actions":["a"]}]}]}`:       "[grants[0].statements[0].effect]",
		`{"grants":[{"project_id":"*","statements":[{"effect":"Allow"}]}]}`:                       "[grants[0].statements[0].actions]",
		`{"grants":[{"project_id":"*","statements":[{"effect":"Allow","actions":[""]}]}]}`:        "[grants[0].statements[0].actions[0]]",
		`{"grants":[{"project_id":"*","statements":[{"effect":"Allow","actions":"modelarts"}]}]}`: "must be an array",
	} {
		a := p.call("PUT", path, admin, in)
		if a.Code != 400 || !strings.Contains(a.get("error.message"), field) {
			t.Errorf("%s: %d %s", in, a.Code, a.Body)
		}
	}
}

func TestProjectsIsolateAndCanBeDisabled(t *testing.T) {
	t.Parallel()

	p := start(t)
	admin := p.admin()
	id := p.want(p.call("POST", "/v3/projects", admin, `{"project":{"name":"second"}}`), 201).get("project.id")
	p.want(p.call("POST", "/v3/projects", admin, `{"project":{"name":"second"}}`), 409)

	a := p.want(p.call("GET", "/v3/projects?name=second", admin, nil), 200)
	if a.get("projects.0.id") != id || a.get("projects.0.is_domain") != "false" || a.get("projects.1.id") != "" || !strings.Contains(a.get("links.self"), "/v3/projects") {
		t.Fatalf("got %s", a.Body)
	}

	second := p.want(p.call("POST", "/v3/auth/tokens", "", passwordBody("", p.boot.User, p.boot.Password, `{"project":{"name":"second"}}`)), 201).Header().Get("X-Subject-Token")
	who := principalOf(t, p, second)

	if err := p.svc.Authorize(who, "modelarts:model:list", p.boot.ProjectID, ""); err == nil {
		t.Error("a token of one project works in another")
	}

	p.want(p.call("PATCH", "/v3/projects/"+id, admin, `{"project":{"enabled":false}}`), 200)
	p.want(p.call("POST", "/v3/auth/tokens", "", passwordBody("", p.boot.User, p.boot.Password, `{"project":{"name":"second"}}`)), 403)

	if err := p.svc.Authorize(who, "modelarts:model:list", id, ""); err == nil {
		t.Error("a disabled project lets in")
	}

	p.want(p.call("DELETE", "/v3/projects/"+id, admin, nil), 204)
	p.want(p.call("GET", "/v3/projects/"+id, admin, nil), 404)
	p.want(p.call("GET", "/v3/auth/domains", admin, nil), 200)
	p.want(p.call("GET", "/v3/roles", admin, nil), 200)
}

func TestAccessKeys(t *testing.T) {
	t.Parallel()

	p := start(t)
	admin := p.admin()
	id := p.user(admin, "bob")
	bob := p.login("bob", "Pass-word-1")

	const base = "/v3.0/OS-CREDENTIAL/credentials"

	a := p.want(p.call("POST", base, bob, `{"credential":{"description":"mine"}}`), 201)
	ak, sk := a.get("credential.access"), a.get("credential.secret")

	if len(ak) != 20 || len(sk) != 40 || a.get("credential.user_id") != id || a.get("credential.status") != "active" {
		t.Fatalf("got %s", a.Body)
	}

	login := func() answer {
		return p.call("POST", "/v3/auth/tokens", "", fmt.Sprintf(
			`{"auth":{"identity":{"methods":["hw_ak_sk"],"hw_ak_sk":{"access":{"key":%q},"secret":{"key":%q}}}}}`, ak, sk))
	}

	p.want(login(), 201)

	for _, path := range []string{base, base + "/" + ak} {
		if a := p.want(p.call("GET", path, bob, nil), 200); strings.Contains(a.Body.String(), sk) || strings.Contains(a.Body.String(), "secret") {
			t.Fatalf("the secret is shown again: %s", a.Body)
		}
	}

	it, err := p.st.AccessKeys.Get(t.Context(), ak)
	must(t, err)

	if bytes.Contains(it.Value.SealedSecret, []byte(sk)) {
		t.Fatal("the secret is stored in clear")
	}

	p.want(p.call("PUT", base+"/"+ak, bob, `{"credential":{"status":"inactive"}}`), 200)
	p.want(login(), 401)
	p.want(p.call("PUT", base+"/"+ak, bob, `{"credential":{"status":"x"}}`), 400)
	p.want(p.call("PUT", base+"/"+ak, bob, `{"credential":{"status":"active","description":"d"}}`), 200)
	p.want(login(), 201)

	p.want(p.call("GET", base+"/"+p.boot.AccessKey, bob, nil), 403) // of somebody else
	p.want(p.call("DELETE", base+"/"+p.boot.AccessKey, bob, nil), 403)
	p.want(p.call("GET", base+"?user_id="+id, admin, nil), 200)
	p.want(p.call("POST", base, bob, fmt.Sprintf(`{"credential":{"user_id":%q}}`, "0123")), 403)

	p.want(p.call("POST", base, bob, `{"credential":{}}`), 201)
	p.want(p.call("POST", base, bob, `{"credential":{}}`), 201)
	p.want(p.call("POST", base, bob, `{"credential":{}}`), 400) // three at most

	p.want(p.call("DELETE", base+"/"+ak, bob, nil), 204)
	p.want(login(), 401)
	p.want(p.call("DELETE", base+"/"+ak, bob, nil), 404)
	p.want(p.call("GET", base+"/a%20b", bob, nil), 404)
}

func TestTemporaryKeys(t *testing.T) {
	t.Parallel()

	p := start(t)
	token := p.admin()

	const path = "/v3.0/OS-CREDENTIAL/securitytokens"

	a := p.want(p.call("POST", path, token, `{"auth":{"identity":{"methods":["token"],"token":{"duration_seconds":3600}}}}`), 201)
	it, err := p.st.AccessKeys.Get(t.Context(), a.get("credential.access"))
	must(t, err)

	if it.Value.ProjectID != p.boot.ProjectID || len(it.Value.SecurityTokenHash) != 32 || a.get("credential.securitytoken") == "" ||
		a.get("credential.secret") == "" || a.get("credential.expires_at") == "" {
		t.Fatalf("got %s", a.Body)
	}

	p.want(p.call("POST", path, "", fmt.Sprintf(`{"auth":{"identity":{"methods":["token"],"token":{"id":%q}}}}`, token)), 201)
	p.want(p.call("POST", path, token, `{"auth":{"identity":{"methods":["token"]}}}`), 400) // two at most
	p.want(p.call("POST", path, "", `{"auth":{"identity":{"methods":["token"]}}}`), 400)
	p.want(p.call("POST", path, token, `{"auth":{"identity":{"methods":["assume_role"]}}}`), 400)
	p.want(p.call("POST", path, token, `{"auth":{"identity":{"methods":["token"],"token":{"duration_seconds":60}}}}`), 400)
	p.want(p.call("POST", path, "bad", `{"auth":{"identity":{"methods":["token"]}}}`), 401)

	body := fmt.Sprintf(`{"auth":{"identity":{"methods":["hw_ak_sk"],"hw_ak_sk":{"access":{"key":%q},"secret":{"key":%q}}}}}`,
		a.get("credential.access"), a.get("credential.secret"))
	p.want(p.call("POST", "/v3/auth/tokens", "", body), 401) // without its security token it is worth nothing
}
