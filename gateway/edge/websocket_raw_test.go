package edge_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// rawEngine hands the connection to f after a proper 101.
func rawEngine(tb testing.TB, f func(c net.Conn, r *http.Request)) string {
	tb.Helper()

	return engine(tb, func(w http.ResponseWriter, r *http.Request) {
		h, ok := w.(http.Hijacker)
		if !ok {
			panic("no hijacker")
		}

		c, _, err := h.Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()

		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Accept: "+acceptOf(r)+"\r\n\r\n")

		f(c, r)
	})
}

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

// shake is a handshake as raw bytes; header lines replace or add to the usual ones, an empty value removes.
func shake(path string, lines ...string) string {
	order := []string{"Host", "Connection", "Upgrade", "Sec-WebSocket-Version", "Sec-WebSocket-Key"}
	have := map[string]string{
		"Host": "gw.example", "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
		"Sec-WebSocket-Key": sampleKey,
	}

	var extra strings.Builder

	for _, l := range lines {
		name, value, _ := strings.Cut(l, ": ")
		if _, usual := have[name]; usual {
			have[name] = value
		} else {
			extra.WriteString(l + "\r\n")
		}
	}

	var b strings.Builder

	b.WriteString("GET /v1/infers/svc" + path + " HTTP/1.1\r\n")

	for _, name := range order {
		if have[name] != "" {
			b.WriteString(name + ": " + have[name] + "\r\n")
		}
	}

	return b.String() + extra.String() + "\r\n"
}

// handshaken opens a WebSocket without a library, so that a test may say what no library says.
func (k *wsBench) handshaken(tb testing.TB, path string, lines ...string) (net.Conn, *bufio.Reader, *http.Response) {
	tb.Helper()

	return handshakenOn(tb, k.dial(tb), path, lines...)
}

func handshakenOn(tb testing.TB, c net.Conn, path string, lines ...string) (net.Conn, *bufio.Reader, *http.Response) {
	tb.Helper()

	if _, err := io.WriteString(c, shake(path, lines...)); err != nil {
		tb.Fatal(err)
	}

	r := bufio.NewReaderSize(c, 64<<10)

	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
		tb.Fatalf("handshake: %v %+v", err, resp)
	}

	return c, r, resp
}

// rawFrame reads a frame without judging it; the payload is in clear.
func rawFrame(r *bufio.Reader) (h wsframe.Header, payload []byte, err error) {
	for need := 2; ; need++ {
		head, err := r.Peek(need)
		if err != nil {
			return h, nil, err
		}

		var ok bool
		if h, ok, _ = wsframe.ParseHeader(head); ok {
			break
		}
	}

	_, _ = r.Discard(h.Size)
	payload = make([]byte, h.Length)

	_, err = io.ReadFull(r, payload)
	if h.Masked {
		wsframe.Mask(payload, h.Key, 0)
	}

	return h, payload, err
}

func acceptOf(r *http.Request) string {
	return string(wsframe.AppendAccept(nil, []byte(r.Header.Get("Sec-WebSocket-Key"))))
}
