package command_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/loadtest/command"
)

// platform is a control API, an edge and an instance in one, with the data directory of a local sluice.
type platform struct {
	data      string
	instances string // JSON list of endpoints
	calls     [3]atomic.Int64
	direct    atomic.Int64
}

func newPlatform(t *testing.T) *platform {
	t.Helper()

	p := &platform{data: t.TempDir()}
	mux := http.NewServeMux()
	s := server(t, mux.ServeHTTP)

	mux.HandleFunc("POST /v3/auth/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Subject-Token", "the-token")
		w.WriteHeader(http.StatusCreated)
	})
	mux.HandleFunc("GET /v1/p1/services", func(w http.ResponseWriter, r *http.Request) {
		name := r.URL.Query().Get("service_name")
		if id := map[string]string{"one": "s1", "two": "s2"}[name]; id != "" {
			fmt.Fprintf(w, `{"services":[{"service_id":%q,"service_name":%q}]}`, id, name)

			return
		}

		io.WriteString(w, `{"services":[]}`)
	})
	mux.HandleFunc("GET /v1/p1/services/{id}", func(w http.ResponseWriter, r *http.Request) {
		if id := r.PathValue("id"); id != "s1" && id != "s2" {
			w.WriteHeader(http.StatusNotFound)
			io.WriteString(w, `{"error_code":"ModelArts.3502","error_msg":"Service does not exist."}`)

			return
		}

		io.WriteString(w, `{"status":"running"}`)
	})
	mux.HandleFunc("GET /v1/p1/services/{id}/predict/endpoints", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"endpoints":%s}`, p.instances)
	})
	mux.HandleFunc("POST /v1/infers/{id}/{rest...}", p.predict)
	mux.HandleFunc("POST /v1/infers/{id}", p.predict)
	mux.HandleFunc("POST /", func(http.ResponseWriter, *http.Request) { p.direct.Add(1) })

	u, err := url.Parse(s.URL)
	if err != nil {
		t.Fatal(err)
	}

	p.instances = fmt.Sprintf(`[{"schema":"http","ip":%q,"port":%s}]`, u.Hostname(), u.Port())
	p.write(t, "endpoints.json", map[string]string{"edge_http": s.URL, "control": s.URL})
	p.write(t, "bootstrap.json", map[string]string{
		"domain": "d", "project_id": "p1", "user": "u", "password": "pw", "access_key": "AK", "secret_key": "a secret",
	})

	return p
}

func (p *platform) write(t *testing.T, name string, v any) {
	t.Helper()

	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(p.data, name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// predict takes the token, or a signature that names the access key.
func (p *platform) predict(w http.ResponseWriter, r *http.Request) {
	a, err := sign.ParseAuthorization([]byte(r.Header.Get("Authorization")))

	if r.Header.Get("X-Auth-Token") != "the-token" && (err != nil || string(a.Access) != "AK") {
		w.WriteHeader(http.StatusUnauthorized)

		return
	}

	p.calls[map[string]int{"s1": 1, "s2": 2}[r.PathValue("id")]].Add(1)
}

func TestServicesAreFoundAndShareTheLoad(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)
	d := measure(t, "--data", p.data, "--mix", "one=80,two=20", "--body", "{}", "-n", "1000", "--no-preflight")

	if d.Failed != 0 || len(d.Targets) != 2 || d.Targets[0].Requests != p.calls[1].Load() || d.Targets[1].Requests != p.calls[2].Load() {
		t.Fatalf("%+v, the edge counts %d and %d", d.Targets, p.calls[1].Load(), p.calls[2].Load())
	}

	if n := d.Targets[0].Requests; n < 740 || n > 860 || d.Targets[0].Name != "one" {
		t.Errorf("%d of 1000 went to one, want 800", n)
	}
}

func TestServicesTakeEveryWayOfAuthenticating(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)

	for _, args := range [][]string{{}, {"--auth", "aksk"}, {"--auth", "token"}, {"--path", "/v2/models/m/infer"}, {"--path", "deep/er"}} {
		if d := measure(t, append(args, "--data", p.data, "--service", "one", "--body", "{}", "-n", "20")...); d.Failed != 0 {
			t.Errorf("%v: %+v", args, d.Errors)
		}
	}

	if _, _, err := call(t, "--data", p.data, "--service", "one", "--auth", "none", "--body", "{}"); err == nil || !strings.Contains(err.Error(), "refuses the credentials") {
		t.Errorf("%v", err)
	}

	if _, _, err := call(t, "--data", p.data, "--service", "three", "--body", "{}"); err == nil || !strings.Contains(err.Error(), "service three") {
		t.Errorf("%v", err)
	}
}

func TestInstancesAreCalledDirectly(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)

	d := measure(t, "--data", p.data, "--service", "one", "--direct", "--body", "{}", "-n", "30", "--no-preflight")
	if d.Failed != 0 || p.direct.Load() != 30 || p.calls[1].Load() != 0 {
		t.Errorf("%d direct calls, %d over the edge: %+v", p.direct.Load(), p.calls[1].Load(), d.Errors)
	}
}

// TestHostsThatNobodyNamed must fail before anything is sent: the address belongs to nobody.
func TestHostsThatNobodyNamed(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)
	p.instances = `[{"schema":"http","ip":"192.0.2.7","port":80}]`

	_, _, err := call(t, "--data", p.data, "--service", "one", "--direct", "--body", "{}")

	var wrong *command.UsageError
	if !errors.As(err, &wrong) || !strings.Contains(err.Error(), "--allow-host 192.0.2.7") {
		t.Errorf("%v", err)
	}

	var at map[string]string

	data, err := os.ReadFile(filepath.Join(p.data, "endpoints.json"))
	if err != nil || json.Unmarshal(data, &at) != nil {
		t.Fatal(err)
	}

	at["edge_http"] = "http://198.51.100.9"
	p.write(t, "endpoints.json", at)

	if _, _, err = call(t, "--data", p.data, "--service", "one", "--body", "{}"); !errors.As(err, &wrong) || !strings.Contains(err.Error(), "--allow-host 198.51.100.9") {
		t.Errorf("%v", err)
	}
}
