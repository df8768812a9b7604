package system_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const directKey = "a-key-that-is-long-enough"

type directEndpoint struct {
	InstanceID string `json:"instance_id"`
	ModelID    string `json:"model_id"`
	Schema     string
	IP         string
	Port       int
	Weight     int
	Status     string
	GRPCPort   int `json:"grpc_port"`
}

func (e directEndpoint) url() string {
	return e.Schema + "://" + net.JoinHostPort(e.IP, strconv.Itoa(e.Port))
}

// endpoints looks the direct addresses of a service up, until there are n.
func (s *sluice) endpoints(id string, n int) []directEndpoint {
	s.t.Helper()

	var out struct {
		ServiceID string `json:"service_id"`
		Endpoints []directEndpoint
	}

	deadline := time.Now().Add(30 * time.Second)

	for {
		a := s.call("GET", s.api("/services/"+id+"/predict/endpoints?type=host_endpoints"), nil)
		if a.Status != 200 {
			s.t.Fatalf("endpoints: %d %s", a.Status, a.Body)
		}

		if err := json.Unmarshal(a.Body, &out); err != nil || out.ServiceID != id {
			s.t.Fatalf("endpoints: %v %s", err, a.Body)
		}

		if len(out.Endpoints) == n {
			return out.Endpoints
		}

		if time.Now().After(deadline) {
			s.t.Fatalf("want %d endpoints: %s\n%s", n, a.Body, s.log.tail())
		}

		<-time.After(4 * time.Second) // 20 look-ups a minute are allowed
	}
}

// bare asks without credentials of the platform.
func bare(t testing.TB, c *http.Client, method, url string, body []byte, header ...string) (answer, error) {
	t.Helper()

	req, err := http.NewRequestWithContext(t.Context(), method, url, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}

	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}

	resp, err := c.Do(req)
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()

	data, err := io.ReadAll(resp.Body)

	return answer{Status: resp.StatusCode, Header: resp.Header, Body: data}, err
}

// TestDirectChannel calls workers and custom engines past the gateway.
func TestDirectChannel(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	channel := func(more map[string]any) map[string]any {
		c := map[string]any{"enabled": true, "allow": []string{"127.0.0.0/8"}, "key": directKey}
		maps.Copy(c, more)

		return map[string]any{"direct_channel": c}
	}

	t.Run("worker", func(t *testing.T) { s.directWorker(t, channel(nil)) })
	t.Run("custom engine", func(t *testing.T) { s.directCustom(t, channel(nil)) })
	t.Run("strangers", func(t *testing.T) {
		model, _ := s.model("digits-strangers", "1.0.0", digitsDir(t))
		id := s.deploy("strangers", model, 1, channel(map[string]any{"allow": []string{"10.99.0.0/16"}}))
		s.waitStatus(id, "running", 30*time.Second)

		for _, e := range s.endpoints(id, 1) {
			if a, err := bare(t, client, "GET", e.url()+"/health", nil, "X-Sluice-Direct-Key", directKey); err == nil {
				t.Errorf("a stranger is answered: %d %s", a.Status, a.Body)
			}
		}
	})
}

func (s *sluice) directWorker(t *testing.T, extra map[string]any) {
	t.Helper()

	model, _ := s.model("digits-direct", "1.0.0", digitsDir(t))
	id := s.deploy("direct", model, 2, nil)
	s.waitStatus(id, "running", 30*time.Second)

	if a := s.call("GET", s.api("/services/"+id+"/predict/endpoints?type=host_endpoints"), nil); a.Status != http.StatusForbidden {
		t.Errorf("the channel is off: %d %s", a.Status, a.Body)
	}

	// Turning it on replaces the instances one by one; predictions go on.
	if a := s.call("PUT", s.api("/services/"+id), extra); a.Status != 200 {
		t.Fatalf("turn the channel on: %d %s", a.Status, a.Body)
	}

	for _, e := range s.endpoints(id, 2) {
		if e.InstanceID == "" || e.ModelID != model || e.Schema != "http" || e.IP != "127.0.0.1" || e.Weight != 100 || e.Status != "ready" {
			t.Errorf("endpoint %+v", e)
		}

		body, ct := multipartOf(t, "images", sample(t, 7))

		a, err := bare(t, client, "POST", e.url()+"/", body, "Content-Type", ct, "X-Sluice-Direct-Key", directKey)
		if err != nil || a.Status != 200 || a.json(t)["predicted_label"] != "7" {
			t.Errorf("direct call: %v %d %s", err, a.Status, a.Body)
		}

		for _, key := range []string{"", "wrong"} {
			if a, err := bare(t, client, "POST", e.url()+"/", body, "Content-Type", ct, "X-Sluice-Direct-Key", key); err != nil || a.Status != 401 {
				t.Errorf("key %q: %v %d %s", key, err, a.Status, a.Body)
			}

			a, err := bare(t, client, "GET", e.url()+"/v2/ws", nil, "X-Sluice-Direct-Key", key, "Connection", "Upgrade",
				"Upgrade", "websocket", "Sec-WebSocket-Version", "13", "Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
			if err != nil || a.Status != 401 {
				t.Errorf("a WebSocket with key %q: %v %d %s", key, err, a.Status, a.Body)
			}
		}

		directGRPC(t, e)
	}

	if label, err := s.predictDigit(s.Edge, id, 7); err != nil || label != "7" {
		t.Errorf("through the edge: %q %v", label, err)
	}
}

func directGRPC(t *testing.T, e directEndpoint) {
	t.Helper()

	conn, err := grpc.NewClient(net.JoinHostPort(e.IP, strconv.Itoa(e.GRPCPort)), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	health := grpc_health_v1.NewHealthClient(conn)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "x-sluice-direct-key", directKey)

	if r, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil || r.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("gRPC: %v %v", r, err)
	}

	if _, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("gRPC without the key: %v", err)
	}
}

func (s *sluice) directCustom(t *testing.T, extra map[string]any) {
	t.Helper()

	_, id := s.engine("direct-custom", 1, nil, extra)

	for _, e := range s.endpoints(id, 1) {
		if a, err := bare(t, client, "POST", e.url()+"/echo", []byte("hi"), "X-Sluice-Direct-Key", "no"); err != nil || a.Status != 401 {
			t.Errorf("wrong key: %v %d %s", err, a.Status, a.Body)
		}

		a, err := bare(t, client, "GET", e.url()+"/about?x=%2F", nil, "X-Sluice-Direct-Key", directKey)

		var got about
		if err != nil || json.Unmarshal(a.Body, &got) != nil || got.URI != "/about?x=%2F" || got.Header.Get("X-Sluice-Direct-Key") != "" {
			t.Errorf("direct call: %v %d %s", err, a.Status, a.Body)
		}

		// A stream comes piece by piece, and a caller that leaves ends it.
		ctx, cancel := context.WithCancel(t.Context())
		req, _ := http.NewRequestWithContext(ctx, http.MethodPost, e.url()+"/hang?head=1", strings.NewReader("x"))
		req.Header.Set("X-Sluice-Direct-Key", directKey)

		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}

		first := make([]byte, 9)
		if _, err := io.ReadFull(resp.Body, first); err != nil || string(first) != "data: 1\n\n" {
			t.Errorf("%q %v", first, err)
		}

		cancel()
		_ = resp.Body.Close()

		s.eventually(10*time.Second, "end of the stream", func() bool {
			a, err := bare(t, client, "GET", e.url()+"/gone", nil, "X-Sluice-Direct-Key", directKey)

			return err == nil && a.json(t)["waiting"] == 0.0
		})
	}
}

// TestDirectChannelWithCertificates asks callers for certificates.
func TestDirectChannelWithCertificates(t *testing.T) {
	t.Parallel()

	cert, key := selfSigned(t, t.TempDir(), "127.0.0.1")
	s := start(t, "", fmt.Sprintf("runtime: {direct: {listen: 127.0.0.1, cert: %q, key: %q, client_ca: %q}}\n", cert, key, cert))
	s.login()

	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}

	pem, err := os.ReadFile(cert)
	if err != nil {
		t.Fatal(err)
	}

	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)

	known := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}}}}
	nobody := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}

	model, _ := s.model("digits", "1.0.0", digitsDir(t))
	worker := s.deploy("worker", model, 1, map[string]any{"direct_channel": map[string]any{"enabled": true}})
	s.waitStatus(worker, "running", 30*time.Second)

	_, custom := s.engine("custom", 1, nil, map[string]any{"direct_channel": map[string]any{"enabled": true}})

	for _, id := range []string{worker, custom} {
		for _, e := range s.endpoints(id, 1) {
			if a, err := bare(t, known, "GET", e.url()+"/health", nil); err != nil || a.Status != 200 || e.Schema != "https" {
				t.Errorf("with a certificate: %v %d %s", err, a.Status, a.Body)
			}

			if a, err := bare(t, nobody, "GET", e.url()+"/health", nil); err == nil {
				t.Errorf("without a certificate: %d %s", a.Status, a.Body)
			}
		}
	}

	known.CloseIdleConnections()
}
