//go:build !race

package edge_test

import (
	"bytes"
	"io"
	"net"
	"testing"

	"github.com/sluice-gateway/sluice/gateway"
)

// predict is a small signed prediction and the answer to it.
var predict = []byte("POST /v1/infers/3b6a2d6e-4c1e-4c55-9d1e-0f6a3f6f2f10 HTTP/1.1\r\nHost: gw.example.test\r\n" +
	"User-Agent: bench\r\nContent-Type: application/json\r\nX-Auth-Token: 0123456789abcdef\r\nContent-Length: 16\r\n\r\n" +
	`{"data":[1,2,3]}`)

// corridor reads the body and answers like a served prediction.
func corridor(c *gateway.Call) {
	b, err := c.Body.Bytes(1 << 20)
	if err != nil || c.Header.Get("x-auth-token") == nil {
		gateway.WriteFault(c, err)

		return
	}

	c.Record.Outcome = gateway.Served
	c.Out.AddHeader("Content-Type", contentType)
	c.Out.AddHeader("X-Sluice-Model", b[:4])
	c.Out.Set(200, b)
}

var contentType = []byte("application/json")

// roundTrip sends one request and reads its answer without allocating.
func roundTrip(tb testing.TB, c net.Conn, buf []byte) {
	tb.Helper()

	if _, err := c.Write(predict); err != nil {
		tb.Fatal(err)
	}

	n := 0
	for !bytes.HasSuffix(buf[:n], predict[len(predict)-16:]) {
		m, err := c.Read(buf[n:])
		if err != nil && err != io.EOF { //nolint:errorlint // the raw connection
			tb.Fatal(err)
		}

		n += m
	}
}

func TestARequestDoesNotAllocateAtTheDoor(t *testing.T) { //nolint:paralleltest // counts allocations
	cfg := testConfig()
	cfg.Log.Off = true
	r := start(t, cfg, handlerFunc(corridor))
	c := r.dial(t)
	buf := make([]byte, 4096)

	// Client and server share the process: what is counted is both.
	if n := testing.AllocsPerRun(2000, func() { roundTrip(t, c, buf) }); n >= 1 {
		t.Errorf("%v allocations a request", n)
	}
}

func BenchmarkRequest(b *testing.B) {
	for name, low := range map[string]bool{"default": false, "lowmemory": true} {
		b.Run(name, func(b *testing.B) {
			cfg := testConfig()
			cfg.LowMemory = low
			cfg.Log.Off = true
			r := start(b, cfg, handlerFunc(corridor))
			c := r.dial(b)
			buf := make([]byte, 4096)

			b.ReportAllocs()

			for b.Loop() {
				roundTrip(b, c, buf)
			}
		})
	}
}
