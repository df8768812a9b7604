package edge_test

import (
	"bufio"
	"crypto/tls"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
)

// withTLS gives the edge a certificate of its own.
func withTLS(tb testing.TB) func(*edge.Deps) {
	tb.Helper()

	src, err := tlsconf.New(tlsconf.Config{SelfSigned: tlsconf.SelfSigned{Dir: tb.TempDir()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		tb.Fatal(err)
	}

	return func(d *edge.Deps) { d.TLS = src.Config() }
}

func TestHTTPSServesTheSameCorridor(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.HTTPS = "127.0.0.1:0"
	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		if !c.TLS || !c.Remote.Addr().IsLoopback() {
			t.Errorf("TLS %v, remote %v", c.TLS, c.Remote)
		}

		b, err := c.Body.Bytes(1 << 20)
		if err != nil {
			gateway.WriteFault(c, err)

			return
		}

		c.Out.Set(200, b)
	}), withTLS(t))

	c, err := tls.Dial("tcp", r.HTTPSAddr(), insecure())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	br := bufio.NewReader(c)

	for _, size := range []int{0, 5, 100 << 10} {
		body := strings.Repeat("b", size)

		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://x.test/t", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}

		if err := req.Write(c); err != nil {
			t.Fatal(err)
		}

		res := readReply(t, br)
		if res.body != body || !strings.HasPrefix(res.header.Get("Strict-Transport-Security"), "max-age=15552000") {
			t.Fatalf("%d bytes of %d, %v", len(res.body), size, res.header)
		}
	}
}

func TestHTTPRedirectsToHTTPSButKeepsHealth(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.HTTPS = "127.0.0.1:0"
	cfg.RedirectToHTTPS = true
	r := start(t, cfg, handlerFunc(func(*gateway.Call) { t.Error("reached the corridor") }), withTLS(t))

	_, port, _ := strings.Cut(r.HTTPSAddr(), ":")

	for host, want := range map[string]string{
		"gw.test": "https://gw.test:", "gw.test:8080": "https://gw.test:", "[::1]": "https://[::1]:", "[::1]:80": "https://[::1]:",
	} {
		raw := r.send(t, "POST /v1/infers/x?a=%20b HTTP/1.1\r\nHost: "+host+"\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(raw, "HTTP/1.1 308") || !strings.Contains(raw, "Location: "+want+port+"/v1/infers/x?a=%20b\r\n") {
			t.Errorf("%s: %q", host, raw)
		}
	}

	cfg.RedirectPort = 443
	behind := start(t, cfg, &echo{}, withTLS(t))

	if raw := behind.send(t, "GET /t HTTP/1.1\r\nHost: gw.test:80\r\nConnection: close\r\n\r\n"); !strings.Contains(raw, "Location: https://gw.test/t\r\n") {
		t.Errorf("%q", raw)
	}

	if raw := r.send(t, "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(raw, "HTTP/1.1 200") {
		t.Errorf("%q", raw)
	}
}

func TestAClientThatDoesNotShakeHandsIsCut(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.HTTPS = "127.0.0.1:0"
	cfg.Timeouts.Handshake = ms(100)
	r := start(t, cfg, &echo{}, withTLS(t))

	for _, first := range []string{"", "\x16\x03\x01", "GET\x00/ HTTP/1.1\r\nHost: a\r\n\r\n"} {
		c := dialAddr(t, r.HTTPSAddr())
		if _, err := io.WriteString(c, first); err != nil {
			t.Fatal(err)
		}

		begin := time.Now()
		if _, err := io.ReadAll(c); isTimeout(err) {
			t.Fatal(err)
		}

		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%q: cut after %v", first, took)
		}
	}
}

func TestPlainHTTPOnTheHTTPSDoorIsToldSo(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.HTTPS = "127.0.0.1:0"
	r := start(t, cfg, handlerFunc(func(*gateway.Call) { t.Error("reached the corridor") }), withTLS(t))

	for _, request := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST /v1/infers/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n" + strings.Repeat("x", 1_000_000),
	} {
		c := dialAddr(t, r.HTTPSAddr())

		go func() { _, _ = io.WriteString(c, request) }()

		raw, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}

		for _, want := range []string{"HTTP/1.1 400 Bad Request\r\n", "\r\nX-Request-Id: ", `"error_code":"APIG.0201"`, "speaks HTTPS"} {
			if !strings.Contains(string(raw), want) {
				t.Errorf("%.20q: got %q, want %q in it", request, raw, want)
			}
		}

		if strings.Contains(string(raw), "Strict-Transport") {
			t.Errorf("%.20q: got %q", request, raw)
		}
	}
}
