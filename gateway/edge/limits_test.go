package edge_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/fault"
)

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestConnectionsAreCappedInAllAndPerSource(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		set    func(l *edge.Limits)
		status string
		why    edge.Refusal
	}{
		"in all":     {func(l *edge.Limits) { l.Connections = 2 }, "HTTP/1.1 503", edge.RefusedTotal},
		"per source": {func(l *edge.Limits) { l.ConnectionsPerSource = 2 }, "HTTP/1.1 429", edge.RefusedSource},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			cfg := testConfig()
			tc.set(&cfg.Limits)

			var mu sync.Mutex

			refused := map[edge.Refusal]int{}
			r := start(t, cfg, &echo{}, func(d *edge.Deps) {
				d.Hooks.Refused = func(_ edge.Door, why edge.Refusal) {
					mu.Lock()
					refused[why]++
					mu.Unlock()
				}
			})

			one, two := r.dial(t), r.dial(t)

			eventually(t, "both counted", func() bool { return r.Connections() == 2 })

			got, err := io.ReadAll(r.dial(t))
			if err != nil || !strings.HasPrefix(string(got), tc.status) || !strings.Contains(string(got), "Retry-After: 1") {
				t.Errorf("%q, %v", got, err)
			}

			_ = one.Close()

			eventually(t, "one is gone", func() bool { return r.Connections() == 1 })

			for _, c := range []net.Conn{two, r.dial(t)} {
				if res := ask(t, c, bufio.NewReader(c), "GET / HTTP/1.1\r\n"+hostLine+"\r\n"); res.status != http.StatusOK {
					t.Errorf("%+v", res)
				}
			}

			mu.Lock()
			defer mu.Unlock()

			if refused[tc.why] != 1 {
				t.Errorf("%v", refused)
			}
		})
	}
}

func TestConnectionsEndAfterTheirRequestsOrTheirAge(t *testing.T) {
	t.Parallel()

	const raw = "GET / HTTP/1.1\r\n" + hostLine + "\r\n"

	t.Run("requests", func(t *testing.T) {
		t.Parallel()

		cfg := testConfig()
		cfg.Limits.RequestsPerConnection = 3
		c := start(t, cfg, &echo{}).dial(t)
		br := bufio.NewReader(c)

		for i := 1; i <= 3; i++ {
			if res := ask(t, c, br, raw); res.close != (i == 3) {
				t.Errorf("answer %d: close %v", i, res.close)
			}
		}
	})

	t.Run("age", func(t *testing.T) {
		t.Parallel()

		cfg := testConfig()
		cfg.Timeouts.ConnectionAge = ms(300)
		c := start(t, cfg, &echo{}).dial(t)
		br := bufio.NewReader(c)

		if res := ask(t, c, br, raw); res.close {
			t.Error("a young connection was closed")
		}

		<-time.After(350 * time.Millisecond)

		if res := ask(t, c, br, raw); !res.close {
			t.Error("an old connection was kept")
		}
	})
}

// TestConnectionsSurviveParking lets connections idle beyond ParkAfter, and with the low-memory profile
// park after every answer; large heads change the fasthttp server in between.
func TestConnectionsSurviveParking(t *testing.T) {
	t.Parallel()

	for _, low := range []bool{false, true} {
		cfg := testConfig()
		cfg.LowMemory = low
		cfg.Timeouts.ParkAfter = ms(30)
		c := start(t, cfg, &echo{}).dial(t)
		br := bufio.NewReader(c)

		for i := range 12 {
			if i%3 == 0 {
				<-time.After(60 * time.Millisecond)
			}

			size := 10
			if i%4 == 1 {
				size = 20_000
			}

			raw := fmt.Sprintf("POST /%d HTTP/1.1\r\n%sX: %s\r\nContent-Length: 3\r\n\r\nabc", i, hostLine, strings.Repeat("h", size))
			if i%2 == 0 {
				raw += "GET /piped HTTP/1.1\r\n" + hostLine + "\r\n"
			}

			if _, err := io.WriteString(c, raw); err != nil {
				t.Fatal(err)
			}

			for n := range 1 + (i+1)%2 {
				res := readReply(t, br)
				want := fmt.Sprintf(`"uri":"/%d"`, i)

				if n == 1 {
					want = `"uri":"/piped"`
				}

				if res.status != http.StatusOK || !strings.Contains(res.body, want) {
					t.Fatalf("low %v, request %d.%d: %+v", low, i, n, res)
				}
			}
		}
	}
}

func TestRemoteIsBelievedFromTrustedProxiesAlone(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		trusted []string
		headers string
		want    string
	}{
		"nobody is trusted":   {nil, "X-Forwarded-For: 9.9.9.9\r\n", "127.0.0.1"},
		"another is trusted":  {[]string{"10.0.0.0/8"}, "X-Forwarded-For: 9.9.9.9\r\n", "127.0.0.1"},
		"the peer is trusted": {[]string{"127.0.0.1"}, "X-Forwarded-For: 9.9.9.9\r\n", "9.9.9.9"},
		"no header":           {[]string{"127.0.0.1"}, "", "127.0.0.1"},
		"a forged first":      {[]string{"127.0.0.0/8"}, "X-Forwarded-For: 1.1.1.1, 9.9.9.9\r\n", "9.9.9.9"},
		"a chain":             {[]string{"127.0.0.0/8", "10.0.0.0/8"}, "X-Forwarded-For: 1.1.1.1, 9.9.9.9, 10.1.1.1\r\n", "9.9.9.9"},
		"two headers":         {[]string{"127.0.0.0/8", "10.0.0.0/8"}, "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 10.1.1.1\r\n", "9.9.9.9"},
		"garbage":             {[]string{"127.0.0.1"}, "X-Forwarded-For: 9.9.9.9, unknown\r\n", "127.0.0.1"},
		"all trusted":         {[]string{"127.0.0.0/8", "10.0.0.0/8"}, "X-Forwarded-For: 10.2.2.2, 10.1.1.1\r\n", "10.2.2.2"},
		"IPv6":                {[]string{"127.0.0.1"}, "X-Forwarded-For: 2001:db8::1\r\n", "2001:db8::1"},
	} {
		cfg := testConfig()
		cfg.TrustedProxies = tc.trusted

		r := start(t, cfg, handlerFunc(func(c *gateway.Call) { c.Out.Set(200, []byte(c.Remote.Addr().String())) }))

		got := r.send(t, "GET / HTTP/1.1\r\n"+hostLine+tc.headers+"Connection: close\r\n\r\n")
		if _, body, _ := strings.Cut(got, "\r\n\r\n"); body != tc.want {
			t.Errorf("%s: %q, want %s", name, body, tc.want)
		}
	}
}

func TestAccessLogTellsWhatHappenedAndNoSecrets(t *testing.T) {
	t.Parallel()

	access := &logBuffer{}
	r := start(t, testConfig(), handlerFunc(func(c *gateway.Call) {
		c.Record.Outcome = gateway.RejectedForbidden
		c.Record.ServiceID, c.Record.Model, c.Record.Instance = "svc-1", "digits/2", "inst-3"
		c.Record.Principal = &auth.Principal{Method: auth.MethodAKSK, Key: "user:u1", AccessKey: "AKSECRET", TokenID: "TOKENSECRET"}
		c.Record.Verified = time.Millisecond
		gateway.WriteFault(c, fault.New(fault.Forbidden, "The IAM user %s", "\"\x1b\\\xff\n"))
	}), func(d *edge.Deps) { d.Access = access })

	r.send(t, "GET /v1/infers/svc-1/x?token=QUERYSECRET HTTP/1.1\r\n"+hostLine+"X-Auth-Token: HEADERSECRET\r\nX-Request-Id: r-7\r\nConnection: close\r\n\r\n")
	r.send(t, "GET /?BADSECRET=\" HTTP/1.1\r\n"+hostLine+"\r\n")

	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	lines := strings.Split(strings.TrimSpace(access.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("%d lines: %s", len(lines), access)
	}

	for _, l := range lines {
		if !json.Valid([]byte(l)) {
			t.Errorf("not JSON: %s", l)
		}
	}

	for i, want := range [][]string{
		{
			`"level":"INFO","msg":"request"`, `"error":"APIG.0302: The IAM user \"\u001b\\�\u000a"`, `"request_id":"r-7"`, `"path":"/v1/infers/svc-1/x"`, `"status":403`, `"outcome":"rejected_forbidden"`, `"service":"svc-1"`,
			`"model":"digits/2"`, `"instance":"inst-3"`, `"principal":"user:u1"`, `"auth":"aksk"`, `"error_code":"APIG.0302"`,
			`"verified_ms":1`, `"door":"http"`, `"method":"GET"`, `"host":"a.test"`, `"remote":"127.0.0.1:`,
		},
		{`"status":400`, `"outcome":"rejected_bad"`, `"error_code":"APIG.0201"`},
	} {
		for _, w := range want {
			if !strings.Contains(lines[i], w) {
				t.Errorf("line %d has no %s: %s", i, w, lines[i])
			}
		}
	}

	if strings.Contains(access.String(), "SECRET") {
		t.Errorf("a secret was logged: %s", access)
	}
}

func TestAccessLogDropsAndCountsWhenItCannotKeepUp(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Log.Queue = 1

	release := make(chan struct{})

	var dropped, once sync.WaitGroup

	dropped.Add(1)
	once.Add(1)

	var first, drop sync.Once

	r := start(t, cfg, &echo{}, func(d *edge.Deps) {
		d.Access = writerFunc(func(p []byte) (int, error) {
			first.Do(once.Done)
			<-release

			return len(p), nil
		})
		d.Hooks.LogDropped = func() { drop.Do(dropped.Done) }
	})

	for range 4 {
		r.send(t, "GET / HTTP/1.1\r\n"+hostLine+"Connection: close\r\n\r\n")
	}

	once.Wait()
	dropped.Wait()
	close(release)
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestSampledLogKeepsWhatIsNotServed(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Log.Sample = 10

	access := &logBuffer{}
	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		c.Record.Outcome = gateway.Served
		if string(c.Path) == "/bad" {
			c.Record.Outcome = gateway.UpstreamError
		}

		c.Out.Set(200, nil)
	}), func(d *edge.Deps) { d.Access = access })

	c := r.dial(t)
	br := bufio.NewReader(c)

	for i := range 40 {
		path := "/good"
		if i%10 == 0 {
			path = "/bad"
		}

		ask(t, c, br, "GET "+path+" HTTP/1.1\r\n"+hostLine+"\r\n")
	}

	if err := r.stop(); err != nil {
		t.Fatal(err)
	}

	if good, bad := strings.Count(access.String(), "/good"), strings.Count(access.String(), "/bad"); good != 3 || bad != 4 {
		t.Errorf("%d served and %d failed lines", good, bad)
	}
}

func TestValidateAcceptsTheDefaults(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	if err := cfg.Validate(); err != nil {
		t.Fatal(config.Mistakes(err))
	}
}
