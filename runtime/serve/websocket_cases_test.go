package serve_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"

	"github.com/sluice-gateway/sluice/internal/wsframe"
	"github.com/sluice-gateway/sluice/internal/wsframe/wscase"
	"github.com/sluice-gateway/sluice/runtime/serve"
)

// rawSocket opens a WebSocket without a library, so that a test may say what no library says.
func (w *world) rawSocket(t *testing.T, extensions string) (net.Conn, *bufio.Reader, *http.Response) {
	t.Helper()

	c, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(t.Context(), "tcp", w.addr)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { _ = c.Close() })

	if extensions != "" {
		extensions = "Sec-WebSocket-Extensions: " + extensions + "\r\n"
	}

	_, err = io.WriteString(c, "GET /v2/models/pair HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+wsframe.NewKey()+"\r\n"+extensions+"\r\n")
	if err != nil {
		t.Fatal(err)
	}

	r := bufio.NewReaderSize(c, 64<<10)

	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("handshake: %v %+v", err, resp)
	}

	return c, r, resp
}

// TestWebSocketHoldsEveryRule has the conversations of Autobahn's list with a worker. Every message gets one
// answer, if only that it is no request.
func TestWebSocketHoldsEveryRule(t *testing.T) { //nolint:tparallel // one worker, in turn
	t.Parallel()

	w := start(t, serve.ServerConfig{})

	t.Run("cases", func(t *testing.T) {
		for _, c := range wscase.Of(true) {
			if len(c.Messages) > 0 && len(c.Messages[0].Payload) > 1<<20 {
				continue // above the limit of this worker
			}

			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()

				conn, r, _ := w.rawSocket(t, "")

				got, err := c.Talk(conn, r, len(c.Messages))
				if err != nil {
					t.Fatal(err)
				}

				if err := c.Judge(got, false); err != nil {
					t.Error(err)
				}
			})
		}
	})
}

// TestWebSocketNegotiatesWhatItKeeps offers every combination of parameters. What the worker agrees to has to hold
// for what it sends, and what it was not offered it must not choose.
func TestWebSocketNegotiatesWhatItKeeps(t *testing.T) {
	t.Parallel()

	w := start(t, serve.ServerConfig{})

	const name = "permessage-deflate"

	for offer, agreed := range map[string]bool{
		name:                                true,
		name + "; client_max_window_bits":   true,
		name + "; client_max_window_bits=9": true,
		name + "; client_no_context_takeover; server_no_context_takeover":           true,
		name + "; server_max_window_bits=9":                                         false,
		name + "; server_max_window_bits=15; client_max_window_bits":                false,
		name + "; server_max_window_bits=9, " + name:                                true,
		name + "; server_max_window_bits=9, " + name + "; server_max_window_bits=8": false,
		name + "; unknown":                   false,
		name + "; client_max_window_bits=99": false,
		name + "; server_no_context_takeover; server_no_context_takeover": false,
		"x-other":                   false,
		"x-other, " + name + "; ; ": false,
		"x-other; a=\"b\", " + name: true,
	} {
		conn, r, resp := w.rawSocket(t, offer)
		answer := resp.Header.Get("Sec-WebSocket-Extensions")

		if (answer != "") != agreed || strings.Contains(answer, "window_bits") {
			t.Errorf("%s: answered with %q", offer, answer)

			continue
		}

		if agreed {
			askPacked(t, conn, r, offer)
		}
	}
}

// askPacked sends compressed requests, each by itself, and unpacks the answers.
func askPacked(t *testing.T, conn net.Conn, r *bufio.Reader, offer string) {
	t.Helper()

	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}

	for i := range 3 {
		var packed bytes.Buffer

		z, err := flate.NewWriterWindow(&packed, 512)
		if err != nil {
			t.Fatal(err)
		}

		fmt.Fprint(z, pairText(fmt.Sprint("z", i), strings.Repeat(" ", 900), i))
		_ = z.Flush() // as above

		body := bytes.TrimSuffix(packed.Bytes(), []byte("\x00\x00\xff\xff"))
		h := wsframe.Header{Op: wsframe.OpText, RSV: wsframe.RSV1, Fin: true, Masked: true, Length: int64(len(body))}

		if _, err := conn.Write(append(h.Append(nil), body...)); err != nil {
			t.Fatal(err)
		}

		head, err := r.Peek(4)
		if err != nil {
			t.Fatalf("%s: %v", offer, err)
		}

		back, ok, v := wsframe.ParseHeader(head)
		if !ok || v != nil || back.Op != wsframe.OpText || !back.Fin {
			t.Fatalf("%s: %+v %v", offer, back, v)
		}

		_, _ = r.Discard(back.Size)
		payload := make([]byte, back.Length)

		if _, err := io.ReadFull(r, payload); err != nil {
			t.Fatal(err)
		}

		if back.RSV == wsframe.RSV1 {
			payload, err = io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(payload), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
			if err != nil {
				t.Fatalf("%s: %v", offer, err)
			}
		}

		if !bytes.Contains(payload, fmt.Appendf(nil, `"id":"z%d"`, i)) || bytes.Contains(payload, []byte("error")) {
			t.Fatalf("%s: %s", offer, payload)
		}
	}
}
