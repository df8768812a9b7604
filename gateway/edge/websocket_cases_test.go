package edge_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/flate"

	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/internal/wsframe"
	"github.com/sluice-gateway/sluice/internal/wsframe/wscase"
	"github.com/sluice-gateway/sluice/spec"
)

// TestRelayHoldsEveryRule has the conversations of Autobahn's list through the relay, to an engine that echoes.
func TestRelayHoldsEveryRule(t *testing.T) {
	t.Parallel()

	k := withEngine(t, echoEngine(t), func(c *edge.Config, _ *spec.Route) { c.HTTPS = "127.0.0.1:0" })

	for i, c := range wscase.Of(true) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()

			conn := k.dial(t)

			// TLS is read in another way.
			if i%2 == 0 {
				secure, err := tls.Dial("tcp", k.HTTPSAddr(), insecure())
				if err != nil {
					t.Fatal(err)
				}

				t.Cleanup(func() { _ = secure.Close() })

				conn = secure
			}

			conn, r, _ := handshakenOn(t, conn, "/")

			got, err := c.Talk(conn, r, len(c.Messages))
			if err != nil {
				t.Fatal(err)
			}

			if err := c.Judge(got, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRelayShieldsClientsFromEngines has an engine break every rule: clients see a proper close frame.
func TestRelayShieldsClientsFromEngines(t *testing.T) {
	t.Parallel()

	for _, c := range wscase.Broken(false) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()

			k := withEngine(t, rawEngine(t, func(conn net.Conn, _ *http.Request) {
				for _, piece := range c.Send {
					if _, err := conn.Write(piece); err != nil {
						return
					}
				}

				_, _ = io.Copy(io.Discard, conn) // until the gateway ends it
			}))

			conn, r, _ := k.handshaken(t, "/")

			got, err := (&wscase.Case{Closes: true}).Talk(conn, r, 0)

			// Of a frame above 16 KiB the client has a part by then: no close frame can follow.
			if len(c.Send[0]) > 16<<10 {
				if len(got.Messages) > 0 {
					t.Errorf("%d messages", len(got.Messages))
				}

				return
			}

			if err != nil {
				t.Fatal(err)
			}

			c.Code = wsframe.CodeInternal
			if err := c.Judge(got, true); err != nil {
				t.Error(err)
			}
		})
	}
}

// deflateVariant is an offer and what a server that knows every parameter chooses of it.
type deflateVariant struct {
	offer, answer        string
	clientBits           int
	clientAlone, srvSolo bool
}

// TestRelayJudgesCompressedMessages has group 12 and 13 of Autobahn's list: every combination of parameters,
// with messages of many sizes, in fragments, through an engine that echoes them as they are packed.
func TestRelayJudgesCompressedMessages(t *testing.T) {
	t.Parallel()

	const name = "permessage-deflate"

	var variants []deflateVariant

	for _, bits := range []int{0, 9, 12, 15} {
		for mask := range 4 {
			v := deflateVariant{clientBits: 15, clientAlone: mask&1 != 0, srvSolo: mask&2 != 0}
			v.offer, v.answer = name+"; client_max_window_bits", name

			if v.clientAlone {
				v.answer += "; client_no_context_takeover"
			}

			if v.srvSolo {
				v.offer += "; server_no_context_takeover"
				v.answer += "; server_no_context_takeover"
			}

			if bits > 0 {
				v.clientBits = bits
				v.offer += fmt.Sprintf("; server_max_window_bits=%d", bits)
				v.answer += fmt.Sprintf("; server_max_window_bits=%d; client_max_window_bits=%d", bits, bits)
			}

			variants = append(variants, v)
		}
	}

	for _, v := range variants {
		t.Run(v.answer, func(t *testing.T) {
			t.Parallel()

			k := withEngine(t, mirror(t, v.answer))
			conn, r, resp := k.handshaken(t, "/", "Sec-WebSocket-Extensions: "+v.offer+", "+name+", x-unknown")

			if got := resp.Header.Get("Sec-WebSocket-Extensions"); got != v.answer {
				t.Fatalf("extensions %q, want %q", got, v.answer)
			}

			talkPacked(t, &v, conn, r)
		})
	}
}

// mirror is an engine that agrees to extensions and sends every frame back, unmasked but else as it is.
func mirror(tb testing.TB, extensions string) string {
	tb.Helper()

	return engine(tb, func(w http.ResponseWriter, r *http.Request) {
		c, buf, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()

		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
			"Sec-WebSocket-Extensions: "+extensions+"\r\nSec-WebSocket-Accept: "+acceptOf(r)+"\r\n\r\n")

		for {
			h, payload, err := rawFrame(buf.Reader)
			if err != nil {
				return
			}

			h.Masked = false
			if _, err := c.Write(append(h.Append(nil), payload...)); err != nil || h.Op == wsframe.OpClose {
				return
			}
		}
	})
}

// packer compresses messages as a client does that has agreed to v.
type packer struct {
	buf   bytes.Buffer
	w     *flate.Writer
	alone bool
	bits  int
}

func newPacker(tb testing.TB, v *deflateVariant) *packer {
	tb.Helper()

	// What comes back is what was sent, so that the stricter side decides.
	p := &packer{alone: v.clientAlone || v.srvSolo, bits: v.clientBits}
	p.reset(tb)

	return p
}

func (p *packer) reset(tb testing.TB) {
	tb.Helper()

	var err error
	if p.w, err = flate.NewWriterWindow(&p.buf, 1<<p.bits); err != nil {
		tb.Fatal(err)
	}
}

func (p *packer) pack(tb testing.TB, plain []byte) []byte {
	tb.Helper()
	p.buf.Reset()

	if p.alone {
		p.reset(tb)
	}

	if _, err := p.w.Write(plain); err != nil {
		tb.Fatal(err)
	}

	if err := p.w.Flush(); err != nil {
		tb.Fatal(err)
	}

	return bytes.TrimSuffix(bytes.Clone(p.buf.Bytes()), []byte("\x00\x00\xff\xff"))
}

// send writes a compressed message in fragments of a size.
func sendPacked(tb testing.TB, c net.Conn, packed []byte, op wsframe.Opcode, fragment int) {
	tb.Helper()

	key := [4]byte{7, 1, 9, 3}
	rsv := wsframe.RSV1

	for first := true; first || len(packed) > 0; first = false {
		n := min(len(packed), fragment)
		h := wsframe.Header{Op: op, RSV: rsv, Fin: n == len(packed), Masked: true, Key: key, Length: int64(n)}
		frame := h.Append(nil)
		at := len(frame)
		frame = append(frame, packed[:n]...)
		wsframe.Mask(frame[at:], key, 0)

		if _, err := c.Write(frame); err != nil {
			tb.Fatal(err)
		}

		packed, op, rsv = packed[n:], wsframe.OpContinuation, 0
	}
}

func talkPacked(t *testing.T, v *deflateVariant, conn net.Conn, r *bufio.Reader) {
	t.Helper()

	p := newPacker(t, v)

	for i, size := range []int{0, 1, 16, 64, 256, 1024, 4096, 8192, 40_000, 131_072, 300_000, 16} {
		plain := []byte(strings.Repeat(fmt.Sprintf("{%d:\"aé€\"},", i), size/10) + "x")
		op, fragment := wsframe.OpText, 1<<20

		if i%2 == 1 {
			op, fragment = wsframe.OpBinary, 97
		}

		packed := p.pack(t, plain)
		sendPacked(t, conn, packed, op, fragment)

		var back []byte

		for {
			h, payload, err := rawFrame(r)
			if err != nil || h.Op == wsframe.OpClose {
				t.Fatalf("message %d: %v, frame %+v %q", i, err, h, payload)
			}

			if back = append(back, payload...); h.Fin {
				break
			}
		}

		if !bytes.Equal(back, packed) {
			t.Fatalf("message %d came back otherwise", i)
		}
	}

	// The window is known: what is invalid is found however it is packed.
	sendPacked(t, conn, p.pack(t, []byte(strings.Repeat("fine ", 100)+"\xed\xa0\x80")), wsframe.OpText, 1<<20)
	wantClose(t, conn, r, wsframe.CodeNotUTF8)
}

func wantClose(t *testing.T, conn net.Conn, r *bufio.Reader, want wsframe.Code) {
	t.Helper()

	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}

	for {
		h, payload, err := rawFrame(r)
		if err != nil {
			t.Fatalf("no close frame: %v", err)
		}

		if h.Op != wsframe.OpClose {
			continue
		}

		if code, reason, _ := wsframe.ParseClose(payload); code != want {
			t.Errorf("closed with %d (%s), want %d", code, reason, want)
		}

		return
	}
}

// TestRelayRefusesBrokenCompression sends what cannot be unpacked, what refers to what was not agreed to be kept,
// and what unpacks to more than may be.
func TestRelayRefusesBrokenCompression(t *testing.T) {
	t.Parallel()

	const name = "permessage-deflate"

	var text []byte
	for i := range 500 {
		text = fmt.Appendf(text, "%d squared is %d, ", i, i*i)
	}

	for label, tc := range map[string]struct {
		answer string
		send   func(t *testing.T, c net.Conn)
		code   wsframe.Code
	}{
		"garbage": {name, func(t *testing.T, c net.Conn) {
			t.Helper()
			sendPacked(t, c, []byte{0xff, 0xff, 0xff, 0xff}, wsframe.OpBinary, 99)
		}, wsframe.CodeNotUTF8},
		"half a block": {name, func(t *testing.T, c net.Conn) {
			t.Helper()

			p := newPacker(t, &deflateVariant{clientBits: 15})
			b := p.pack(t, text)
			sendPacked(t, c, b[:len(b)/2], wsframe.OpBinary, 99)
		}, wsframe.CodeNotUTF8},
		"a window that was given up": {name + "; client_no_context_takeover", func(t *testing.T, c net.Conn) {
			t.Helper()

			p := newPacker(t, &deflateVariant{clientBits: 15})
			sendPacked(t, c, p.pack(t, text), wsframe.OpText, 99)
			sendPacked(t, c, p.pack(t, text), wsframe.OpText, 99)
		}, wsframe.CodeNotUTF8},
		"a bomb": {name, func(t *testing.T, c net.Conn) {
			t.Helper()

			p := newPacker(t, &deflateVariant{clientBits: 15})
			sendPacked(t, c, p.pack(t, make([]byte, 80<<20)), wsframe.OpBinary, 1<<10)
		}, wsframe.CodeTooBig},
		"a compressed ping": {name, func(t *testing.T, c net.Conn) {
			t.Helper()
			sendPacked(t, c, []byte("x"), wsframe.OpPing, 99)
		}, wsframe.CodeProtocol},
		"compression that was not agreed": {"", func(t *testing.T, c net.Conn) {
			t.Helper()
			sendPacked(t, c, []byte("x"), wsframe.OpText, 99)
		}, wsframe.CodeProtocol},
	} {
		t.Run(label, func(t *testing.T) {
			t.Parallel()

			address := mirror(t, tc.answer)
			if tc.answer == "" {
				address = echoEngine(t)
			}

			k := withEngine(t, address)

			var lines []string
			if tc.answer != "" {
				lines = append(lines, "Sec-WebSocket-Extensions: "+name)
			}

			conn, r, _ := k.handshaken(t, "/", lines...)
			tc.send(t, conn)
			wantClose(t, conn, r, tc.code)
		})
	}
}
