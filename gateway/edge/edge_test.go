package edge_test

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/fault"
)

func TestAnswerCarriesRequestIDAndSecurityHeaders(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), &echo{})

	for _, tc := range []struct {
		given string
		kept  bool
	}{
		{"abc-1._Z", true},
		{strings.Repeat("a", 128), true},
		{strings.Repeat("a", 129), false},
		{"a b", false},
		{"a\"b", false},
		{"", false},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+r.HTTPAddr()+"/t", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}

		if tc.given != "" {
			req.Header.Set("X-Request-Id", tc.given)
		}

		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}

		_ = res.Body.Close()

		id := res.Header.Get("X-Request-Id")
		if (id == tc.given) != tc.kept || len(id) < 16 && !tc.kept {
			t.Errorf("given %q, got %q", tc.given, id)
		}

		if res.Header.Get("X-Content-Type-Options") != "nosniff" || res.Header.Get("Server") != "" || res.Header.Get("Date") == "" {
			t.Errorf("headers %v", res.Header)
		}
	}
}

func TestErrorBodiesNameCodeAndRequest(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Prefixes = []string{"/v1/infers/"}
	cfg.Limits.RequestLine = 1024
	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		gateway.WriteFault(c, fault.New(fault.TooManyRequests, ""))
	}))

	for _, tc := range []struct {
		raw, code string
		status    int
	}{
		{"GET /nope HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "APIG.0101", 404},
		{"GET /v1/infers/x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "APIG.0308", 429},
		{"GET /" + strings.Repeat("a", 2000) + " HTTP/1.1\r\nHost: a\r\n\r\n", "APIG.0201", 414},
		{"GET /t HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("a", 33<<10) + "\r\n\r\n", "APIG.0201", 431},
		{"TRACE /t HTTP/1.1\r\nHost: a\r\n\r\n", "Sluice.1006", 405},
		{"FOO /t HTTP/1.1\r\nHost: a\r\n\r\n", "Sluice.1006", 405},
		{"GET /t HTTP/3.0\r\nHost: a\r\n\r\n", "Sluice.1008", 505},
		{"POST /t HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "Sluice.1007", 501},
		{"GET /../t HTTP/1.1\r\nHost: a\r\n\r\n", "APIG.0201", 400},
	} {
		raw := r.send(t, tc.raw)
		head, text, _ := strings.Cut(raw, "\r\n\r\n")

		var body struct {
			Code string `json:"error_code"`
			Msg  string `json:"error_msg"`
			ID   string `json:"request_id"`
		}
		if err := json.Unmarshal([]byte(text), &body); err != nil {
			t.Fatalf("%.60q: %v in %q", tc.raw, err, raw)
		}

		if got := answers([]byte(raw), "GET"); len(got) != 1 || got[0].status != tc.status || body.Code != tc.code || body.Msg == "" {
			t.Errorf("%.60q: %+v %+v", tc.raw, got, body)
		}

		if !strings.Contains(head, "X-Request-Id: "+body.ID) || !strings.Contains(head, "Content-Type: application/json") {
			t.Errorf("%.60q: head %q, id %q", tc.raw, head, body.ID)
		}
	}
}

func TestFaultsUnderV2HaveTheBodyOfThatProtocol(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), handlerFunc(func(c *gateway.Call) {
		gateway.WriteFault(c, fault.New(fault.ServiceNotFound, "").After(1500*time.Millisecond))
	}))

	for path, want := range map[string]string{
		"/v1/infers/x/v2/models/m/infer": `{"error":"The service does not exist."}`,
		"/v1/infers/x/predict":           `{"error_code":"ModelArts.3502","error_msg":"The service does not exist.","request_id":"r1"}`,
	} {
		raw := r.send(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\nX-Request-Id: r1\r\nConnection: close\r\n\r\n")

		head, body, _ := strings.Cut(raw, "\r\n\r\n")
		if body != want || strings.Contains(head, "X-Error-Code: ModelArts.3502") != strings.Contains(path, "v2/") ||
			!strings.Contains(head, "Retry-After: 2\r\n") {
			t.Errorf("%s: %s", path, raw)
		}
	}
}

func TestPanicIsAnAnswerToOneRequest(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), handlerFunc(func(c *gateway.Call) {
		switch string(c.Path) {
		case "/early":
			panic("early")
		case "/late":
			c.Out.Set(200, []byte("half"))
			panic("late")
		case "/stream":
			c.Out.Stream(200, func() ([]byte, error) { panic("stream") }, func(error) {})
		case "/done":
			c.Out.Stream(200, func() ([]byte, error) { return nil, io.EOF }, func(error) { panic("done") })
		case "/interim":
			c.Out.Set(101, nil)
		case "/twice":
			c.Out.Set(200, nil)
			c.Out.Set(200, nil)
		case "/silent":
		default:
			c.Out.Set(200, []byte("fine"))
		}
	}))

	for path, status := range map[string]int{"/early": 500, "/late": 500, "/stream": 200, "/done": 200, "/silent": 500, "/interim": 500, "/twice": 500, "/fine": 200} {
		raw := r.send(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(raw, "HTTP/1.1 "+map[int]string{200: "200", 500: "500"}[status]) || strings.Contains(raw, "early") {
			t.Errorf("%s: %q", path, raw)
		}

		if path == "/stream" && strings.HasSuffix(raw, "0\r\n\r\n") {
			t.Errorf("%s ended as if it were whole: %q", path, raw)
		}
	}

	eventually(t, "panics logged", func() bool { return strings.Count(r.log.String(), "panic while serving") == 6 })
}

func TestAPanicOutsideOfTheHandlerEndsOneConnection(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), &echo{}, func(d *edge.Deps) {
		d.Hooks.Ended = func(_ edge.Door, r *gateway.Record) {
			if r.BytesIn > 0 {
				panic("in a hook")
			}
		}
	})

	for range 3 {
		r.send(t, "POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
	}

	eventually(t, "nothing is left of them", func() bool { return r.Connections() == 0 && r.InFlight() == 0 })

	if got := r.send(t, "GET /t HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 200") {
		t.Errorf("%q", got)
	}
}

func TestListenRefusesMistakesAllAtOnce(t *testing.T) {
	t.Parallel()

	cfg := edge.Defaults()
	cfg.Prefixes = []string{"v1"}
	cfg.HealthPath = "health"
	cfg.TrustedProxies = []string{"10.0.0.0/33"}
	cfg.Limits.HeaderCount = 1 << 20
	cfg.Limits.RequestLine = 1
	cfg.Timeouts.Idle = 0
	cfg.Log.Sample = 0

	err := cfg.Validate()

	var got []string
	for _, e := range config.Mistakes(err) {
		var m *config.Mistake
		if errors.As(e, &m) {
			got = append(got, m.Path)
		}
	}

	want := "http health_path prefixes trusted_proxies limits.request_line limits.header_count timeouts.idle access_log.sample"
	if strings.Join(got, " ") != want {
		t.Fatalf("got  %v\nwant %v", got, want)
	}

	if _, err := edge.Listen(t.Context(), cfg, edge.Deps{}); err == nil {
		t.Fatal("a broken configuration was taken")
	}
}

// TestEnginesDoNotSpeakForTheDoor: what the door says itself is said once, however an engine spells it; other
// names go to the client as they are.
func TestEnginesDoNotSpeakForTheDoor(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), handlerFunc(func(c *gateway.Call) {
		for _, name := range []string{"x-content-type-options", "X-REQUEST-ID", "dAte", "sERVER", "strict-transport-security", "x-lower"} {
			c.Out.AddHeader(name, []byte("engine's"))
		}

		c.Record.Outcome = gateway.Served
		c.Out.Set(http.StatusOK, nil)
	}))

	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", r.HTTPAddr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	if _, err := io.WriteString(conn, "GET /t HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}

	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}

	head := strings.ToLower(string(text))
	for name, times := range map[string]int{
		"x-content-type-options:": 1, "x-request-id:": 1, "date:": 1, "server:": 0, "strict-transport-security:": 1, "engine's": 2,
	} {
		if n := strings.Count(head, name); n != times {
			t.Errorf("%s %d times, want %d, in\n%s", name, n, times, text)
		}
	}

	if !strings.Contains(string(text), "\r\nx-lower: engine's\r\n") {
		t.Errorf("a name was changed in\n%s", text)
	}
}
