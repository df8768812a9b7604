package serve_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

func TestMain(m *testing.M) {
	// fasthttp's own housekeeping ends by itself, seconds after its server.
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"),
		goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.updateServerDate.func1"))
}

// block makes a model wait for its context or for release, and says when it started.
func block(m *fakeModel) (started, release chan struct{}, ended chan error) {
	started, release, ended = make(chan struct{}, 10), make(chan struct{}), make(chan error, 10)
	plain := m.run

	m.run = func(ctx context.Context, req *batch.Request) ([]engine.Tensor, error) {
		started <- struct{}{}

		select {
		case <-ctx.Done():
			ended <- ctx.Err()

			return nil, ctx.Err()
		case <-release:
			ended <- nil

			return plain(ctx, req)
		}
	}

	return started, release, ended
}

func post() string {
	const body = pairBody

	return "POST /v2/models/pair/infer HTTP/1.1\r\nHost: x\r\nContent-Length: " + itoa(len(body)) + "\r\n\r\n" + body
}

func itoa(n int) string {
	var b []byte
	for ; n > 0; n /= 10 {
		b = append([]byte{byte('0' + n%10)}, b...)
	}

	return string(b)
}

func TestVanishedClientCancelsItsRequest(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	started, _, ended := block(w.models.models["pair"])

	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := io.WriteString(c, post()); err != nil {
		t.Fatal(err)
	}

	<-started

	if err := c.Close(); err != nil {
		t.Fatal(err)
	}

	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("the request still runs")
	}
}

func TestPipeliningClientIsNotTakenForGone(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	started, release, _ := block(w.models.models["pair"])

	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	if _, err := io.WriteString(c, post()+post()); err != nil {
		t.Fatal(err)
	}

	<-started
	time.AfterFunc(350*time.Millisecond, func() { close(release) })

	r := bufio.NewReader(c)
	for range 2 {
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}

		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

func TestDrainFinishesWhatWasAccepted(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{DrainDelay: 300 * time.Millisecond})
	w.state.SetReady()

	started, release, _ := block(w.models.models["pair"])
	got := make(chan answer, 1)

	go func() { got <- w.send(t, "POST", "/v2/models/pair/infer", pairBody) }()

	<-started
	w.stop()

	for !w.state.Draining() {
		runtime.Gosched()
	}

	// While the delay lasts, new connections are served, told to close, and told not to come back.
	a := w.send(t, "GET", "/v2/health/ready", "")
	if a.status != 503 || !a.closed {
		t.Errorf("ready while draining: %d, closed %t", a.status, a.closed)
	}

	if a := w.send(t, "POST", "/v2/models/one/infer", `{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[1]}]}`); a.status != 200 {
		t.Errorf("inference while draining: %d %s", a.status, a.body)
	}

	close(release)

	if a := <-got; a.status != 200 || !a.closed {
		t.Errorf("accepted request: %d %s", a.status, a.body)
	}
}

func TestSecondSignalTellsHowManyWereCut(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{DrainDelay: time.Hour, Grace: 2 * time.Hour})
	started, _, ended := block(w.models.models["pair"])

	c, err := net.Dial("tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()

	if _, err := io.WriteString(c, post()); err != nil {
		t.Fatal(err)
	}

	<-started
	w.stop()
	close(w.now)

	err = <-w.ended
	if !errors.Is(err, serve.ErrCut) || !strings.Contains(err.Error(), "1 requests were cut") {
		t.Errorf("%v", err)
	}

	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the cut request saw %v", err)
	}

	w.ended <- nil // for the clean-up
}

func TestPanicAnswers500AndServesOn(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	w.models.models["pair"].run = func(context.Context, *batch.Request) ([]engine.Tensor, error) { panic("boom") }

	if a := w.send(t, "POST", "/v2/models/pair/infer", pairBody); a.status != 500 || strings.Contains(a.body, "boom") {
		t.Errorf("%d %s", a.status, a.body)
	}

	if a := w.send(t, "GET", "/v2", ""); a.status != 200 {
		t.Errorf("afterwards: %d", a.status)
	}
}

func TestFaultsOfTheBatcherKeepStatusAndRetryAfter(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	w.models.models["pair"].run = func(context.Context, *batch.Request) ([]engine.Tensor, error) {
		return nil, fault.New(fault.Overloaded, "Exceeds maximum queue size").After(1500 * time.Millisecond)
	}

	a := w.send(t, "POST", "/v2/models/pair/infer", pairBody)
	if a.status != 503 || a.body != `{"error":"Exceeds maximum queue size"}` || a.header.Get("Retry-After") != "2" {
		t.Errorf("%d %s, Retry-After %q", a.status, a.body, a.header.Get("Retry-After"))
	}
}

func TestServerBoundsBodyAndHeaders(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{MaxHeader: 8 << 10})

	for name, c := range map[string]struct {
		raw    string
		status int
		code   string
	}{
		"body":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n", 413, "ModelArts.4104"},
		"header": {"GET /health HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("a", 9000) + "\r\n\r\n", 431, "APIG.0201"},
		"noise":  {"\x00\x01\x02 HTTP\r\n\r\n", 400, "APIG.0201"},
	} {
		conn, err := net.Dial("tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}

		_, _ = io.WriteString(conn, c.raw)

		resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%s: %v", name, err)

			continue
		}

		b, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()

		if resp.StatusCode != c.status || !strings.Contains(string(b), c.code) {
			t.Errorf("%s: %d %s", name, resp.StatusCode, b)
		}

		_ = conn.Close()
	}
}

func TestListenUnixReplacesAStaleSocket(t *testing.T) {
	t.Parallel()

	path := "unix:" + filepath.Join(t.TempDir(), "w.sock")

	first, err := serve.Listen(t.Context(), path)
	if err != nil || serve.Address(first) != path {
		t.Fatal(err)
	}

	if u, ok := first.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}

	_ = first.Close()

	second, err := serve.Listen(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}

	_ = second.Close()
}

func TestPackageBoundsBodies(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	w.models.models["digits"].meta.Config.Serving.Limits.MaxBodyBytes = 100

	for _, path := range []string{"/", "/v2/models/digits/infer"} {
		if a := w.send(t, "POST", path, "{"+strings.Repeat(" ", 100), "Content-Type", "application/json"); a.status != 413 || !strings.Contains(a.body, "101 bytes") {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
}

// /health tells how far the model is while it is on the way, and nothing of other models.
func TestHealthTellsTheStageOfALoad(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})

	for _, tc := range []struct {
		name  string
		state repo.State
		want  string
	}{
		{"digits", repo.Queued, "loading"},
		{"digits", repo.Fetching, "fetching"},
		{"digits", repo.Verifying, "verifying"},
		{"digits", repo.Loading, "loading"},
		{"digits", repo.Warming, "warming"},
		{"other", repo.Warming, "loading"},
	} {
		w.models.on.Store(&repo.Status{Name: tc.name, State: tc.state})

		resp, err := http.Get(w.url + "/health")
		if err != nil {
			t.Fatal(err)
		}

		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()

		if want := `"state":"` + tc.want + `"`; err != nil || resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(string(body), want) {
			t.Errorf("%s %s: %d %s, %v", tc.name, tc.state, resp.StatusCode, body, err)
		}
	}
}
