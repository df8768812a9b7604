package serve_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// linked opens the link door of a world and a client of it. drain ends the door as a signal does.
func linked(t *testing.T, w *world) (client *link.Client, drain func() error) {
	t.Helper()

	ln, err := serve.Listen(t.Context(), "unix:"+filepath.Join(t.TempDir(), "l.sock"))
	if err != nil {
		t.Fatal(err)
	}

	door := serve.NewLinkServer(w.app, 5*time.Second, slog.New(slog.DiscardHandler))
	ctx, stop := context.WithCancel(context.Background())
	idle, ended := make(chan struct{}), make(chan error, 1)

	close(idle)

	go func() { ended <- door.Run(ctx, ln, idle) }()

	client = link.NewClient(link.Config{Network: "unix", Address: ln.Addr().String()})

	done := false
	drain = func() error {
		done = true

		stop()

		return <-ended
	}

	t.Cleanup(func() {
		if !done {
			if err := drain(); err != nil {
				t.Errorf("link door: %v", err)
			}
		}

		client.Close()
	})

	return client, drain
}

const linkedBody = `{"id":"7","inputs":[{"name":"INPUT0","shape":[1,4],"datatype":"INT32","data":[1,2,3,4]},
	{"name":"INPUT1","shape":[1,4],"datatype":"INT32","data":[5,6,7,8]}]}`

func TestLinkAnswersAsHTTPDoes(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	c, _ := linked(t, w)

	for _, tc := range []struct{ method, path, body string }{
		{"POST", "/v2/models/pair/infer", linkedBody},
		{"POST", "/v2/models/pair/infer?x=1", linkedBody},
		{"POST", "/v2/models/p%61ir/infer", linkedBody},
		{"POST", "/v2/models/pair/infer", `{"inputs":[]}`},
		{"POST", "/v2/models/nobody/infer", linkedBody},
		{"GET", "/v2/models/pair", ""},
		{"GET", "/health", ""},
		{"POST", "/classify", ""},
		{"DELETE", "/classify", ""},
	} {
		over := w.send(t, tc.method, tc.path, tc.body, "Content-Type", "application/json")

		var ans link.Answer

		call := link.Call{Method: []byte(tc.method), Path: []byte(tc.path), Body: []byte(tc.body)}
		call.Header.Add("content-type", []byte("application/json"))

		if err := c.Do(t.Context(), &call, &ans); err != nil {
			t.Fatal(err)
		}

		if ans.Status != over.status || string(ans.Body) != over.body || string(ans.Header.Get("Content-Type")) != over.header.Get("Content-Type") {
			t.Errorf("%s %s: link %d %q %s, HTTP %d %q %s", tc.method, tc.path,
				ans.Status, ans.Header.Get("Content-Type"), ans.Body, over.status, over.header.Get("Content-Type"), over.body)
		}
	}
}

func TestLinkCancelReachesTheModel(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	started, _, ended := block(w.models.models["pair"])
	c, _ := linked(t, w)

	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)

	go func() {
		var ans link.Answer
		result <- c.Do(ctx, &link.Call{Method: []byte("POST"), Path: []byte("/v2/models/pair/infer"), Body: []byte(linkedBody)}, &ans)
	}()

	<-started
	cancel()

	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}

	if err := <-ended; err == nil {
		t.Error("the model was not told")
	}
}

func TestLinkDrainFinishesWhatWasAccepted(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	started, release, _ := block(w.models.models["pair"])
	c, drain := linked(t, w)

	result := make(chan error, 1)

	var ans link.Answer

	go func() {
		result <- c.Do(t.Context(), &link.Call{Method: []byte("POST"), Path: []byte("/v2/models/pair/infer"), Body: []byte(linkedBody)}, &ans)
	}()

	<-started

	drained := make(chan error, 1)
	go func() { drained <- drain() }()

	for tick := time.NewTicker(time.Millisecond); !c.Draining(); <-tick.C {
	}

	var late link.Answer
	if err := c.Do(t.Context(), &link.Call{Method: []byte("GET"), Path: []byte("/health")}, &late); !errors.Is(err, link.ErrDraining) {
		t.Errorf("a new call while draining: %v", err)
	}

	close(release)

	var out map[string]any
	if err := <-result; err != nil || json.Unmarshal(ans.Body, &out) != nil || out["id"] != "7" {
		t.Errorf("the accepted call: %s, %v", ans.Body, err)
	}

	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
}

func TestLinkReusesNothingThatIsStillRead(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	c, _ := linked(t, w)

	bodies := make(chan []byte, 400)

	for g := range 8 {
		go func() {
			for i := range 50 {
				want := itoa(g*1000 + i + 1)
				body := `{"inputs":[{"name":"INPUT0","shape":[1,4],"datatype":"INT32","data":[` + want + `,2,3,4]},
					{"name":"INPUT1","shape":[1,4],"datatype":"INT32","data":[5,6,7,8]}]}`

				var ans link.Answer

				err := c.Do(t.Context(), &link.Call{Method: []byte("POST"), Path: []byte("/v2/models/pair/infer"), Body: []byte(body)}, &ans)
				if err != nil || !bytes.Contains(ans.Body, []byte(`"data":[`+want+`,2,3,4]`)) {
					t.Errorf("want %s: %s, %v", want, ans.Body, err)
				}

				bodies <- ans.Body
			}
		}()
	}

	for range 400 {
		<-bodies
	}
}

func TestErrorsRepeatTheRequestID(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})

	if a := w.send(t, "POST", "/classify", "", "X-Request-Id", "abc-1"); !bytes.Contains([]byte(a.body), []byte(`"request_id":"abc-1"`)) {
		t.Errorf("got %s", a.body)
	}

	long := string(bytes.Repeat([]byte("x"), 1000))
	if a := w.send(t, "POST", "/classify", "", "X-Request-Id", long); bytes.Contains([]byte(a.body), []byte("xxx")) {
		t.Errorf("a long id is repeated: %s", a.body)
	}
}
