package system_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// cli runs one client verb as the bootstrap admin and returns what it prints.
func (s *sluice) cli(env []string, args ...string) string {
	s.t.Helper()

	bin, err := binaries()
	if err != nil {
		s.t.Fatal(err)
	}

	cmd := exec.Command(filepath.Join(bin, "sluice"), append(args, "--data", s.data)...)
	cmd.Env = append(os.Environ(), env...)

	var errOut bytes.Buffer

	cmd.Stderr = &errOut

	out, err := cmd.Output()
	if err != nil {
		s.t.Fatalf("sluice %s: %v\n%s", strings.Join(args, " "), err, errOut.String())
	}

	return string(out)
}

func (s *sluice) cliJSON(env []string, args ...string) map[string]any {
	s.t.Helper()

	out := map[string]any{}
	if err := json.Unmarshal([]byte(s.cli(env, append(args, "-o", "json")...)), &out); err != nil {
		s.t.Fatal(err)
	}

	return out
}

// signed sends a prediction signed with a key pair and returns status and body.
func (s *sluice) signed(url, key, secret string, body []byte, contentType string) answer {
	s.t.Helper()

	req, err := http.NewRequestWithContext(context.Background(), http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}

	req.Header.Set("Content-Type", contentType)

	signer := &sign.Signer{AccessKey: key, Secret: spec.NewSecret(secret)}
	if err := signer.SignHTTP(req, body, time.Now()); err != nil {
		s.t.Fatal(err)
	}

	resp, err := client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()

	var buf bytes.Buffer
	if _, err := buf.ReadFrom(resp.Body); err != nil {
		s.t.Fatal(err)
	}

	return answer{Status: resp.StatusCode, Header: resp.Header, Body: buf.Bytes()}
}

// TestEveryWayOfAuthenticating calls one service with all of them, right and wrong.
func TestEveryWayOfAuthenticating(t *testing.T) {
	t.Parallel()

	s := start(t, "", "deploy:\n- {service: digits, model: digits, source: "+digitsDir(t)+"}\n")
	s.login()

	list := s.call("GET", s.api("/services?service_name=digits"), nil).json(t)
	service, _ := list["services"].([]any)[0].(map[string]any)["service_id"].(string)
	url, secure := s.Edge+"/v1/infers/"+service, s.EdgeTLS+"/v1/infers/"+service
	body, ct := multipartOf(t, "images", sample(t, 7))

	check := func(what string, a answer, status int, text string) {
		t.Helper()

		if a.Status != status || !bytes.Contains(a.Body, []byte(text)) {
			t.Errorf("%s: %d %s, want %d %s", what, a.Status, a.Body, status, text)
		}
	}

	// AK/SK of the bootstrap, right and with one letter wrong.
	check("AK/SK", s.signed(url, s.Boot.AccessKey, s.Boot.SecretKey, body, ct), 200, `"predicted_label":"7"`)
	check("AK/SK over TLS", s.signed(secure, s.Boot.AccessKey, s.Boot.SecretKey, body, ct), 200, `"predicted_label":"7"`)
	check("wrong SK", s.signed(url, s.Boot.AccessKey, s.Boot.SecretKey+"x", body, ct), 401, "APIG.0301")

	// A key made, used, and deleted.
	key, _ := s.cliJSON(nil, "key", "create")["credential"].(map[string]any)
	ak, sk := key["access"].(string), key["secret"].(string)
	check("a new key at once", s.signed(url, ak, sk, body, ct), 200, `"predicted_label":"7"`)
	s.cli(nil, "key", "delete", ak)
	check("a deleted key at once", s.signed(url, ak, sk, body, ct), 401, "APIG.0301")

	s.checkApp(service, url, secure, body, ct)
	s.checkUser(url, body, ct)

	// A revoked token ends within a second.
	token := strings.TrimSpace(s.cli(nil, "token", "create"))
	check("token", s.call("POST", url, body, "Content-Type", ct, "X-Auth-Token", token), 200, "7")
	s.cli(nil, "token", "revoke", token)
	s.eventually(time.Second, "end of a revoked token", func() bool {
		return s.call("POST", url, body, "Content-Type", ct, "X-Auth-Token", token).Status == 401
	})

	for _, secret := range []string{s.Boot.Password, s.Boot.SecretKey, sk, token, s.token} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("a secret stands in the log")
		}
	}
}

func (s *sluice) checkApp(service, url, secure string, body []byte, ct string) {
	s.t.Helper()

	app, _ := s.cliJSON(nil, "app", "create", "caller")["app"].(map[string]any)
	key, secret := app["app_key"].(string), app["app_secret"].(string)

	s.eventually(time.Second, "a new app to be known and refused", func() bool {
		a := s.signed(url, key, secret, body, ct)

		return a.Status == 403 && bytes.Contains(a.Body, []byte("APIG.0304"))
	})
	s.cli(nil, "app", "grant", "caller", "digits")
	s.eventually(time.Second, "a granted app", func() bool { return s.signed(url, key, secret, body, ct).Status == 200 })

	coded, _ := s.cliJSON(nil, "app", "code", "caller")["app"].(map[string]any)
	codes, _ := coded["app_codes"].([]any)
	code, _ := codes[len(codes)-1].(string)

	a := s.call("POST", url, body, "Content-Type", ct, "X-Auth-Token", "", "X-Apig-AppCode", code)
	if a.Status != 401 {
		s.t.Errorf("a code without TLS: %d %s", a.Status, a.Body)
	}

	// Codes are accepted once the API of the service says so.
	apis := s.call("GET", s.api("/services/"+service+"/app-auth-apis"), nil).json(s.t)
	s.t.Logf("APIs of the service: %v", apis)
	s.eventually(2*time.Second, "use of an app code", func() bool {
		a = s.call("POST", secure, body, "Content-Type", ct, "X-Auth-Token", "", "X-Apig-AppCode", code)

		return a.Status == 200
	})
}

func (s *sluice) checkUser(url string, body []byte, ct string) {
	s.t.Helper()

	env := []string{"SLUICE_NEW_PASSWORD=Correct-Horse-9"}
	s.cli(env, "user", "create", "bob")

	login := func() (string, int) {
		a := s.call("POST", s.Control+"/v3/auth/tokens", map[string]any{"auth": map[string]any{
			"identity": map[string]any{"methods": []string{"password"}, "password": map[string]any{"user": map[string]any{
				"name": "bob", "password": "Correct-Horse-9", "domain": map[string]any{"name": s.Boot.Domain},
			}}},
			"scope": map[string]any{"project": map[string]any{"id": s.Boot.ProjectID}},
		}})

		return a.Header.Get("X-Subject-Token"), a.Status
	}

	// Without a grant a user may do nothing: no project token, or one that is refused.
	if token, _ := login(); token != "" {
		if a := s.call("POST", url, body, "Content-Type", ct, "X-Auth-Token", token); a.Status != 403 {
			s.t.Errorf("a user without rights: %d %s", a.Status, a.Body)
		}
	}

	s.cli(nil, "user", "grant", "bob", "caller")

	var token string

	s.eventually(2*time.Second, "prediction by a caller", func() bool {
		token, _ = login()

		return token != "" && s.call("POST", url, body, "Content-Type", ct, "X-Auth-Token", token).Status == 200
	})

	if a := s.call("POST", s.api("/models"), map[string]any{}, "X-Auth-Token", token); a.Status != 403 {
		s.t.Errorf("a caller makes a model: %d %s", a.Status, a.Body)
	}

	s.cli(nil, "user", "delete", "bob")
	s.eventually(time.Second, "end of a deleted user's token", func() bool {
		return s.call("POST", url, body, "Content-Type", ct, "X-Auth-Token", token).Status == 401
	})
}
