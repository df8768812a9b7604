package system_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// wsService deploys the WebSocket sample and returns its id.
func (s *sluice) wsService(upgrade bool) string {
	s.t.Helper()

	dir := engineDir(s.t, "docs/examples/engines/websocket", nil)
	id := s.deploy("ws", s.publish("ws", "Custom", dir), 1, map[string]any{
		"additional_properties": map[string]any{"websocket_upgrade": upgrade},
	})
	s.waitStatus(id, "running", 30*time.Second)

	return id
}

var insecureHTTP = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

// socket opens a WebSocket; url is http or https. Without a connection the answer's status is returned.
func (s *sluice) socket(url string, header http.Header) (*websocket.Conn, int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()

	c, resp, err := websocket.Dial(ctx, url, &websocket.DialOptions{
		HTTPHeader: header, HTTPClient: insecureHTTP, CompressionMode: websocket.CompressionContextTakeover,
	})

	status := 0
	if resp != nil {
		status = resp.StatusCode
	}

	if err != nil {
		return nil, status, fmt.Errorf("%s: %w", url, err)
	}

	c.SetReadLimit(-1)
	s.t.Cleanup(func() { c.CloseNow() })

	return c, status, nil
}

func (s *sluice) tokenHeader() http.Header { return http.Header{"X-Auth-Token": {s.token}} }

// within reads one message.
func within(c *websocket.Conn, d time.Duration) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()

	_, b, err := c.Read(ctx)

	return string(b), err
}

func TestWebSocketsReachCustomEngines(t *testing.T) {
	t.Parallel()

	s := start(t, "", "edge: {drain: {delay: 200ms, deadline: 20s, ws_spread: 1s}}\n")
	s.login()

	id := s.wsService(true)
	url, secure := s.Edge+"/v1/infers/"+id, s.EdgeTLS+"/v1/infers/"+id

	t.Run("authentication", func(t *testing.T) { s.wsAuthentication(t, url, secure) })

	t.Run("relay", func(t *testing.T) {
		c, _, err := s.socket(secure+"/chat?name=you", s.tokenHeader())
		if err != nil {
			t.Fatal(err)
		}

		if got, err := within(c, 5*time.Second); err != nil || got != "hello you" {
			t.Fatalf("%q, %v", got, err)
		}

		if err := c.Write(t.Context(), websocket.MessageText, []byte("bye")); err != nil {
			t.Fatal(err)
		}

		if _, err := within(c, 5*time.Second); websocket.CloseStatus(err) != 4000 {
			t.Errorf("closed with %v", err)
		}
	})

	t.Run("npm ws", func(t *testing.T) { s.foreign(t, npmWS(t), url, secure) })
	t.Run("python websockets", func(t *testing.T) { s.foreign(t, pyWebsockets(t), url, secure) })
	t.Run("metrics", func(t *testing.T) {
		text := string(s.call("GET", s.Ops+"/metrics", nil).Body)
		if !strings.Contains(text, `sluice_websocket_closed_total{`) || !strings.Contains(text, "sluice_websocket_connections{") {
			t.Error("no metrics of WebSockets")
		}
	})
	t.Run("drain", func(t *testing.T) { s.wsDrain(t, url) })

	if !strings.Contains(s.log.String(), `"close_code":4000`) {
		t.Error("the access log does not tell the close code")
	}
}

func (s *sluice) wsAuthentication(t *testing.T, url, secure string) {
	t.Helper()

	signed := func(target string) http.Header {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, nil)
		if err != nil {
			t.Fatal(err)
		}

		signer := &sign.Signer{AccessKey: s.Boot.AccessKey, Secret: spec.NewSecret(s.Boot.SecretKey)}
		if err := signer.SignHTTP(req, nil, time.Now()); err != nil {
			t.Fatal(err)
		}

		return req.Header
	}

	wrong := signed(url + "?a=1")

	for name, tc := range map[string]struct {
		url    string
		header http.Header
		status int
	}{
		"token":           {url, s.tokenHeader(), 101},
		"token over TLS":  {secure, s.tokenHeader(), 101},
		"AK/SK":           {url + "?a=1&b=%20", signed(url + "?a=1&b=%20"), 101},
		"AK/SK over TLS":  {secure + "/chat", signed(secure + "/chat"), 101},
		"nothing":         {url, nil, 401},
		"bad token":       {url, http.Header{"X-Auth-Token": {"x"}}, 401},
		"other signature": {url + "?a=2", wrong, 401},
		"undeclared path": {url + "/none", s.tokenHeader(), 404},
		"no service":      {s.Edge + "/v1/infers/none", s.tokenHeader(), 404},
	} {
		c, status, err := s.socket(tc.url, tc.header)
		if status != tc.status || (c == nil) != (tc.status != 101) {
			t.Errorf("%s: %d, %v", name, status, err)
		}
	}
}

// foreign runs a client of another language over both doors.
func (s *sluice) foreign(t *testing.T, run func(t *testing.T, args ...string) (string, error), url, secure string) {
	t.Helper()

	for _, u := range []string{url, secure} {
		if out, err := run(t, "ws"+strings.TrimPrefix(u, "http"), s.token); err != nil || strings.TrimSpace(out) != "ok" {
			t.Errorf("%s: %v\n%s", u, err, out)
		}
	}
}

// installed runs an installation into a new directory once; tests skip when it is not possible, as without a network.
func installed(t *testing.T, name string, args ...string) string {
	t.Helper()

	if _, err := exec.LookPath(name); err != nil {
		t.Skipf("%s is not on this machine", name)
	}

	dir := t.TempDir()

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	cmd := exec.CommandContext(ctx, name, append(args, dir)...)
	cmd.Dir = dir

	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}

	return dir
}

func npmWS(t *testing.T) func(t *testing.T, args ...string) (string, error) {
	t.Helper()

	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not on this machine")
	}

	dir := installed(t, "npm", "install", "--silent", "--no-audit", "--no-fund", "ws@8", "--prefix")

	return func(t *testing.T, args ...string) (string, error) {
		t.Helper()

		return script(t, "node", "ws_client.js", "NODE_PATH="+filepath.Join(dir, "node_modules"), args)
	}
}

func pyWebsockets(t *testing.T) func(t *testing.T, args ...string) (string, error) {
	t.Helper()

	dir := installed(t, "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "websockets>=14", "--target")

	return func(t *testing.T, args ...string) (string, error) {
		t.Helper()

		return script(t, "python3", "ws_client.py", "PYTHONPATH="+dir, args)
	}
}

func script(t *testing.T, program, name, env string, args []string) (string, error) {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()

	cmd := exec.CommandContext(ctx, program, append([]string{filepath.Join(repoRoot(t), "test/system/testdata", name)}, args...)...)
	cmd.Env = append(os.Environ(), env)
	out, err := cmd.CombinedOutput()

	return string(out), err
}

// wsDrain stops the whole with WebSockets open: each is told so.
func (s *sluice) wsDrain(t *testing.T, url string) {
	t.Helper()

	const sockets = 20

	var (
		open []*websocket.Conn
		wg   sync.WaitGroup
		mu   sync.Mutex
		at   []time.Time
	)

	for range sockets {
		c, _, err := s.socket(url, s.tokenHeader())
		if err != nil {
			t.Fatal(err)
		}

		open = append(open, c)
	}

	for _, c := range open {
		wg.Go(func() {
			if _, err := within(c, 20*time.Second); websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("a WebSocket ended with %v", err)
			}

			mu.Lock()
			defer mu.Unlock()

			at = append(at, time.Now())
		})
	}

	if code := s.stop(40 * time.Second); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.log.tail())
	}

	wg.Wait()

	if spread := at[len(at)-1].Sub(at[0]); spread < 100*time.Millisecond {
		t.Errorf("all %d WebSockets ended within %v", sockets, spread)
	}
}

func TestWebSocketIsOffUnlessTheServiceAllowsIt(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	id := s.wsService(false)
	url := s.Edge + "/v1/infers/" + id

	if _, status, err := s.socket(url, s.tokenHeader()); status != 400 {
		t.Errorf("status %d, %v", status, err)
	}

	if a := s.call("PUT", s.api("/services/"+id), map[string]any{
		"additional_properties": map[string]any{"websocket_upgrade": true},
	}); a.Status != 200 {
		t.Fatalf("switch on: %d %s", a.Status, a.Body)
	}

	s.eventually(10*time.Second, "a WebSocket", func() bool {
		_, status, _ := s.socket(url, s.tokenHeader())

		return status == 101
	})
}

// TestWebSocketCarriesV2 speaks V2 with a model of our own runtime.
func TestWebSocketCarriesV2(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	model, _ := s.model("digits", "1.0.0", digitsDir(t))
	id := s.deploy("digits-ws", model, 2, map[string]any{"additional_properties": map[string]any{"websocket_upgrade": true}})
	s.waitStatus(id, "running", 30*time.Second)

	meta := s.call("GET", s.Edge+"/v1/infers/"+id+"/v2/models/digits", nil).json(t)
	in, _ := meta["inputs"].([]any)[0].(map[string]any)

	count := 1

	shape := []int{1}
	for _, d := range in["shape"].([]any)[1:] {
		shape = append(shape, int(d.(float64)))
		count *= int(d.(float64))
	}

	for _, path := range []string{"/", "/v2/models/digits/infer"} {
		c, _, err := s.socket(s.EdgeTLS+"/v1/infers/"+id+path, s.tokenHeader())
		if err != nil {
			t.Fatal(err)
		}

		const messages = 50

		for i := range messages {
			body := map[string]any{"id": strconv.Itoa(i), "inputs": []any{map[string]any{
				"name": in["name"], "datatype": in["datatype"], "shape": shape, "data": make([]float32, count),
			}}}
			if i == 7 {
				body["inputs"] = []any{}
			}

			raw, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}

			if err := c.Write(t.Context(), websocket.MessageText, raw); err != nil {
				t.Fatal(err)
			}
		}

		answered := map[string]bool{}

		for range messages {
			text, err := within(c, 20*time.Second)
			if err != nil {
				t.Fatal(err)
			}

			var r struct {
				ID      string
				Error   string
				Outputs []any
			}
			if err := json.Unmarshal([]byte(text), &r); err != nil {
				t.Fatal(err)
			}

			if (r.ID == "7") != (r.Error != "") || answered[r.ID] {
				t.Errorf("answer %.200s", text)
			}

			answered[r.ID] = true
		}

		if err := c.Close(websocket.StatusNormalClosure, ""); err != nil {
			t.Errorf("close: %v", err)
		}
	}
}
