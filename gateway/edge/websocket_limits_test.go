package edge_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/config"
	"github.com/sluice-gateway/sluice/internal/wsframe"
	"github.com/sluice-gateway/sluice/spec"
)

// TestHandshakesAreJudged sends what is no handshake, and what a policy forbids.
func TestHandshakesAreJudged(t *testing.T) {
	t.Parallel()

	k := withEngine(t, echoEngine(t), func(c *edge.Config, _ *spec.Route) {
		c.WebSocket.Origins = []string{"https://*.good.example", "http://other.example:8080"}
	})

	post := strings.Replace(shake("/"), "GET", "POST", 1)
	body := strings.Replace(shake("/"), "\r\n\r\n", "\r\nContent-Length: 5\r\n\r\nhello", 1)
	old := strings.Replace(shake("/"), "HTTP/1.1", "HTTP/1.0", 1)

	for name, tc := range map[string]struct {
		raw    string
		status int
		header string
	}{
		"good":                  {shake("/"), 101, ""},
		"connection list":       {shake("/", "Connection: keep-alive, UPGRADE"), 101, ""},
		"upgrade in capitals":   {shake("/", "Upgrade: WebSocket"), 101, ""},
		"method":                {post, 405, "Allow"},
		"body":                  {body, 400, ""},
		"HTTP/1.0":              {old, 400, ""},
		"no connection":         {shake("/", "Connection: "), 400, ""},
		"other connection":      {shake("/", "Connection: close"), 400, ""},
		"no version":            {shake("/", "Sec-WebSocket-Version: "), 426, "Sec-Websocket-Version"},
		"version 8":             {shake("/", "Sec-WebSocket-Version: 8"), 426, "Sec-Websocket-Version"},
		"two versions":          {shake("/", "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 8"), 426, "Sec-Websocket-Version"},
		"no key":                {shake("/", "Sec-WebSocket-Key: "), 400, ""},
		"short key":             {shake("/", "Sec-WebSocket-Key: c2hvcnQ="), 400, ""},
		"long key":              {shake("/", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE="), 400, ""},
		"key that is no base64": {shake("/", "Sec-WebSocket-Key: !!!!!!!!!!!!!!!!!!!!!!=="), 400, ""},
		"two keys":              {shake("/", "Sec-WebSocket-Key: "+sampleKey+"\r\nSec-WebSocket-Key: "+sampleKey), 400, ""},
		"empty subprotocol":     {shake("/", "Sec-WebSocket-Protocol: a,,b"), 400, ""},
		"subprotocol twice":     {shake("/", "Sec-WebSocket-Protocol: a, a"), 400, ""},
		"no token":              {shake("/", "Sec-WebSocket-Protocol: a b"), 400, ""},
		"unknown subprotocol":   {shake("/", "Sec-WebSocket-Protocol: unknown"), 101, ""},
		"unknown extension":     {shake("/", "Sec-WebSocket-Extensions: x-zip; a=1"), 101, ""},
		"malformed extension":   {shake("/", "Sec-WebSocket-Extensions: ;;,="), 101, ""},
		"own origin":            {shake("/", "Origin: https://gw.example"), 101, ""},
		"allowed origin":        {shake("/", "Origin: https://a.good.example"), 101, ""},
		"allowed origin, port":  {shake("/", "Origin: http://other.example:8080"), 101, ""},
		"other origin":          {shake("/", "Origin: https://evil.example"), 403, ""},
		"suffix of an origin":   {shake("/", "Origin: https://evilgood.example"), 403, ""},
		"origin in the clear":   {shake("/", "Origin: http://a.good.example"), 403, ""},
		"opaque origin":         {shake("/", "Origin: null"), 403, ""},
		"no such service":       {strings.Replace(shake("/"), "/svc/", "/none/", 1), 401, ""}, // not told without credentials
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			c := k.dial(t)
			if _, err := io.WriteString(c, tc.raw); err != nil {
				t.Fatal(err)
			}

			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()

			if resp.StatusCode != tc.status || tc.header != "" && resp.Header.Get(tc.header) == "" {
				t.Errorf("status %d %v, want %d", resp.StatusCode, resp.Header, tc.status)
			}

			// The engine refuses what is malformed, too: it is the gateway that must have done so.
			if body, err := io.ReadAll(resp.Body); tc.status == 400 && !strings.Contains(string(body), "Sluice.1011") {
				t.Errorf("body %q (%v)", body, err)
			}

			if resp.Header.Get("X-Request-Id") == "" || tc.status != 101 && !resp.Close {
				t.Errorf("headers %v, close %v", resp.Header, resp.Close)
			}
		})
	}
}

// TestOnlyAProperAnswerOpensATunnel has engines that do not agree, or in a wrong form.
func TestOnlyAProperAnswerOpensATunnel(t *testing.T) {
	t.Parallel()

	const agreed = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"

	for name, tc := range map[string]struct {
		answer string // ACCEPT stands for the right one
		status int
	}{
		"a page":                 {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 502},
		"a refusal":              {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", 403},
		"no accept":              {agreed + "\r\n", 502},
		"wrong accept":           {agreed + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", 502},
		"two accepts":            {agreed + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n", 502},
		"other protocol":         {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n", 502},
		"no connection header":   {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n", 502},
		"unasked subprotocol":    {agreed + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: x\r\n\r\n", 502},
		"unasked extension":      {agreed + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n", 502},
		"nothing":                {"", 503},
		"half a head":            {"HTTP/1.1 101 Switching Proto", 503},
		"garbage":                {"\x00\x01\x02\x03 what is this\r\n\r\n", 502},
		"a proper one with more": {agreed + "Sec-WebSocket-Accept: ACCEPT\r\n\r\n\x81\x02hi", 101},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			k := withEngine(t, engine(t, func(w http.ResponseWriter, r *http.Request) {
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					panic(err)
				}
				defer c.Close()

				_, _ = io.WriteString(c, strings.ReplaceAll(tc.answer, "ACCEPT", acceptOf(r)))

				if tc.status == 101 {
					_, _ = io.Copy(io.Discard, c)
				}
			}))

			c := k.dial(t)
			if _, err := io.WriteString(c, shake("/")); err != nil {
				t.Fatal(err)
			}

			r := bufio.NewReader(c)

			resp, err := http.ReadResponse(r, nil)
			if err != nil || resp.StatusCode != tc.status {
				t.Fatalf("%v %+v, want %d", err, resp, tc.status)
			}

			if tc.status != 101 {
				return
			}

			if _, payload, err := rawFrame(r); err != nil || string(payload) != "hi" {
				t.Errorf("what came behind the answer: %q %v", payload, err)
			}
		})
	}
}

// TestLimitsEndWebSockets breaks every limit.
func TestLimitsEndWebSockets(t *testing.T) {
	t.Parallel()

	mask := &[4]byte{1, 2, 3, 4}
	flood := func(op wsframe.Opcode) func(c net.Conn) {
		return func(c net.Conn) {
			frames := slices.Repeat(wsframe.AppendFrame(nil, op, []byte("?"), mask), 500)
			for range 20 {
				if _, err := c.Write(frames); err != nil {
					return
				}
			}
		}
	}

	send := func(frames ...[]byte) func(c net.Conn) {
		return func(c net.Conn) { _, _ = c.Write(slices.Concat(frames...)) }
	}
	part := func(op wsframe.Opcode, size int) []byte {
		h := wsframe.Header{Op: op, Masked: true, Length: int64(size)}

		return append(h.Append(nil), make([]byte, size)...)
	}

	for name, tc := range map[string]struct {
		change func(w *edge.WebSocket, r *spec.Route)
		act    func(c net.Conn)
		code   wsframe.Code
	}{
		"a frame too big": {
			func(w *edge.WebSocket, _ *spec.Route) { w.MaxMessage = 1000 },
			send(wsframe.AppendFrame(nil, wsframe.OpBinary, make([]byte, 1001), mask)), wsframe.CodeTooBig,
		},
		"a head that promises too much": {
			func(w *edge.WebSocket, _ *spec.Route) { w.MaxMessage = 1000 },
			send([]byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}), wsframe.CodeTooBig,
		},
		"fragments too big together": {
			func(w *edge.WebSocket, _ *spec.Route) { w.MaxMessage = 1000 },
			send(part(wsframe.OpBinary, 600), part(wsframe.OpContinuation, 600)), wsframe.CodeTooBig,
		},
		"the service's own limit": {
			func(_ *edge.WebSocket, r *spec.Route) { r.Policy.Limits.BodyBytes = 500 },
			send(wsframe.AppendFrame(nil, wsframe.OpBinary, make([]byte, 501), mask)), wsframe.CodeTooBig,
		},
		"a flood of pings": {func(*edge.WebSocket, *spec.Route) {}, flood(wsframe.OpPing), wsframe.CodePolicy},
		"a flood of pongs": {func(*edge.WebSocket, *spec.Route) {}, flood(wsframe.OpPong), wsframe.CodePolicy},
		"no message for too long": {
			func(w *edge.WebSocket, _ *spec.Route) { w.Idle = ms(300) }, func(net.Conn) {}, wsframe.CodeGoingAway,
		},
		"a life that is over": {
			func(w *edge.WebSocket, _ *spec.Route) { w.Life = ms(300) }, func(net.Conn) {}, wsframe.CodeGoingAway,
		},
		"no answer to pings": {
			func(w *edge.WebSocket, _ *spec.Route) { w.Ping, w.Pong = ms(100), ms(300) }, func(net.Conn) {}, wsframe.CodeGoingAway,
		},
		"a frame that is never complete": {
			func(w *edge.WebSocket, _ *spec.Route) { w.Write = ms(300) }, send([]byte{0x81, 0x85, 1, 2, 3, 4, 'x'}), wsframe.CodePolicy,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			k := withEngine(t, echoEngine(t), func(c *edge.Config, r *spec.Route) {
				c.WebSocket.CloseWait = ms(500)
				tc.change(&c.WebSocket, r)
			})
			c, r, _ := k.handshaken(t, "/")

			go tc.act(c)

			wantClose(t, c, r, tc.code)

			if got := k.records(t, 1)[0]; got.CloseCode == 0 {
				t.Errorf("record %+v", got)
			}
		})
	}
}

// TestSendersAreSlowedDown has a client send more messages than it may: they all arrive, but not at once.
func TestSendersAreSlowedDown(t *testing.T) {
	t.Parallel()

	k := withEngine(t, echoEngine(t), func(c *edge.Config, _ *spec.Route) { c.WebSocket.MessagesPerSecond = 100 })
	c := k.open(t, "/", nil)
	began := time.Now()

	go func() {
		for i := range 300 {
			if c.Write(t.Context(), websocket.MessageText, fmt.Appendf(nil, "%01000d", i)) != nil {
				return
			}
		}
	}()

	for i := range 300 {
		if _, b, err := c.Read(t.Context()); err != nil || string(b) != fmt.Sprintf("%01000d", i) {
			t.Fatalf("message %d: %q %v", i, b, err)
		}
	}

	// Two seconds' worth may come at once, and what one read brings.
	if took := time.Since(began); took < 700*time.Millisecond {
		t.Errorf("300 messages at 100 a second took %v", took)
	}
}

// TestASlowReaderHoldsUpItsEngineOnly sends to a client that does not read. Nothing is kept for it beyond buffers,
// other clients go on, and at last it is cut off.
func TestASlowReaderHoldsUpItsEngineOnly(t *testing.T) {
	t.Parallel()

	sent := make(chan int64, 1)
	flood := rawEngine(t, func(c net.Conn, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/echo") {
			_, _ = c.Write([]byte("\x81\x02hi"))
			_, _ = io.Copy(io.Discard, c)

			return
		}

		frame := wsframe.AppendFrame(nil, wsframe.OpBinary, make([]byte, 8<<10), nil)

		var n int64

		for {
			m, err := c.Write(frame)
			if n += int64(m); err != nil {
				sent <- n

				return
			}
		}
	})

	k := withEngine(t, flood, func(c *edge.Config, _ *spec.Route) { c.WebSocket.Write = ms(700) })
	_, _, _ = k.handshaken(t, "/flood")

	if _, b, err := k.open(t, "/echo", nil).Read(t.Context()); err != nil || string(b) != "hi" {
		t.Errorf("another client: %q %v", b, err)
	}

	if n := <-sent; n > 64<<20 {
		t.Errorf("the engine could send %d bytes to a client that reads nothing", n)
	}

	if r := k.records(t, 1)[0]; r.Err == nil || !strings.Contains(r.Err.Error(), "slowly") {
		t.Errorf("record %+v", r)
	}
}

// TestEnginesThatDieInMidStream ends the engine's connection at every point; the client always hears 1011 or, within
// a frame, that the connection broke.
func TestEnginesThatDieInMidStream(t *testing.T) { //nolint:tparallel // one gateway, in turn
	t.Parallel()

	for name, tc := range map[string]struct {
		last string
		code wsframe.Code
	}{
		"between messages":     {"\x81\x02hi", wsframe.CodeInternal},
		"within a message":     {"\x01\x02hi", wsframe.CodeInternal},
		"within a head":        {"\x81\x7e\x01", wsframe.CodeInternal},
		"within a short frame": {"\x81\x0ahi", wsframe.CodeInternal},
	} {
		k := withEngine(t, rawEngine(t, func(c net.Conn, _ *http.Request) { _, _ = io.WriteString(c, tc.last) }))
		c, r, _ := k.handshaken(t, "/")

		t.Run(name, func(t *testing.T) { wantClose(t, c, r, tc.code) })

		if got := k.records(t, 1)[0]; got.Outcome != gateway.UpstreamError {
			t.Errorf("%s: record %+v", name, got)
		}
	}
}

// TestWebSocketSeats counts WebSockets against all three limits.
func TestWebSocketSeats(t *testing.T) {
	t.Parallel()

	for name, tc := range map[string]struct {
		change func(w *edge.WebSocket)
		status int
	}{
		"in all":       {func(w *edge.WebSocket) { w.Connections = 3 }, 503},
		"of a source":  {func(w *edge.WebSocket) { w.ConnectionsPerSource = 3 }, 429},
		"of a service": {func(w *edge.WebSocket) { w.ConnectionsPerService = 3 }, 429},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			k := withEngine(t, echoEngine(t), func(c *edge.Config, _ *spec.Route) { tc.change(&c.WebSocket) })

			var first *websocket.Conn

			for range 3 {
				first = k.open(t, "/", nil)
			}

			try := func() int {
				c, resp, err := websocket.Dial(t.Context(), k.url("/"), nil)
				if resp == nil {
					t.Fatal(err)
				}

				if c != nil {
					_ = c.CloseNow() // it was let in, that is all
				}

				return resp.StatusCode
			}

			if got := try(); got != tc.status {
				t.Errorf("the fourth: %d, want %d", got, tc.status)
			}

			if err := first.CloseNow(); err != nil {
				t.Error(err)
			}

			eventually(t, "a free place", func() bool { return try() == 101 })
		})
	}
}

// TestDrainSaysGoodByeToBothEnds stops the door with WebSockets open: engine and client hear 1001, between two messages,
// and not all at once.
func TestDrainSaysGoodByeToBothEnds(t *testing.T) {
	t.Parallel()

	const sockets = 30

	heard := make(chan wsframe.Code, sockets)
	k := withEngine(t, rawEngine(t, func(c net.Conn, _ *http.Request) {
		r := bufio.NewReader(c)

		for {
			h, payload, err := rawFrame(r)
			if err != nil {
				heard <- wsframe.CodeLost

				return
			}

			if h.Op == wsframe.OpClose {
				code, _, _ := wsframe.ParseClose(payload)
				heard <- code

				_, _ = c.Write(wsframe.AppendClose(nil, code, "", nil))

				return
			}
		}
	}), func(c *edge.Config, _ *spec.Route) {
		c.Drain.WebSocketSpread, c.Drain.Deadline = ms(800), config.Duration(10*time.Second)
	})

	open := make([]*websocket.Conn, 0, sockets)
	for range sockets {
		open = append(open, k.open(t, "/", nil))
	}

	ended := make(chan time.Time, sockets)

	for _, c := range open {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			defer cancel()

			if _, _, err := c.Read(ctx); websocket.CloseStatus(err) != websocket.StatusGoingAway {
				t.Errorf("ended with %v", err)
			}

			ended <- time.Now()
		}()
	}

	stopped := make(chan error, 1)
	go func() { stopped <- k.stop() }()

	var first, last time.Time

	for i := range sockets {
		if code := <-heard; code != wsframe.CodeGoingAway {
			t.Errorf("an engine heard %d", code)
		}

		if last = <-ended; i == 0 {
			first = last
		}
	}

	if err := <-stopped; err != nil {
		t.Error(err)
	}

	if spread := last.Sub(first); spread < 300*time.Millisecond {
		t.Errorf("all ended within %v", spread)
	}
}
