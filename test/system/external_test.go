package system_test

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// external deploys addresses that exist already.
func (s *sluice) external(name string, config, extra map[string]any) string {
	s.t.Helper()

	dir := s.t.TempDir()
	config["model_type"] = "External"

	data, err := json.Marshal(config)
	if err != nil {
		s.t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		s.t.Fatal(err)
	}

	if ca, ok := config["-ca"].(string); ok {
		link(s.t, ca, filepath.Join(dir, "ca.pem"))
	}

	id := s.deploy(name, s.publish(name, "External", dir), 1, extra)
	s.waitStatus(id, "running", 30*time.Second)

	return id
}

// upstream is a server that somebody else runs.
func upstream(t testing.TB, name, cert, key string) string {
	t.Helper()

	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(map[string]any{
			"name": name, "uri": r.RequestURI, "key": r.Header.Values("X-Api-Key"), "host": r.Host, "tls": r.TLS != nil,
			"auth": r.Header.Get("Authorization"),
		})
	}))
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)

	if cert != "" {
		pair, err := tls.LoadX509KeyPair(cert, key)
		if err != nil {
			t.Fatal(err)
		}

		srv.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
		srv.StartTLS()
	} else {
		srv.Start()
	}

	t.Cleanup(srv.Close)

	return srv.URL
}

// TestExternalEngines puts servers of others behind the gateway.
func TestExternalEngines(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	t.Run("weights, headers and prefix", func(t *testing.T) { s.externalPlain(t) })
	t.Run("TLS", func(t *testing.T) { s.externalTLS(t) })
	t.Run("probed", func(t *testing.T) { s.externalProbed(t) })
}

func (s *sluice) externalPlain(t *testing.T) {
	t.Helper()

	big, small := upstream(t, "big", "", ""), upstream(t, "small", "", "")

	id := s.external("weights", map[string]any{"endpoints": []any{
		map[string]any{"url": big, "weight": 3, "headers": map[string]string{"X-Api-Key": "secret", "Host": "models.example"}, "path_prefix": "/serving"},
		map[string]any{"url": small + "/other/", "weight": 1, "headers": map[string]string{"Authorization": "Bearer x"}},
	}}, map[string]any{"load_balancer_policy": "ROUND_ROBIN"})

	count := map[string]int{}

	// Both are new; the wait for the second is for its place in the plan.
	s.eventually(10*time.Second, "both addresses", func() bool {
		name, _ := s.call("POST", s.Edge+"/v1/infers/"+id+"/x", "").json(t)["name"].(string)
		count[name]++

		return count["big"] > 0 && count["small"] > 0
	})

	clear(count)

	for range 200 {
		m := s.call("POST", s.Edge+"/v1/infers/"+id+"/v1/models/m:predict?a=1", "", "X-Api-Key", "forged").json(t)
		name, _ := m["name"].(string)
		count[name]++

		want := map[string][3]any{
			"big":   {"/serving/v1/models/m:predict?a=1", "models.example", ""},
			"small": {"/other/v1/models/m:predict?a=1", strings.TrimPrefix(small, "http://"), "Bearer x"},
		}[name]
		if m["uri"] != want[0] || m["host"] != want[1] || m["auth"] != want[2] {
			t.Fatalf("%v, want %v", m, want)
		}

		if key, _ := m["key"].([]any); name == "big" && (len(key) != 1 || key[0] != "secret") {
			t.Fatalf("the engine was given %v", m["key"])
		}
	}

	if count["big"] < 130 || count["big"] > 170 {
		t.Errorf("weights 3 and 1 gave %v", count)
	}
}

func (s *sluice) externalTLS(t *testing.T) {
	t.Helper()

	cert, key := selfSigned(t, t.TempDir(), "127.0.0.1")
	secure := upstream(t, "secure", cert, key)

	for name, tc := range map[string]struct {
		endpoint map[string]any
		status   int
	}{
		"unknown CA": {map[string]any{}, 503},
		"known CA":   {map[string]any{"ca_cert": "ca.pem"}, 200},
		"unverified": {map[string]any{"insecure_skip_verify": true}, 200},
	} {
		tc.endpoint["url"] = secure
		id := s.external("tls-"+strings.ReplaceAll(name, " ", "-"), map[string]any{"endpoints": []any{tc.endpoint}, "-ca": cert}, nil)

		a := s.call("POST", s.Edge+"/v1/infers/"+id, "")
		if a.Status != tc.status || tc.status == 200 && a.json(t)["tls"] != true {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
}

// externalProbed takes an address out whose health check fails, and back in.
func (s *sluice) externalProbed(t *testing.T) {
	t.Helper()

	up := upstream(t, "up", "", "")

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	down := ln.Addr().String()
	if err := ln.Close(); err != nil {
		t.Fatal(err)
	}

	dir := map[string]any{
		"health":    map[string]any{"url": "/healthz", "period_seconds": "1", "failure_threshold": 1, "timeout_seconds": 1},
		"endpoints": []any{map[string]any{"url": up}, map[string]any{"url": "http://" + down}},
	}

	data, _ := json.Marshal(dir) //nolint:errchkjson // plain values
	pkg := t.TempDir()

	if err := os.WriteFile(filepath.Join(pkg, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}

	id := s.deploy("probed", s.publish("probed", "External", pkg), 1, nil)

	// One address serves, the other one never did: the service is not whole, but no request fails.
	s.eventually(20*time.Second, "an answer", func() bool { return s.call("POST", s.Edge+"/v1/infers/"+id, "").Status == 200 })

	for range 20 {
		if a := s.call("POST", s.Edge+"/v1/infers/"+id, ""); a.Status != 200 {
			t.Errorf("%d %s", a.Status, a.Body)
		}
	}
}
