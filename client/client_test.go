package client_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/sluice-gateway/sluice/client"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fleet is a platform with instances that do what a test says.
type fleet struct {
	t       *testing.T
	control *httptest.Server
	lookups atomic.Int64

	mu   sync.Mutex
	list []client.Endpoint
}

func newFleet(t *testing.T) *fleet {
	t.Helper()

	f := &fleet{t: t}
	f.control = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.lookups.Add(1)

		if r.URL.Path != "/v1/p/services/s/predict/endpoints" || r.URL.Query().Get("type") != "host_endpoints" || r.Header.Get("X-Auth-Token") != "tok" {
			w.WriteHeader(http.StatusUnauthorized)
			fmt.Fprint(w, `{"error_code":"APIG.0301","error_msg":"who are you?"}`)

			return
		}

		f.mu.Lock()
		defer f.mu.Unlock()

		_ = json.NewEncoder(w).Encode(map[string]any{"service_id": "s", "endpoints": f.list})
	}))
	t.Cleanup(f.control.Close)

	return f
}

// instance adds one; dead ones refuse connections.
func (f *fleet) instance(id, model string, weight int, h http.HandlerFunc) *httptest.Server {
	f.t.Helper()

	s := httptest.NewServer(h)
	f.t.Cleanup(s.Close)

	host, port, err := net.SplitHostPort(s.Listener.Addr().String())
	if err != nil {
		f.t.Fatal(err)
	}

	n, _ := strconv.Atoi(port)

	f.mu.Lock()
	defer f.mu.Unlock()

	f.list = append(f.list, client.Endpoint{InstanceID: id, ModelID: model, Schema: "http", IP: host, Port: n, Weight: weight, Status: "ready"})

	return s
}

func (f *fleet) client(change func(*client.Config)) *client.Client {
	f.t.Helper()

	cfg := client.Config{Control: f.control.URL, Project: "p", Service: "s", Token: "tok", DirectKey: "the key"}
	if change != nil {
		change(&cfg)
	}

	c, err := client.New(cfg)
	if err != nil {
		f.t.Fatal(err)
	}

	f.t.Cleanup(func() { _ = c.Close() })

	return c
}

func fine(name string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %s %s%s", name, r.Method, r.RequestURI, body, r.Header.Get("X-Sluice-Direct-Key"), r.Header.Get("X-Auth-Token"))
	}
}

func TestCallsReachAnInstance(t *testing.T) {
	t.Parallel()

	f := newFleet(t)
	f.instance("i1", "m", 100, fine("one"))

	c := f.client(nil)

	for range 20 {
		resp, err := c.Do(t.Context(), &client.Request{Path: "/a%2Fb?c=d", Body: []byte("hi")})
		if err != nil || resp.Status != 200 || string(resp.Body) != "one POST /a%2Fb?c=d hi the key" || resp.Instance != "i1" {
			t.Fatalf("%v %+v", err, resp)
		}
	}

	if n := f.lookups.Load(); n != 1 {
		t.Errorf("%d look-ups", n)
	}
}

func TestWeightsAreKept(t *testing.T) {
	t.Parallel()

	f := newFleet(t)
	f.instance("a1", "a", 80, fine("a"))
	f.instance("a2", "a", 80, fine("a"))
	f.instance("b1", "b", 20, fine("b"))
	f.instance("c1", "c", 0, fine("c"))

	c := f.client(nil)
	count := map[string]int{}

	for range 1000 {
		resp, err := c.Do(t.Context(), &client.Request{})
		if err != nil {
			t.Fatal(err)
		}

		count[resp.Instance]++
	}

	if b := count["b1"]; b < 130 || b > 270 || count["c1"] > 0 || count["a1"] == 0 || count["a2"] == 0 {
		t.Errorf("got %v", count)
	}
}

func TestTheLessLoadedInstanceIsTaken(t *testing.T) {
	t.Parallel()

	f := newFleet(t)
	f.instance("fast", "m", 100, fine("fast"))
	f.instance("slow", "m", 100, func(w http.ResponseWriter, r *http.Request) {
		<-time.After(20 * time.Millisecond)
		fine("slow")(w, r)
	})

	c := f.client(nil)
	slow := 0

	for range 100 {
		resp, err := c.Do(t.Context(), &client.Request{})
		if err != nil {
			t.Fatal(err)
		}

		if resp.Instance == "slow" {
			slow++
		}
	}

	if slow > 30 {
		t.Errorf("%d of 100 calls went to the slow instance", slow)
	}
}

func TestDeadInstancesFailNobody(t *testing.T) {
	t.Parallel()

	f := newFleet(t)
	f.instance("dead", "m", 100, fine("dead")).Close()
	f.instance("alive", "m", 100, fine("alive"))

	c := f.client(nil)

	for range 50 {
		if resp, err := c.Do(t.Context(), &client.Request{}); err != nil || resp.Instance != "alive" {
			t.Fatalf("%v %+v", err, resp)
		}
	}
}

// hangUp breaks the connection after the request was read.
func hangUp(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)

	if c, _, err := http.NewResponseController(w).Hijack(); err == nil {
		_ = c.Close()
	}
}

func TestOnlyRepeatableRequestsAreRepeated(t *testing.T) {
	t.Parallel()

	for _, repeatable := range []bool{true, false} {
		f := newFleet(t)

		var ran atomic.Int64

		broken := func(w http.ResponseWriter, r *http.Request) {
			ran.Add(1)
			hangUp(w, r)
		}
		f.instance("b1", "m", 100, broken)
		f.instance("b2", "m", 100, broken)
		f.instance("b3", "m", 100, broken)

		_, err := f.client(nil).Do(t.Context(), &client.Request{Body: []byte("x"), Repeatable: repeatable})

		want := int64(1)
		if repeatable {
			want = 3
		}

		if err == nil || ran.Load() != want {
			t.Errorf("repeatable %v: ran %d times, %v", repeatable, ran.Load(), err)
		}
	}
}

func TestDrainingInstancesAreLeft(t *testing.T) {
	t.Parallel()

	f := newFleet(t)

	var asked atomic.Int64

	f.instance("drains", "m", 100, func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		w.Header().Set("X-Worker-Draining", "1")
		w.WriteHeader(http.StatusServiceUnavailable)
	})
	f.instance("closes", "m", 100, func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Connection", "close")
		fine("closes")(w, r)
	})
	f.instance("stays", "m", 100, fine("stays"))

	c := f.client(nil)

	for range 50 {
		if resp, err := c.Do(t.Context(), &client.Request{Body: []byte("not repeatable")}); err != nil || resp.Status != 200 {
			t.Fatalf("%v %+v", err, resp)
		}
	}

	if n := asked.Load(); n > 2 {
		t.Errorf("those that go away were asked %d times", n)
	}
}

func TestErrorsAreTold(t *testing.T) {
	t.Parallel()

	f := newFleet(t)

	if _, err := f.client(nil).Do(t.Context(), &client.Request{}); !errors.Is(err, client.ErrNoInstance) {
		t.Errorf("no instances: %v", err)
	}

	var e *client.Error

	_, err := f.client(func(c *client.Config) { c.Token = "other" }).Do(t.Context(), &client.Request{})
	if !errors.As(err, &e) || e.Status != 401 || e.Code != "APIG.0301" || e.Msg != "who are you?" {
		t.Errorf("refused: %v", err)
	}

	f.instance("i", "m", 100, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"unexpected input"}`)
	})

	_, err = f.client(nil).Infer(t.Context(), "m", &client.InferRequest{Inputs: []client.Tensor{client.Float32s("x", []int64{1}, []float32{1})}})
	if !errors.As(err, &e) || e.Status != 400 || e.Msg != "unexpected input" {
		t.Errorf("bad input: %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	if _, err := f.client(nil).Do(ctx, &client.Request{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestThroughTheEdge(t *testing.T) {
	t.Parallel()

	var signed atomic.Bool

	edge := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		signed.Store(strings.HasPrefix(r.Header.Get("Authorization"), "SDK-HMAC-SHA256 Access=AK,"))
		w.Header().Set("X-Sluice-Instance", "i9")
		fine("edge")(w, r)
	}))
	t.Cleanup(edge.Close)

	f := newFleet(t)

	resp, err := f.client(func(c *client.Config) { c.Through, c.Edge = client.Edge, edge.URL+"/" }).Do(t.Context(), &client.Request{Path: "/x"})
	if err != nil || string(resp.Body) != "edge POST /v1/infers/s/x  tok" || resp.Instance != "i9" {
		t.Errorf("by token: %v %s", err, resp.Body)
	}

	_, err = f.client(func(c *client.Config) {
		c.Through, c.Edge, c.Token, c.AccessKey, c.SecretKey = client.Edge, edge.URL, "", "AK", "SK"
	}).Do(t.Context(), &client.Request{Path: "/x"})
	if err != nil || !signed.Load() {
		t.Errorf("signed: %v", err)
	}

	if f.lookups.Load() != 0 {
		t.Error("instances were looked up")
	}
}

func TestMistakesOfTheConfiguration(t *testing.T) {
	t.Parallel()

	for name, cfg := range map[string]client.Config{
		"nothing": {}, "no edge": {Through: client.Edge, Service: "s"}, "no control": {Service: "s", Project: "p"},
		"half a key": {Through: client.Edge, Edge: "http://e", Service: "s", AccessKey: "a"},
		"no way":     {Through: 7, Edge: "http://e", Service: "s"},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
