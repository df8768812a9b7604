package api_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// TestSignedRequests sends requests over real HTTP, because net/http moves some headers away.
func TestSignedRequests(t *testing.T) {
	t.Parallel()

	p := start(t)
	server := httptest.NewServer(p.handler)
	defer server.Close()

	temp := p.want(p.call("POST", "/v3.0/OS-CREDENTIAL/securitytokens", `{"auth":{"identity":{"methods":["token"]}}}`), 201)
	admin := sign.Signer{AccessKey: p.boot.AccessKey, Secret: spec.NewSecret(p.boot.SecretKey)}
	temporary := sign.Signer{
		AccessKey: temp.get("credential.access"), Secret: spec.NewSecret(temp.get("credential.secret")),
		SecurityToken: spec.NewSecret(temp.get("credential.securitytoken")),
	}
	wrong := admin
	wrong.Secret = spec.NewSecret("wrong")
	tokenless := temporary
	tokenless.SecurityToken = spec.Secret{}
	everything := admin
	everything.Headers = []string{"host", "content-type", "content-length", "user-agent"}

	send := func(s sign.Signer, method, path, body string) (int, string) {
		t.Helper()

		req, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, strings.NewReader(body))
		must(t, err)
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("User-Agent", "test")
		must(t, s.SignHTTP(req, []byte(body), time.Now()))

		resp, err := http.DefaultClient.Do(req)
		must(t, err)

		defer resp.Body.Close()

		data, err := io.ReadAll(resp.Body)
		must(t, err)

		return resp.StatusCode, string(data)
	}

	for name, c := range map[string]struct {
		signer       sign.Signer
		method, path string
		body         string
		status       int
		text         string
	}{
		"list":               {admin, "GET", p.base + "/models?order=asc&model_name=a%20b", "", 200, `"models":[]`},
		"body":               {admin, "POST", p.base + "/app-auth/apps", `{"app_name":"signed"}`, 200, "app_secret"},
		"many headers":       {everything, "POST", p.base + "/app-auth/apps", `{"app_name":"signed2"}`, 200, "app_secret"},
		"many headers, GET":  {everything, "GET", p.base + "/models", "", 200, "models"},
		"projects":           {admin, "GET", "/v3/projects?name=" + p.boot.ProjectName, "", 200, p.boot.ProjectID},
		"temporary":          {temporary, "GET", p.base + "/models", "", 200, "models"},
		"temporary makes AK": {temporary, "POST", "/v3.0/OS-CREDENTIAL/credentials", `{"credential":{}}`, 403, "error"},
		"wrong secret":       {wrong, "GET", p.base + "/models", "", 401, "APIG.0301"},
		"no security token":  {tokenless, "GET", p.base + "/models", "", 401, "APIG.0301"},
	} {
		if status, body := send(c.signer, c.method, c.path, c.body); status != c.status || !strings.Contains(body, c.text) {
			t.Errorf("%s: %d %s", name, status, body)
		}
	}
}
