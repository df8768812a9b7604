package serve_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-gateway/sluice/runtime/batch"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// socket opens a WebSocket of a worker with an independent client.
func (w *world) socket(t *testing.T, path string) *websocket.Conn {
	t.Helper()

	c, _, err := websocket.Dial(t.Context(), "ws://"+w.addr+path, &websocket.DialOptions{
		CompressionMode: websocket.CompressionContextTakeover, CompressionThreshold: 64,
	})
	if err != nil {
		t.Fatal(err)
	}

	c.SetReadLimit(-1)
	t.Cleanup(func() { _ = c.CloseNow() })

	return c
}

type reply struct {
	ID      string `json:"id"`
	Model   string `json:"model_name"`
	Status  int    `json:"status"`
	Error   string `json:"error"`
	Outputs []struct {
		Name string `json:"name"`
		Data []int  `json:"data"`
	} `json:"outputs"`
}

func ask(t *testing.T, c *websocket.Conn, text string) {
	t.Helper()

	if err := c.Write(t.Context(), websocket.MessageText, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func hear(t *testing.T, c *websocket.Conn) reply {
	t.Helper()

	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	kind, b, err := c.Read(ctx)
	if err != nil || kind != websocket.MessageText {
		t.Fatalf("read: kind %v, %v", kind, err)
	}

	var r reply
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("%v in %s", err, b)
	}

	return r
}

func pairText(id, more string, first int) string {
	return fmt.Sprintf(`{"id":%q%s,"inputs":[{"name":"INPUT0","datatype":"INT32","shape":[1,4],"data":[%d,2,3,4]},`+
		`{"name":"INPUT1","datatype":"INT32","shape":[1,4],"data":[5,6,7,8]}]}`, id, more, first)
}

func TestWebSocketCarriesRequests(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})

	for path, more := range map[string]string{
		"/": `,"model_name":"pair"`, "/v2": `,"model_name":"pair","model_version":"1"`, "/classify": `,"model_name":"pair"`,
		"/v2/models/pair": "", "/v2/models/pair/infer": "", "/v2/models/pair/versions/" + w.models.models["pair"].meta.Version + "/infer": "",
	} {
		if more != "" {
			more = strings.Replace(more, `"1"`, `"`+w.models.models["pair"].meta.Version+`"`, 1)
		}

		c := w.socket(t, path)
		ask(t, c, pairText("a-1", more, 41))

		if r := hear(t, c); r.ID != "a-1" || r.Error != "" || r.Model != "pair" || len(r.Outputs) != 2 || r.Outputs[0].Data[0] != 41 {
			t.Errorf("%s: %+v", path, r)
		}
	}
}

func TestWebSocketErrorsEndOneMessageOnly(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	c := w.socket(t, "/v2")

	for name, tc := range map[string]struct {
		text, id, message string
		status            int
	}{
		"no json":        {`{"id":"x","inputs":`, "x", "", 400},
		"not an object":  {`[]`, "", "", 400},
		"empty":          {``, "", "empty", 400},
		"unknown model":  {`{"inputs":[],"id":"m","model_name":"none"}`, "m", "none", 404},
		"slash":          {`{"id":"m","model_name":"a/../b"}`, "m", "slash", 400},
		"missing input":  {`{"id":"q\"1","model_name":"pair","inputs":[]}`, `q"1`, "", 400},
		"wrong datatype": {strings.Replace(pairText("w", `,"model_name":"pair"`, 1), "INT32", "FP32", 1), "w", "INPUT0", 400},
	} {
		ask(t, c, tc.text)

		if r := hear(t, c); r.ID != tc.id || r.Status != tc.status || r.Error == "" || !strings.Contains(r.Error, tc.message) {
			t.Errorf("%s: %+v", name, r)
		}
	}

	ask(t, c, pairText("still", `,"model_name":"pair"`, 7))

	if r := hear(t, c); r.ID != "still" || r.Error != "" {
		t.Errorf("after errors: %+v", r)
	}
}

func TestWebSocketCarriesBinaryTensors(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	c := w.socket(t, "/v2/models/pair/infer")

	head := `{"id":"bin","inputs":[{"name":"INPUT0","datatype":"INT32","shape":[1,4],"parameters":{"binary_data_size":16}},` +
		`{"name":"INPUT1","datatype":"INT32","shape":[1,4],"parameters":{"binary_data_size":16}}],"parameters":{"binary_data_output":true}}`
	msg := binary.LittleEndian.AppendUint32(nil, uint32(len(head)))
	msg = append(msg, head...)

	for i := range 8 {
		msg = binary.LittleEndian.AppendUint32(msg, uint32(i*11))
	}

	if err := c.Write(t.Context(), websocket.MessageBinary, msg); err != nil {
		t.Fatal(err)
	}

	kind, b, err := c.Read(t.Context())
	if err != nil || kind != websocket.MessageBinary {
		t.Fatalf("kind %v, %v", kind, err)
	}

	n := binary.LittleEndian.Uint32(b)
	var r reply

	if err := json.Unmarshal(b[4:4+n], &r); err != nil || r.ID != "bin" {
		t.Fatalf("%+v, %v", r, err)
	}

	tensors := b[4+n:]
	if len(tensors) != 32 || binary.LittleEndian.Uint32(tensors[28:]) != 77 {
		t.Errorf("tensors % x", tensors)
	}

	for _, bad := range [][]byte{{}, {1, 0}, {9, 0, 0, 0, '{', '}'}, {0xff, 0xff, 0xff, 0xff}} {
		if err := c.Write(t.Context(), websocket.MessageBinary, bad); err != nil {
			t.Fatal(err)
		}

		if r := hear(t, c); r.Status != 400 || r.Error == "" {
			t.Errorf("% x: %+v", bad, r)
		}
	}
}

func TestWebSocketAnswersAsTheyCome(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	pair := w.models.models["pair"]
	echo := pair.run
	slow := make(chan struct{})

	pair.run = func(ctx context.Context, req *batch.Request) ([]engine.Tensor, error) {
		if binary.LittleEndian.Uint32(req.Inputs[0].Data) == 1 {
			select {
			case <-slow:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}

		return echo(ctx, req)
	}

	c := w.socket(t, "/v2/models/pair")
	ask(t, c, pairText("slow", "", 1))
	ask(t, c, pairText("fast", "", 2))

	if r := hear(t, c); r.ID != "fast" {
		t.Errorf("first answer is %+v", r)
	}

	close(slow)

	if r := hear(t, c); r.ID != "slow" {
		t.Errorf("second answer is %+v", r)
	}
}

func TestWebSocketBoundsWhatIsUnderWay(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	pair := w.models.models["pair"]
	echo := pair.run
	release := make(chan struct{})

	var running, most atomic.Int64

	pair.run = func(ctx context.Context, req *batch.Request) ([]engine.Tensor, error) {
		most.Store(max(most.Load(), running.Add(1)))
		defer running.Add(-1)

		<-release

		return echo(ctx, req)
	}

	c := w.socket(t, "/v2/models/pair")

	const sent = 200
	for i := range sent {
		ask(t, c, pairText("n", "", i))
	}

	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()

	for calm := 0; calm < 20; <-tick.C {
		if running.Load() == 64 {
			calm++
		}
	}

	close(release)

	for range sent {
		hear(t, c)
	}

	if most.Load() != 64 {
		t.Errorf("%d messages of one WebSocket were worked on at a time", most.Load())
	}
}

func TestWebSocketVanishedClientCancels(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	started, _, ended := block(w.models.models["pair"])

	c := w.socket(t, "/v2/models/pair")
	ask(t, c, pairText("n", "", 1))
	<-started

	if err := c.CloseNow(); err != nil {
		t.Fatal(err)
	}

	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("ended with %v", err)
		}
	case <-time.After(5 * time.Second):
		t.Error("the request of a vanished client went on")
	}
}

func TestWebSocketLimits(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{}) // bodies up to 1 MiB

	for name, tc := range map[string]struct {
		kind websocket.MessageType
		msg  []byte
		code websocket.StatusCode
	}{
		"too big":          {websocket.MessageBinary, make([]byte, 2<<20), websocket.StatusMessageTooBig},
		"too big unpacked": {websocket.MessageText, []byte(strings.Repeat(" ", 3<<20)), websocket.StatusMessageTooBig},
		"no utf-8":         {websocket.MessageText, []byte("\"\xff\""), websocket.StatusInvalidFramePayloadData},
	} {
		c := w.socket(t, "/")
		if err := c.Write(t.Context(), tc.kind, tc.msg); err != nil && name != "too big" {
			t.Fatal(err)
		}

		if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != tc.code {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWebSocketHandshakes(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})
	good := map[string]string{
		"Connection": "keep-alive, Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
	}

	transport := &http.Transport{DisableKeepAlives: true}

	for name, tc := range map[string]struct {
		method, path, header, value string
		status                      int
	}{
		"good":      {"GET", "/", "", "", 101},
		"no path":   {"GET", "/nothing", "", "", 404},
		"no action": {"GET", "/v2/models/pair/stats", "", "", 404},
		"method":    {"POST", "/", "", "", 405},
		"version":   {"GET", "/", "Sec-WebSocket-Version", "8", 426},
		"key":       {"GET", "/", "Sec-WebSocket-Key", "c2hvcnQ=", 400},
	} {
		req, err := http.NewRequestWithContext(t.Context(), tc.method, w.url+tc.path, nil)
		if err != nil {
			t.Fatal(err)
		}

		for k, v := range good {
			req.Header.Set(k, v)
		}

		if tc.header != "" {
			req.Header.Set(tc.header, tc.value)
		}

		resp, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}

		if resp.StatusCode != http.StatusSwitchingProtocols {
			b, _ := io.ReadAll(resp.Body)
			if !strings.Contains(string(b), "error") {
				t.Errorf("%s: body %s", name, b)
			}
		}

		_ = resp.Body.Close()

		if resp.StatusCode != tc.status || tc.status == 426 && resp.Header.Get("Sec-WebSocket-Version") != "13" {
			t.Errorf("%s: status %d, %v", name, resp.StatusCode, resp.Header)
		}
	}
}

func TestDrainSaysGoodByeToWebSockets(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{WebSocketSpread: 50 * time.Millisecond})
	started, release, _ := block(w.models.models["pair"])

	idle := w.socket(t, "/")
	busy := w.socket(t, "/v2/models/pair")
	ask(t, busy, pairText("last", "", 9))
	<-started
	w.stop()

	if _, _, err := idle.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("idle: %v", err)
	}

	close(release)

	if r := hear(t, busy); r.ID != "last" || r.Error != "" {
		t.Errorf("what was accepted is answered with %+v", r)
	}

	if _, _, err := busy.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusGoingAway {
		t.Errorf("busy: %v", err)
	}
}
