package web_test

import (
	"bufio"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/web"
)

func TestRequestsThatCannotBeParsedGetTheErrorBodyOfTheAPI(t *testing.T) { //nolint:tparallel // one server for all
	t.Parallel()

	log := slog.New(slog.DiscardHandler)
	srv := web.NewServer(router(t, &gate{}, web.Config{}, io.Discard), log)

	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	served := make(chan error, 1)
	go func() { served <- srv.Serve(web.Listener(ln)) }()

	t.Cleanup(func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}

		if err := <-served; err != http.ErrServerClosed { //nolint:errorlint // the very value
			t.Error(err)
		}
	})

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
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
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
