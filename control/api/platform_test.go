package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/control/api"
	"github.com/sluice-gateway/sluice/control/identity"
	"github.com/sluice-gateway/sluice/control/registry"
	"github.com/sluice-gateway/sluice/control/store"
	"github.com/sluice-gateway/sluice/control/store/storetest"
	"github.com/sluice-gateway/sluice/internal/pkgstore"
	"github.com/sluice-gateway/sluice/internal/secretbox"
	"github.com/sluice-gateway/sluice/spec"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// platform is the whole control API without anything that starts instances.
type platform struct {
	t       *testing.T
	st      *store.Store
	ring    *secretbox.Keyring
	handler http.Handler
	boot    identity.Bootstrap
	token   string // of the administrator
	base    string // /v1/{project_id}
}

func start(t *testing.T) *platform {
	t.Helper()

	log := slog.New(slog.DiscardHandler)
	p := &platform{t: t, st: storetest.New(t)}
	dir := t.TempDir()

	ring, err := secretbox.LoadOrCreate(filepath.Join(dir, "secret.key"))
	must(t, err)

	p.ring = ring

	ident, err := identity.Open(t.Context(), identity.Config{BootstrapFile: filepath.Join(dir, "bootstrap.json"), HashMemoryKiB: 64}, p.st, ring, log)
	must(t, err)

	pkgs, err := pkgstore.New(pkgstore.Config{Dir: filepath.Join(dir, "packages")})
	must(t, err)

	reg := registry.New(registry.Config{Hidden: []string{dir}}, p.st, pkgs, log)

	a, err := api.New(api.Config{EdgeURL: func() string { return "https://edge.example:8443" }}, api.Deps{
		Store: p.st, Registry: reg, Ring: ring, Gate: ident, Usage: usage{}, Routes: ident.Routes(),
	}, log)
	must(t, err)

	p.handler = a.Handler()

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)

	go func() { done <- reg.Run(ctx) }()

	t.Cleanup(func() {
		cancel()

		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	data, err := os.ReadFile(filepath.Join(dir, "bootstrap.json"))
	must(t, err)
	must(t, json.Unmarshal(data, &p.boot))

	p.base = "/v1/" + p.boot.ProjectID
	p.token = p.login(p.boot.User, p.boot.Password)

	return p
}

type usage struct{}

func (usage) ServiceUsage(string) api.ServiceUsage {
	return api.ServiceUsage{Invocations: 7, Failures: 2, RequestsPerMinute: 3}
}

type answer struct {
	*httptest.ResponseRecorder

	t *testing.T
}

// get reads a value by a path such as "config.0.weight".
func (a answer) get(path string) string {
	a.t.Helper()

	var v any

	d := json.NewDecoder(bytes.NewReader(a.Body.Bytes()))
	d.UseNumber()
	must(a.t, d.Decode(&v))

	for part := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[part]
		case []any:
			i, err := strconv.Atoi(part)
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

// as is a call by the holder of a token; a path without /v lies in the project.
func (p *platform) as(token, method, path string, body any) answer {
	p.t.Helper()

	if !strings.HasPrefix(path, "/v") {
		path = p.base + path
	}

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
	if token != "" {
		r.Header.Set("X-Auth-Token", token)
	}

	w := httptest.NewRecorder()
	p.handler.ServeHTTP(w, r)

	return answer{w, p.t}
}

func (p *platform) call(method, path string, body any) answer {
	p.t.Helper()

	return p.as(p.token, method, path, body)
}

func (p *platform) want(a answer, status int) answer {
	p.t.Helper()

	if a.Code != status {
		p.t.Fatalf("status %d, want %d: %s", a.Code, status, a.Body)
	}

	return a
}

// refused checks status, code and a part of the text of an error.
func (p *platform) refused(a answer, status int, code, text string) {
	p.t.Helper()

	if a.Code != status || a.get("error_code") != code || !strings.Contains(a.get("error_msg"), text) ||
		a.get("request_id") == "" || a.get("request_id") != a.Header().Get("X-Request-Id") {
		p.t.Errorf("got %d %s, want %d %s %q", a.Code, a.Body, status, code, text)
	}
}

func (p *platform) login(user, password string) string {
	p.t.Helper()

	return p.want(p.as("", "POST", "/v3/auth/tokens", fmt.Sprintf(
		`{"auth":{"identity":{"methods":["password"],"password":{"user":{"name":%q,"password":%q}}},"scope":{"project":{"id":%q}}}}`,
		user, password, p.boot.ProjectID)), 201).Header().Get("X-Subject-Token")
}

// user makes a user with a role in the project and returns a token.
func (p *platform) user(name string, role spec.Role) string {
	p.t.Helper()

	id := p.want(p.call("POST", "/v3/users", fmt.Sprintf(`{"user":{"name":%q,"password":"Pass-word-1"}}`, name)), 201).get("user.id")
	if role != "" {
		p.want(p.call("PUT", "/v3/projects/"+p.boot.ProjectID+"/users/"+id+"/roles/"+string(role), nil), 204)
	}

	return p.login(name, "Pass-word-1")
}

// pkg makes a package directory.
func (p *platform) pkg(files map[string]string) string {
	p.t.Helper()

	dir := p.t.TempDir()
	for name, text := range files {
		must(p.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}

	return dir
}

// model publishes a model and returns its id.
func (p *platform) model(name, version string) string {
	p.t.Helper()

	id := p.want(p.call("POST", "/models", map[string]any{
		"model_name": name, "model_version": version, "model_type": "ONNX",
		"source_location": p.pkg(map[string]string{"model.onnx": name + version, "config.json": `{"model_type":"ONNX"}`}),
	}), 200).get("model_id")
	p.published(id)

	return id
}

func (p *platform) published(id string) answer {
	p.t.Helper()

	ctx, cancel := context.WithTimeout(p.t.Context(), 20*time.Second)
	defer cancel()

	changed := p.st.Changed(ctx, store.KindModels)
	for range changed {
		if p.call("GET", "/models/"+id, nil).get("model_status") != "publishing" {
			cancel()
		}
	}

	a := p.want(p.call("GET", "/models/"+id, nil), 200)
	if a.get("model_status") == "publishing" {
		p.t.Fatalf("stays publishing: %s", a.Body)
	}

	return a
}

// entry is a good entry of a config, changed by extra fields.
func entry(model string, weight any, extra ...any) map[string]any {
	e := map[string]any{"model_id": model, "weight": weight, "specification": "local.cpu", "instance_count": 1}
	for i := 0; i < len(extra); i += 2 {
		e[extra[i].(string)] = extra[i+1]
	}

	return e
}

func serviceBody(name string, entries ...map[string]any) map[string]any {
	return map[string]any{"service_name": name, "infer_type": "real-time", "config": entries}
}

// service creates a service with one entry and returns its id.
func (p *platform) service(name, model string) string {
	p.t.Helper()

	return p.want(p.call("POST", "/services", serviceBody(name, entry(model, 100))), 200).get("service_id")
}

func (p *platform) observe(id string, state spec.ServiceState) {
	p.t.Helper()

	state.ServiceID = id
	must(p.t, p.st.ServiceStates.Put(p.t.Context(), id, state))
}

func must(t *testing.T, err error) {
	t.Helper()

	if err != nil {
		t.Fatal(err)
	}
}
