package cli_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/spf13/cobra"
	"gopkg.in/yaml.v3"

	"github.com/sluice-gateway/sluice/internal/cli"
)

// platform is a control API and an edge that record what they are asked.
type platform struct {
	*httptest.Server

	mu       sync.Mutex
	seen     []string // METHOD path body
	statuses []string // of the service, one for each GET; the last one stays
}

func newPlatform(t *testing.T) *platform {
	t.Helper()

	p := &platform{statuses: []string{"running"}}
	mux := http.NewServeMux()
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)

		p.mu.Lock()
		p.seen = append(p.seen, r.Method+" "+r.URL.RequestURI()+" "+string(body))
		p.mu.Unlock()

		if r.URL.Path != "/v3/auth/tokens" && r.Header.Get("X-Auth-Token") != "the-token" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error_code":"APIG.0301","error_msg":"Incorrect IAM authentication information: x-auth-token not found","request_id":"r1"}`)

			return
		}

		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)

	mux.HandleFunc("POST /v3/auth/tokens", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Subject-Token", "the-token")
		w.WriteHeader(http.StatusCreated)
	})
	p.management(mux)

	return p
}

func (p *platform) management(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/p1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"total_count":1,"count":1,"models":[{"model_id":"m1","model_name":"digits","model_version":"1.0.0","model_type":"ONNX",
			"model_status":"published","model_size":4096,"create_at":1585809231902}]}`)
	})
	mux.HandleFunc("POST /v1/p1/models", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"model_id":"m2"}`) })
	mux.HandleFunc("GET /v1/p1/models/m2", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"model_id":"m2","model_name":"new","model_status":"failed","error_msg":"no model.onnx"}`)
	})
	mux.HandleFunc("POST /v1/p1/services", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"service_id":"s1"}`) })
	mux.HandleFunc("GET /v1/p1/services", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"total_count":1,"count":1,"services":[{"service_id":"s1","service_name":"digits","status":"running"}]}`)
	})
	mux.HandleFunc("GET /v1/p1/services/s1", func(w http.ResponseWriter, _ *http.Request) {
		p.mu.Lock()
		defer p.mu.Unlock()

		status := p.statuses[0]
		if len(p.statuses) > 1 {
			p.statuses = p.statuses[1:]
		}

		fmt.Fprintf(w, `{"service_id":"s1","service_name":"digits","status":%q,"progress":50,"publish_at":1585809231902,"error_msg":"boom"}`, status)
	})
	mux.HandleFunc("PUT /v1/p1/services/s1", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) })
	mux.HandleFunc("DELETE /v1/p1/services/s1", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{}`) })
	mux.HandleFunc("GET /v1/infers/s1/predict", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("X-Sluice-Explain") != "route" || r.Header.Get("X-Gray") != "yes" || r.Header.Get("Cookie") != "a=1; b=2" || r.URL.RawQuery != "user=7" {
			w.WriteHeader(http.StatusBadRequest)
		}

		fmt.Fprint(w, `{"reason":"rule","rule":"gray","version":"digits/2.0.0","steps":["rule \"gray\" matches: version digits/2.0.0"],
			"versions":[{"version":"digits/1.0.0","weight":90,"share":90.5,"balancer":"P2C","instances":[{"status":"ready"},{"status":"ejected"},{"status":"ready"}]},
			{"version":"digits/2.0.0","weight":10,"share":0,"balancer":"P2C","instances":[]}]}`)
	})
	p.appAPIs(mux)
	mux.HandleFunc("POST /v1/infers/s1", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Sluice-Model", "digits/1.0.0")
		fmt.Fprint(w, `{"predicted_label":"7"}`)
	})
}

// appAPIs keeps the one API that a service may have.
func (*platform) appAPIs(mux *http.ServeMux) {
	var made atomic.Bool

	const granted = `{"auth_result":[{"app_id":"a","success":true}]}`

	mux.HandleFunc("GET /v1/p1/app-auth/apps", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"apps":[]}`) })
	mux.HandleFunc("GET /v1/p1/services/s1/app-auth-apis", func(w http.ResponseWriter, _ *http.Request) {
		if made.Load() {
			fmt.Fprint(w, `{"apis":[{"api_id":"api1"}]}`)
		} else {
			fmt.Fprint(w, `{"apis":[]}`)
		}
	})
	mux.HandleFunc("POST /v1/p1/services/s1/app-auth-api", func(w http.ResponseWriter, _ *http.Request) {
		if made.Swap(true) {
			w.WriteHeader(http.StatusConflict)
		}

		fmt.Fprint(w, granted)
	})
	mux.HandleFunc("POST /v1/p1/services/s1/app-auth-apis/api1/app-auth-api", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, granted) })
}

func (p *platform) asked(t *testing.T, prefix string) string {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()

	for _, s := range p.seen {
		if strings.HasPrefix(s, prefix) {
			return s
		}
	}

	t.Fatalf("nobody asked %q; seen: %q", prefix, p.seen)

	return ""
}

// run executes one command line against the platform, as a user with a local data directory.
func run(t *testing.T, p *platform, args ...string) (stdout, stderr string, err error) {
	t.Helper()

	data := t.TempDir()
	write(t, filepath.Join(data, "endpoints.json"), fmt.Sprintf(`{"edge_http":%q,"control":%q}`, p.URL, p.URL))
	write(t, filepath.Join(data, "bootstrap.json"), `{"domain":"d","project_id":"p1","user":"admin","password":"secret"}`)

	root := &cobra.Command{Use: "sluice", SilenceErrors: true, SilenceUsage: true}
	root.AddCommand(cli.Commands()...)

	// The last argument of a completion is the word being typed.
	if n := len(args) - 1; args[0] == cobra.ShellCompRequestCmd {
		args = append(args[:n:n], "--data", data, args[n])
	} else {
		args = append(args, "--data", data)
	}

	root.SetArgs(args)

	var out, errOut bytes.Buffer

	root.SetOut(&out)
	root.SetErr(&errOut)
	err = root.ExecuteContext(t.Context())

	return out.String(), errOut.String(), err
}

func write(t *testing.T, path, text string) {
	t.Helper()

	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestListsInThreeFormats(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)

	out, _, err := run(t, p, "model", "list")
	if err != nil || !strings.Contains(out, "STATUS") || !strings.Contains(out, "published") {
		t.Errorf("table: %v\n%s", err, out)
	}

	var v map[string]any

	out, _, err = run(t, p, "model", "list", "-o", "json")
	if err != nil || json.Unmarshal([]byte(out), &v) != nil || v["count"] != 1.0 {
		t.Errorf("json: %v\n%s", err, out)
	}

	out, _, err = run(t, p, "model", "list", "-o", "yaml")
	if err != nil || yaml.Unmarshal([]byte(out), &v) != nil || !strings.Contains(out, "create_at: 1585809231902") {
		t.Errorf("yaml: %v\n%s", err, out)
	}

	if _, _, err = run(t, p, "model", "list", "-o", "xml"); err == nil {
		t.Error("took an unknown format")
	}
}

func TestCreateServiceShowsProgressAndWaits(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)
	p.statuses = []string{"deploying", "deploying", "running"}

	out, progress, err := run(t, p, "service", "create", "digits", "--model", "digits=100", "--instances", "2", "--auth", "TOKEN,AKSK")
	if err != nil || !strings.Contains(out, "running") || !strings.Contains(progress, "deploying") {
		t.Fatalf("%v\n%s\n%s", err, out, progress)
	}

	sent := p.asked(t, "POST /v1/p1/services")
	for _, want := range []string{`"model_id":"m1"`, `"weight":"100"`, `"instance_count":2`, `"auth_types":["TOKEN","AKSK"]`} {
		if !strings.Contains(sent, want) {
			t.Errorf("%s is missing in %s", want, sent)
		}
	}
}

func TestFailuresAreOneClearLine(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)
	p.statuses = []string{"failed"}

	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"failed service":   {[]string{"service", "start", "digits"}, "the service failed: boom"},
		"refused model":    {[]string{"model", "create", "new", "."}, "no model.onnx"},
		"missing package":  {[]string{"model", "create", "new", "./nowhere"}, "no such file"},
		"bad token":        {[]string{"model", "list", "--token", "wrong"}, "x-auth-token not found (APIG.0301, HTTP 401, request r1)"},
		"several, unequal": {[]string{"service", "create", "x", "--model", "a", "--model", "b"}, "need a weight each"},
		"nothing to send":  {[]string{"service", "predict", "digits"}, "nothing to send"},
		"unreachable":      {[]string{"model", "list", "--control", "http://127.0.0.1:1"}, "cannot reach 127.0.0.1:1"},
		"no such object":   {[]string{"service", "get", "bogus"}, "HTTP 404"},
	} {
		_, _, err := run(t, p, tc.args...)
		if err == nil || !strings.Contains(err.Error(), tc.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}

func TestPredictSendsFilesAndJSON(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)
	file := filepath.Join(t.TempDir(), "7.png")
	write(t, file, "not really a picture")

	out, explain, err := run(t, p, "service", "predict", "digits", "--file", file, "--explain")
	if err != nil || out != "{\"predicted_label\":\"7\"}\n" || !strings.Contains(explain, "X-Sluice-Model: digits/1.0.0") {
		t.Fatalf("%v %q %q", err, out, explain)
	}

	sent := p.asked(t, "POST /v1/infers/s1")
	if !strings.Contains(sent, `name="images"; filename="7.png"`) || !strings.Contains(sent, "not really a picture") {
		t.Errorf("sent %s", sent)
	}

	if _, _, err := run(t, p, "service", "predict", "digits", "--json", `{"a":1}`); err != nil {
		t.Error(err)
	}
}

func TestExplainShowsTheWay(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)
	ask := []string{
		"service", "explain", "digits", "--path", "predict", "--header", "X-Gray: yes", "--cookie", "a=1", "--cookie", "b=2", "--query", "user=7",
	}

	out, _, err := run(t, p, ask...)
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{"- rule \"gray\" matches", "=> version digits/2.0.0 (by rule)", "90.500", "2 ready, 1 ejected"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}

	if out, _, err := run(t, p, append(ask, "-o", "json")...); err != nil || !strings.Contains(out, `"rule": "gray"`) {
		t.Errorf("%v\n%s", err, out)
	}

	for _, bad := range [][]string{{"--header", "nothing"}, {"--query", "=x"}, {"--cookie", "x"}} {
		if _, _, err := run(t, p, append([]string{"service", "explain", "digits"}, bad...)...); err == nil || !strings.Contains(err.Error(), bad[0]) {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestTokenAndDelete(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)

	out, _, err := run(t, p, "token", "create")
	if err != nil || out != "the-token\n" {
		t.Errorf("%v %q", err, out)
	}

	if sent := p.asked(t, "POST /v3/auth/tokens"); !strings.Contains(sent, `"id":"p1"`) {
		t.Errorf("the token has no project scope: %s", sent)
	}

	if out, _, err = run(t, p, "service", "delete", "digits"); err != nil || out != "deleted s1\n" {
		t.Errorf("%v %q", err, out)
	}

	p.asked(t, "DELETE /v1/p1/services/s1")
}

func TestSeveralAppsMayCallOneService(t *testing.T) {
	t.Parallel()

	p := newPlatform(t)

	for _, app := range []string{"one", "two", "three"} {
		if out, stderr, err := run(t, p, "app", "grant", app, "digits"); err != nil || !strings.Contains(out, "true") {
			t.Errorf("%s: %v %s%s", app, err, out, stderr)
		}
	}

	if sent := p.asked(t, "POST /v1/p1/services/s1/app-auth-apis/api1/app-auth-api"); !strings.Contains(sent, `"app_id":"two"`) {
		t.Errorf("sent %s", sent)
	}
}

func TestCompletionOffersNames(t *testing.T) {
	t.Parallel()

	out, _, err := run(t, newPlatform(t), cobra.ShellCompRequestCmd, "service", "get", "")
	if err != nil || !strings.HasPrefix(out, "digits\n") {
		t.Errorf("completion: %v %q", err, out)
	}
}
