package telemetry_test

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/telemetry"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func serve(t *testing.T, cfg telemetry.OpsConfig, health func() telemetry.Health, opts ...telemetry.OpsOption) *telemetry.Ops {
	t.Helper()

	o, err := telemetry.ListenOps(t.Context(), cfg, telemetry.New("test"), health, opts...)
	if err != nil {
		t.Fatal(err)
	}

	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)

	go func() { done <- o.Run(ctx) }()

	t.Cleanup(func() {
		cancel()

		if err := <-done; err != nil {
			t.Error(err)
		}
	})

	return o
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()

	tr := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	c := &http.Client{Transport: tr}

	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}

	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()

	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}

	return res.StatusCode, string(b)
}

func TestOpsServesMetricsHealthAndProfiles(t *testing.T) {
	t.Parallel()

	var ready atomic.Bool

	o := serve(t, telemetry.OpsConfig{Listen: "127.0.0.1:0"}, func() telemetry.Health {
		if ready.Load() {
			return telemetry.Health{Ready: true}
		}

		return telemetry.Health{State: "starting", Reason: "no instance"}
	})

	if code, body := get(t, o.URL()+"/health"); code != 503 || body != `{"health":"false","state":"starting","reason":"no instance"}`+"\n" {
		t.Errorf("%d %s", code, body)
	}

	ready.Store(true)

	if code, body := get(t, o.URL()+"/health"); code != 200 || body != `{"health":"true"}`+"\n" {
		t.Errorf("%d %s", code, body)
	}

	if code, body := get(t, o.URL()+"/metrics"); code != 200 || !strings.Contains(body, `sluice_build_info{`) ||
		!strings.Contains(body, "go_goroutines") || !strings.Contains(body, "process_open_fds") {
		t.Errorf("%d %.300s", code, body)
	}

	if code, body := get(t, o.URL()+"/debug/pprof/goroutine?debug=1"); code != 200 || !strings.Contains(body, "goroutine profile") {
		t.Errorf("%d %.300s", code, body)
	}

	if code, _ := get(t, o.URL()+"/nope"); code != 404 {
		t.Errorf("%d", code)
	}
}

func TestOpsOverTLSWithoutProfiles(t *testing.T) {
	t.Parallel()

	src, err := tlsconf.New(tlsconf.Config{SelfSigned: tlsconf.SelfSigned{Dir: t.TempDir()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	o := serve(t, telemetry.OpsConfig{Listen: "127.0.0.1:0", NoProfiles: true}, func() telemetry.Health { return telemetry.Health{Ready: true} },
		telemetry.WithTLS(src.Config()), telemetry.WithLog(slog.New(slog.DiscardHandler)))

	if !strings.HasPrefix(o.URL(), "https://") {
		t.Error(o.URL())
	}

	if code, _ := get(t, o.URL()+"/health"); code != 200 {
		t.Errorf("%d", code)
	}

	if code, _ := get(t, o.URL()+"/debug/pprof/"); code != 404 {
		t.Errorf("%d", code)
	}
}

func TestOpsStaysOnLoopbackUnlessTold(t *testing.T) {
	t.Parallel()

	for listen, ok := range map[string]bool{
		"127.0.0.1:9": true, "[::1]:9": true, "localhost:9": true,
		":9": false, "0.0.0.0:9": false, "[::]:9": false, "10.0.0.1:9": false, "example.test:9": false, "nonsense": false,
	} {
		c := telemetry.OpsConfig{Listen: listen}
		if err := c.Validate(); (err == nil) != ok {
			t.Errorf("%s: %v", listen, err)
		}

		c.AllowRemote = true
		if err := c.Validate(); (err == nil) != (listen != "nonsense") {
			t.Errorf("%s with allow_remote: %v", listen, err)
		}
	}
}
