package identity_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/control/identity"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/secretbox"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// platform is an identity service with its REST API.
type platform struct {
	t      *testing.T
	svc    *identity.Service
	st     *store.Store
	router *web.Router
	boot   identity.Bootstrap
	offset atomic.Int64 // of the clock
	remote string
}

func start(t *testing.T) *platform {
	t.Helper()

	p := &platform{t: t, st: storetest.New(t), remote: "192.0.2.1:1"}
	file := filepath.Join(t.TempDir(), "bootstrap.json")

	var err error

	now := func() time.Time { return time.Now().Add(time.Duration(p.offset.Load())) }

	p.svc, err = identity.Open(t.Context(), identity.Config{
		BootstrapFile: file, HashMemoryKiB: 64, KeysPerUser: 3, TemporaryKeysPerUser: 2, Now: now,
	}, p.st, ring(t, 1), slog.New(slog.DiscardHandler))
	must(t, err)

	p.router, err = web.New(web.Config{Now: now}, p.svc, slog.New(slog.DiscardHandler), p.svc.Routes()...)
	must(t, err)

	data, err := os.ReadFile(file)
	must(t, err)
	must(t, json.Unmarshal(data, &p.boot))

	return p
}

func ring(t *testing.T, bytesOf ...byte) *secretbox.Keyring {
	t.Helper()

	keys := make([][]byte, 0, len(bytesOf))
	for _, b := range bytesOf {
		keys = append(keys, bytes.Repeat([]byte{b}, 32))
	}

	r, err := secretbox.New(keys...)
	must(t, err)

	return r
}

type answer struct {
	*httptest.ResponseRecorder

	t *testing.T
}

// get reads a value by a path such as "token.user.id" or "users.0.name".
func (a answer) get(path string) string {
	a.t.Helper()

	var v any
	must(a.t, json.Unmarshal(a.Body.Bytes(), &v))

	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			var i int

			_, err := fmt.Sscan(part, &i)
			must(a.t, err)

			if i >= len(x) {
				return ""
			}

			v = x[i]
		default:
			return ""
		}
	}

	if v == nil {
		return ""
	}

	return fmt.Sprint(v)
}

func (p *platform) call(method, path, token string, body any, header ...string) answer {
	p.t.Helper()

	var in io.Reader = http.NoBody

	switch b := body.(type) {
	case nil:
	case string:
		in = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		must(p.t, err)

		in = bytes.NewReader(data)
	}

	r := httptest.NewRequest(method, path, in)
	r.RemoteAddr = p.remote

	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}

	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}

	w := httptest.NewRecorder()
	p.router.ServeHTTP(w, r)

	return answer{w, p.t}
}

func (p *platform) want(a answer, status int) answer {
	p.t.Helper()

	if a.Code != status {
		p.t.Fatalf("status %d, want %d: %s", a.Code, status, a.Body)
	}

	return a
}

func passwordBody(domain, user, password, scope string) string {
	d := ""
	if domain != "" {
		d = fmt.Sprintf(`,"domain":{"name":%q}`, domain)
	}

	return fmt.Sprintf(`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"password":%q%s}}},"scope":%s}}`,
		user, password, d, scope)
}

func (p *platform) login(user, password string) string {
	p.t.Helper()

	a := p.want(p.call("POST", "/v3/auth/tokens", "", passwordBody(p.boot.Domain, user, password,
		fmt.Sprintf(`{"project":{"name":%q}}`, p.boot.ProjectName))), 201)

	return a.Header().Get("X-Subject-Token")
}

func (p *platform) admin() string { return p.login(p.boot.User, p.boot.Password) }

// user makes a user and returns its id.
func (p *platform) user(admin, name string) string {
	p.t.Helper()

	return p.want(p.call("POST", "/v3/users", admin,
		fmt.Sprintf(`{"user":{"name":%q,"password":"Pass-word-1"}}`, name)), 201).get("user.id")
}

func TestTokenIssueHasTheDocumentedForm(t *testing.T) {
	t.Parallel()

	p := start(t)
	a := p.want(p.call("POST", "/v3/auth/tokens", "", passwordBody(p.boot.Domain, p.boot.User, p.boot.Password,
		fmt.Sprintf(`{"project":{"id":%q}}`, p.boot.ProjectID))), 201)

	stamp := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$`)
	if !stamp.MatchString(a.get("token.issued_at")) || !stamp.MatchString(a.get("token.expires_at")) {
		t.Errorf("times %s, %s", a.get("token.issued_at"), a.get("token.expires_at"))
	}

	for path, want := range map[string]string{
		"token.methods.0":           "password",
		"token.project.id":          p.boot.ProjectID,
		"token.project.name":        p.boot.ProjectName,
		"token.project.domain.name": p.boot.Domain,
		"token.user.name":           p.boot.User,
		"token.user.domain.name":    p.boot.Domain,
		"token.roles.0.name":        "administrator",
		"token.catalog":             "[]",
		"token.domain":              "",
	} {
		if got := a.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	if a.Header().Get("X-Subject-Token") == "" || a.Header().Get("X-Request-Id") == "" {
		t.Errorf("headers %v", a.Header())
	}

	issued, err := time.Parse(time.RFC3339, a.get("token.issued_at"))
	must(t, err)
	expires, err := time.Parse(time.RFC3339, a.get("token.expires_at"))
	must(t, err)

	if expires.Sub(issued) != 24*time.Hour {
		t.Errorf("lives %v", expires.Sub(issued))
	}

	// Without catalog, by domain scope, and without any scope.
	for _, scope := range []string{`{"domain":{"name":"` + p.boot.Domain + `"}}`, `null`} {
		a = p.want(p.call("POST", "/v3/auth/tokens?nocatalog=true", "", passwordBody("", p.boot.User, p.boot.Password, scope)), 201)
		if a.get("token.domain.name") != p.boot.Domain || a.get("token.project") != "" || strings.Contains(a.Body.String(), "catalog") {
			t.Errorf("scope %s: %s", scope, a.Body)
		}
	}
}

func TestTokenIssueRefuses(t *testing.T) {
	t.Parallel()

	p := start(t)
	project := fmt.Sprintf(`{"project":{"id":%q}}`, p.boot.ProjectID)

	for name, c := range map[string]struct {
		body   string
		status int
		text   string
	}{
		"no JSON":          {"{", 400, "Incorrect JSON"},
		"empty":            {"", 400, "Empty"},
		"no identity":      {`{"auth":{}}`, 400, "auth.identity"},
		"no method":        {`{"auth":{"identity":{"methods":[]}}}`, 400, "methods"},
		"unknown method":   {`{"auth":{"identity":{"methods":["totp"]}}}`, 400, "methods"},
		"methods is text":  {`{"auth":{"identity":{"methods":"password"}}}`, 400, "[auth.identity.methods] must be an array"},
		"no user":          {`{"auth":{"identity":{"methods":["password"],"password":{}}}}`, 400, "password.user"},
		"no password":      {passwordBody("", p.boot.User, "", project), 400, "user.password"},
		"wrong password":   {passwordBody(p.boot.Domain, p.boot.User, "nope", project), 401, "The username or password is wrong."},
		"unknown user":     {passwordBody(p.boot.Domain, "nobody", "nope", project), 401, "The username or password is wrong."},
		"unknown domain":   {passwordBody("elsewhere", p.boot.User, p.boot.Password, project), 401, "The username or password is wrong."},
		"slash in name":    {passwordBody(p.boot.Domain, "a/b", "nope", project), 401, "wrong"},
		"unknown project":  {passwordBody(p.boot.Domain, p.boot.User, p.boot.Password, `{"project":{"name":"nope"}}`), 404, "nope"},
		"empty project":    {passwordBody(p.boot.Domain, p.boot.User, p.boot.Password, `{"project":{}}`), 400, "scope.project.name"},
		"foreign domain":   {passwordBody(p.boot.Domain, p.boot.User, p.boot.Password, `{"domain":{"name":"x"}}`), 403, "domain"},
		"both scopes":      {passwordBody(p.boot.Domain, p.boot.User, p.boot.Password, `{"domain":{"name":"x"},"project":{"name":"y"}}`), 400, "scope"},
		"wrong secret key": {fmt.Sprintf(`{"auth":{"identity":{"methods":["hw_ak_sk"],"hw_ak_sk":{"access":{"key":%q},"secret":{"key":"x"}}}}}`, p.boot.AccessKey), 401, "access key"},
		"unknown key":      {`{"auth":{"identity":{"methods":["hw_ak_sk"],"hw_ak_sk":{"access":{"key":"X"},"secret":{"key":"x"}}}}}`, 401, "access key"},
		"no key":           {`{"auth":{"identity":{"methods":["hw_ak_sk"]}}}`, 400, "hw_ak_sk.access.key"},
		"broken token":     {`{"auth":{"identity":{"methods":["token"],"token":{"id":"x"}}}}`, 401, "token"},
		"oversized":        {passwordBody(p.boot.Domain, strings.Repeat("x", 300), "x", project), 400, "too long"},
	} {
		a := p.call("POST", "/v3/auth/tokens", "", c.body)
		if a.Code != c.status || !strings.Contains(a.get("error.message"), c.text) || a.get("error.code") != strconv.Itoa(c.status) ||
			a.get("error.title") != http.StatusText(c.status) {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}

		if a.Header().Get("X-Subject-Token") != "" {
			t.Errorf("%s: gave a token", name)
		}
	}
}

func TestHwAkSkAndTokenMethods(t *testing.T) {
	t.Parallel()

	p := start(t)
	body := fmt.Sprintf(`{"auth":{"identity":{"methods":["hw_ak_sk"],"hw_ak_sk":{"access":{"key":%q},"secret":{"key":%q}}},"scope":{"project":{"name":%q}}}}`,
		p.boot.AccessKey, p.boot.SecretKey, p.boot.ProjectName)
	first := p.want(p.call("POST", "/v3/auth/tokens", "", body), 201)

	if first.get("token.methods.0") != "hw_ak_sk" || first.get("token.project.id") != p.boot.ProjectID {
		t.Fatalf("got %s", first.Body)
	}

	p.offset.Add(int64(time.Hour))

	body = fmt.Sprintf(`{"auth":{"identity":{"methods":["token"],"token":{"id":%q}},"scope":{"project":{"name":%q}}}}`,
		first.Header().Get("X-Subject-Token"), p.boot.ProjectName)
	second := p.want(p.call("POST", "/v3/auth/tokens", "", body), 201)

	if second.get("token.expires_at") != first.get("token.expires_at") {
		t.Fatalf("a token prolonged itself: %s after %s", second.get("token.expires_at"), first.get("token.expires_at"))
	}
}

func TestWrongPasswordsLockThisSourceOnly(t *testing.T) {
	t.Parallel()

	p := start(t)
	try := func(password string) answer {
		return p.call("POST", "/v3/auth/tokens", "", passwordBody(p.boot.Domain, p.boot.User, password, "null"))
	}

	for range 4 {
		p.want(try("wrong"), 401)
	}

	p.want(try(p.boot.Password), 201) // a success starts the count again

	for range 5 {
		p.want(try("wrong"), 401)
	}

	a := p.want(try(p.boot.Password), 401)
	if !strings.Contains(a.get("error.message"), "locked") || a.Header().Get("Retry-After") == "" {
		t.Fatalf("got %s", a.Body)
	}

	p.remote = "198.51.100.7:1"
	p.want(try(p.boot.Password), 201)

	p.remote = "192.0.2.1:9"
	p.offset.Add(int64(16 * time.Minute))
	p.want(try(p.boot.Password), 201)
}

func TestTokensCanBeShownAndRevoked(t *testing.T) {
	t.Parallel()

	p := start(t)
	admin, other := p.admin(), p.admin()

	a := p.want(p.call("GET", "/v3/auth/tokens", admin, nil, "X-Subject-Token", other), 200)
	if a.get("token.project.id") != p.boot.ProjectID || a.get("token.methods.0") != "password" {
		t.Fatalf("got %s", a.Body)
	}

	p.want(p.call("GET", "/v3/auth/tokens", admin, nil), 400)
	p.want(p.call("GET", "/v3/auth/tokens", admin, nil, "X-Subject-Token", "x"), 404)
	p.want(p.call("DELETE", "/v3/auth/tokens", admin, nil, "X-Subject-Token", other), 204)
	p.want(p.call("GET", "/v3/users", other, nil), 401)
	p.want(p.call("GET", "/v3/auth/tokens", admin, nil, "X-Subject-Token", other), 404)
	p.want(p.call("GET", "/v3/users", admin, nil), 200)

	id := p.user(admin, "bob")
	bob := p.login("bob", "Pass-word-1")
	p.want(p.call("DELETE", "/v3/auth/tokens", bob, nil, "X-Subject-Token", admin), 403)
	p.want(p.call("DELETE", "/v3/auth/tokens", bob, nil, "X-Subject-Token", bob), 204)
	p.want(p.call("GET", "/v3/users/"+id, bob, nil), 401)
}

func TestUsersHaveNoRightsUntilGranted(t *testing.T) {
	t.Parallel()

	p := start(t)
	admin := p.admin()
	id := p.user(admin, "bob")
	bob := p.login("bob", "Pass-word-1")

	for _, c := range []struct{ method, path string }{
		{"GET", "/v3/users"},
		{"POST", "/v3/users"},
		{"DELETE", "/v3/users/" + id},
		{"PATCH", "/v3/users/" + id},
		{"PUT", "/v3/users/" + id + "/grants"},
		{"PUT", "/v3/projects/" + p.boot.ProjectID + "/users/" + id + "/roles/administrator"},
		{"POST", "/v3/projects"},
	} {
		if a := p.call(c.method, c.path, bob, `{}`); a.Code != 403 {
			t.Errorf("%s %s: %d %s", c.method, c.path, a.Code, a.Body)
		}
	}

	p.want(p.call("GET", "/v3/users/"+id, bob, nil), 200) // oneself

	if a := p.want(p.call("GET", "/v3/projects", bob, nil), 200); a.get("projects.0.id") != "" {
		t.Errorf("sees projects: %s", a.Body)
	}

	role := "/v3/projects/" + p.boot.ProjectID + "/users/" + id + "/roles/operator"
	p.want(p.call("HEAD", role, admin, nil), 404)
	p.want(p.call("PUT", role, admin, nil), 204)
	p.want(p.call("HEAD", role, admin, nil), 204)

	if err := p.svc.Authorize(principalOf(t, p, bob), "modelarts:model:create", p.boot.ProjectID, ""); err != nil {
		t.Errorf("operator may not create models: %v", err)
	}

	if a := p.want(p.call("GET", "/v3/projects", bob, nil), 200); a.get("projects.0.id") != p.boot.ProjectID {
		t.Errorf("does not see the project: %s", a.Body)
	}

	if a := p.want(p.call("GET", strings.TrimSuffix(role, "/operator"), admin, nil), 200); a.get("roles.0.id") != "operator" {
		t.Errorf("roles: %s", a.Body)
	}

	p.want(p.call("DELETE", role, admin, nil), 204)
	p.want(p.call("DELETE", role, admin, nil), 404)

	if err := p.svc.Authorize(principalOf(t, p, bob), "modelarts:model:create", p.boot.ProjectID, ""); err == nil {
		t.Error("a role that was taken away still counts")
	}
}

func TestUserLifecycle(t *testing.T) {
	t.Parallel()

	p := start(t)
	admin := p.admin()
	id := p.user(admin, "bob")
	bob := p.login("bob", "Pass-word-1")

	for name, c := range map[string]struct {
		body   string
		status int
	}{
		"taken":          {`{"user":{"name":"bob","password":"Pass-word-1"}}`, 409},
		"short password": {`{"user":{"name":"al","password":"short"}}`, 400},
		"same as name":   {`{"user":{"name":"longname1","password":"LongName1"}}`, 400},
		"one character":  {`{"user":{"name":"al","password":"aaaaaaaaaa"}}`, 400},
		"no password":    {`{"user":{"name":"al"}}`, 400},
		"no name":        {`{"user":{"password":"Pass-word-1"}}`, 400},
		"bad name":       {`{"user":{"name":"a/b","password":"Pass-word-1"}}`, 400},
		"other domain":   {`{"user":{"name":"al","password":"Pass-word-1","domain_id":"x"}}`, 403},
	} {
		if a := p.call("POST", "/v3/users", admin, c.body); a.Code != c.status {
			t.Errorf("%s: %d %s", name, a.Code, a.Body)
		}
	}

	if a := p.want(p.call("GET", "/v3/users?name=bob", admin, nil), 200); a.get("users.0.id") != id || strings.Contains(a.Body.String(), "argon2") {
		t.Fatalf("got %s", a.Body)
	}

	p.want(p.call("PATCH", "/v3/users/"+id, admin, `{"user":{"name":"rob","description":"d"}}`), 200)
	p.want(p.call("GET", "/v3/users/"+id, bob, nil), 200) // renaming ends nothing
	p.login("rob", "Pass-word-1")

	// A new password and being disabled end all tokens.
	p.want(p.call("POST", "/v3/users/"+id+"/password", bob, `{"user":{"password":"New-word-2","original_password":"bad"}}`), 401)
	p.want(p.call("POST", "/v3/users/"+id+"/password", bob, `{"user":{"password":"New-word-2","original_password":"Pass-word-1"}}`), 204)
	p.want(p.call("GET", "/v3/users/"+id, bob, nil), 401)

	p.offset.Add(int64(time.Second))
	bob = p.login("rob", "New-word-2")
	p.want(p.call("PATCH", "/v3/users/"+id, admin, `{"user":{"enabled":false}}`), 200)
	p.want(p.call("GET", "/v3/users/"+id, bob, nil), 401)
	p.want(p.call("POST", "/v3/auth/tokens", "", passwordBody("", "rob", "New-word-2", "null")), 401)

	p.want(p.call("DELETE", "/v3/users/"+id, admin, nil), 204)
	p.want(p.call("GET", "/v3/users/"+id, admin, nil), 404)
	p.user(admin, "rob") // the name is free again

	self := p.want(p.call("GET", "/v3/users?name="+p.boot.User, admin, nil), 200).get("users.0.id")
	p.want(p.call("DELETE", "/v3/users/"+self, admin, nil), 409)
	p.want(p.call("PATCH", "/v3/users/"+self, admin, `{"user":{"enabled":false}}`), 409)
	p.want(p.call("PUT", "/v3/users/"+self+"/grants", admin, `{"grants":[]}`), 409)
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
