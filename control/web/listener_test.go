package web_test

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/tlsconf"
)

func TestRequestsThatCannotBeParsedGetTheErrorBodyOfTheAPI(t *testing.T) {
	t.Parallel()

	src, err := tlsconf.New(tlsconf.Config{SelfSigned: tlsconf.SelfSigned{Dir: t.TempDir()}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}

	t.Run("plain", func(t *testing.T) {
		t.Parallel()
		testParsing(t, web.Listener, func(c net.Conn) net.Conn { return c })
	})
	t.Run("TLS", func(t *testing.T) {
		t.Parallel()
		testParsing(t, func(ln net.Listener) net.Listener { return web.SecureListener(ln, src.Config()) },
			func(c net.Conn) net.Conn { return tls.Client(c, &tls.Config{InsecureSkipVerify: true}) })
	})
	t.Run("plain on TLS", func(t *testing.T) {
		t.Parallel()
		testPlainOnTLS(t, src.Config())
	})
}

func serve(t *testing.T, wrap func(net.Listener) net.Listener, h http.Handler) (addr string) {
	t.Helper()

	log := slog.New(slog.DiscardHandler)
	srv := web.NewServer(h, log)

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	served := make(chan error, 1)
	go func() { served <- srv.Serve(wrap(ln)) }()

	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}

		if err := <-served; err != http.ErrServerClosed { //nolint:errorlint // the very value
			t.Error(err)
		}
	})

	return ln.Addr().String()
}

// testPlainOnTLS also holds that requests which did come by TLS know it.
func testPlainOnTLS(t *testing.T, conf *tls.Config) {
	t.Helper()

	addr := serve(t, func(ln net.Listener) net.Listener { return web.SecureListener(ln, conf) },
		http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.TLS == nil || !r.TLS.HandshakeComplete {
				w.WriteHeader(http.StatusTeapot)
			}
		}))

	res, err := http.Post("http://"+addr+"/v3/auth/tokens", "text/plain", strings.NewReader(strings.Repeat("x", 1<<20)))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()

	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}

	if res.StatusCode != http.StatusBadRequest || !strings.Contains(string(body), "speaks HTTPS") || !strings.Contains(string(body), "APIG.0201") {
		t.Errorf("%d %s", res.StatusCode, body)
	}

	transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	defer transport.CloseIdleConnections()

	over, err := (&http.Client{Transport: transport}).Get("https://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer over.Body.Close()

	if over.StatusCode != http.StatusOK {
		t.Errorf("a request by TLS does not know it: %d", over.StatusCode)
	}
}

func testParsing(t *testing.T, wrap func(net.Listener) net.Listener, client func(net.Conn) net.Conn) { //nolint:thelper // the test
	addr := serve(t, wrap, router(t, &gate{}, web.Config{}, io.Discard))

	for name, c := range map[string]struct {
		request string
		status  int
		code    string
	}{
		"broken escape":  {"GET /x/%zz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "APIG.0201"},
		"no host":        {"GET /x/a HTTP/1.1\r\n\r\n", 400, "APIG.0201"},
		"bad header":     {"GET /x/a HTTP/1.1\r\nHost: a\r\nb c: d\r\n\r\n", 400, "APIG.0201"},
		"unknown coding": {"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: x\r\n\r\n", 501, "APIG.0201"},
		"a good one":     {"GET /nowhere HTTP/1.1\r\nHost: a\r\nX-Auth-Token: good\r\n\r\n", 404, "APIG.0101"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}

			conn := client(raw)
			defer conn.Close()

			if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
				t.Fatal(err)
			}

			if _, err := io.WriteString(conn, c.request); err != nil {
				t.Fatal(err)
			}

			res, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()

			var body struct {
				Code string `json:"error_code"`
				Text string `json:"error_msg"`
				ID   string `json:"request_id"`
			}

			if err := json.NewDecoder(res.Body).Decode(&body); err != nil {
				t.Fatal(err)
			}

			if res.StatusCode != c.status || body.Code != c.code || body.Text == "" || body.ID == "" || res.Header.Get("X-Request-Id") != body.ID {
				t.Errorf("%d %+v, header %q", res.StatusCode, body, res.Header.Get("X-Request-Id"))
			}
		})
	}
}
