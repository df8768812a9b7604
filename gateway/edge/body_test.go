package edge_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
)

const hostLine = "Host: a.test\r\n"

// chunked frames body in chunks of size.
func chunked(body string, size int) string {
	var b strings.Builder

	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}

	return b.String() + "0\r\n\r\n"
}

// TestBodiesArriveWhole reads bodies of many sizes, framed both ways, by both methods, and checks
// that the next request on the connection starts where it should.
func TestBodiesArriveWhole(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Limits.Body = 8 << 20

	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		var (
			b   []byte
			err error
		)

		if string(c.Path) == "/stream" {
			b, err = io.ReadAll(c.Body.Stream(8 << 20))
		} else {
			b, err = c.Body.Bytes(8 << 20)
			if again, err2 := c.Body.Bytes(8 << 20); !bytes.Equal(b, again) || !errors.Is(err, err2) {
				t.Error("a second Bytes gave something else")
			}
		}

		if err != nil {
			gateway.WriteFault(c, err)

			return
		}

		c.Out.Set(200, b)
	}))

	c := r.dial(t)
	br := bufio.NewReader(c)

	for _, path := range []string{"/bytes", "/stream"} {
		for _, size := range []int{0, 1, 4000, 8000, 8192, 9000, 70_000, 3 << 20} {
			body := strings.Repeat("0123456789abcdef", size/16+1)[:size]

			for name, message := range map[string]string{
				"length":       fmt.Sprintf("Content-Length: %d\r\n\r\n%s", size, body),
				"one chunk":    "Transfer-Encoding: chunked\r\n\r\n" + chunked(body, size+1),
				"small chunks": "Transfer-Encoding: chunked\r\n\r\n" + chunked(body, 1000),
			} {
				head := "POST " + path + " HTTP/1.1\r\n" + hostLine
				if _, err := io.WriteString(c, head+message+head+"Content-Length: 4\r\n\r\nnext"); err != nil {
					t.Fatal(err)
				}

				for _, want := range []string{body, "next"} {
					if res := readReply(t, br); res.body != want || res.status != http.StatusOK {
						t.Fatalf("%s %s of %d: %d, %d bytes, want %d", path, name, size, res.status, len(res.body), len(want))
					}
				}
			}
		}
	}
}

func TestBodyLimitIsEnforcedBeforeAndWhileReading(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Limits.Body, cfg.Limits.BodyMost = 40_000, 100_000

	var read atomic.Int64

	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		limit := int64(50_000)

		switch string(c.Path) {
		case "/high":
			limit = 1 << 40
		case "/none":
			limit = 0
		}

		n, err := io.Copy(io.Discard, c.Body.Stream(limit))
		read.Store(n)

		if err != nil {
			gateway.WriteFault(c, err)

			return
		}

		c.Out.Set(200, nil)
	}))

	for _, tc := range []struct {
		name, raw string
		status    int
		most      int64
	}{
		{"announced at the limit", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 50000\r\n\r\n" + strings.Repeat("x", 50_000), 200, 50_000},
		{"announced over the limit, nothing sent", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 50001\r\n\r\n", 413, 0},
		{"announced far over", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 999999999999999999\r\n\r\n", 413, 0},
		{"over the default", "POST /none HTTP/1.1\r\n" + hostLine + "Content-Length: 40001\r\n\r\n", 413, 0},
		{"above the default", "POST /high HTTP/1.1\r\n" + hostLine + "Content-Length: 50001\r\n\r\n" + strings.Repeat("x", 50_001), 200, 50_001},
		{"over the edge's own limit", "POST /high HTTP/1.1\r\n" + hostLine + "Content-Length: 100001\r\n\r\n", 413, 0},
		{"chunks at the limit", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n" + chunked(strings.Repeat("x", 50_000), 999), 200, 50_000},
		{"chunks over the limit", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n" + chunked(strings.Repeat("x", 90_000), 999), 413, 51_000},
		{"one large chunk", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n3fffffffffffffff\r\n" + strings.Repeat("x", 90_000), 413, 60_000},
	} {
		c := r.dial(t)

		res := ask(t, c, bufio.NewReader(c), tc.raw)
		if res.status != tc.status || res.close != (tc.status != 200) || read.Load() > tc.most ||
			tc.status == 413 && !strings.Contains(res.body, "ModelArts.4104") {
			t.Errorf("%s: %+v, read %d", tc.name, res, read.Load())
		}
	}
}

func TestUnwantedBodyDoesNotHoldUpTheAnswer(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), handlerFunc(func(c *gateway.Call) {
		c.Record.Outcome = gateway.RejectedAuth
		gateway.WriteFault(c, fault.New(fault.TokenInvalid, ""))
	}))

	for _, tc := range []struct {
		name, head, body string
		keeps            bool
	}{
		{"small, sent", "Content-Length: 1000\r\n", strings.Repeat("x", 1000), true},
		{"small, sent later", "Content-Length: 60000\r\n", "", true},
		{"large", "Content-Length: 9000000\r\n", "", false},
		{"chunked", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n", false},
		{"waits for 100", "Content-Length: 10\r\nExpect: 100-continue\r\n", "", false},
	} {
		c := r.dial(t)
		br := bufio.NewReader(c)

		res := ask(t, c, br, "POST / HTTP/1.1\r\n"+hostLine+tc.head+"\r\n"+tc.body)
		if res.status != http.StatusUnauthorized || res.close == tc.keeps {
			t.Errorf("%s: %+v", tc.name, res)
		}

		if !tc.keeps {
			continue
		}

		rest := ""
		if tc.body == "" {
			rest = strings.Repeat("x", 60_000)
		}

		res = ask(t, c, br, rest+"GET / HTTP/1.1\r\n"+hostLine+"Connection: close\r\n\r\n")
		if res.status != http.StatusUnauthorized {
			t.Errorf("%s: the next request: %+v", tc.name, res)
		}
	}
}

func TestContinueIsSentWhenTheBodyIsWanted(t *testing.T) {
	t.Parallel()

	r := start(t, testConfig(), &echo{})

	for _, framing := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		c := r.dial(t)
		br := bufio.NewReader(c)

		if _, err := io.WriteString(c, "POST / HTTP/1.1\r\n"+hostLine+"Expect: 100-continue\r\n"+framing+"\r\n\r\n"); err != nil {
			t.Fatal(err)
		}

		if line, err := br.ReadString('\n'); err != nil || line != "HTTP/1.1 100 Continue\r\n" {
			t.Fatalf("%q, %v", line, err)
		}

		_, _ = br.ReadString('\n')

		body := "hello"
		if strings.HasPrefix(framing, "T") {
			body = chunked(body, 5)
		}

		if res := ask(t, c, br, body); res.status != http.StatusOK || !strings.Contains(res.body, `"body":"hello"`) {
			t.Errorf("%+v", res)
		}
	}
}

func TestSlowAndStalledClientsAreCut(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Timeouts.Header, cfg.Timeouts.Body, cfg.Timeouts.Idle = ms(300), ms(300), ms(300)
	cfg.Timeouts.Linger = ms(100)
	cfg.Timeouts.MinBodyRate = 1 << 20
	r := start(t, cfg, &echo{})

	for _, tc := range []struct {
		name, first, drip string
		status            string
	}{
		{"says nothing", "", "", ""},
		{"stalls in the request line", "GET /", "", "HTTP/1.1 408"},
		{"drips the request line", "GET /", "a", "HTTP/1.1 408"},
		{"drips headers", "GET / HTTP/1.1\r\n", "X: y\r\n", "HTTP/1.1 408"},
		{"drips blank lines", "", "\r\n", "HTTP/1.1 400"},
		{"drips one header", "GET / HTTP/1.1\r\nX: ", "y", "HTTP/1.1 408"},
		{"stalls before the body", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 9\r\n\r\n", "", "HTTP/1.1 408"},
		{"drips the body", "POST / HTTP/1.1\r\n" + hostLine + "Content-Length: 90000\r\n\r\n", "x", "HTTP/1.1 408"},
		{"drips chunks", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n", "1\r\nx\r\n", "HTTP/1.1 408"},
		{"drips an extension", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n1;", "a", "HTTP/1.1 408"},
		{"drips trailers", "POST / HTTP/1.1\r\n" + hostLine + "Transfer-Encoding: chunked\r\n\r\n0\r\n", "X: y\r\n", "HTTP/1.1 408"},
		{"idles after a request", "GET / HTTP/1.1\r\n" + hostLine + "\r\n", "", "HTTP/1.1 200"},
		{"drips the second request", "GET / HTTP/1.1\r\n" + hostLine + "\r\nG", "E", "HTTP/1.1 200"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			c := r.dial(t)
			begin := time.Now()

			if _, err := io.WriteString(c, tc.first); err != nil {
				t.Fatal(err)
			}

			stop := make(chan struct{})
			defer close(stop)

			go func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()

				for tc.drip != "" {
					select {
					case <-stop:
						return
					case <-tick.C:
						if _, err := io.WriteString(c, tc.drip); err != nil {
							return
						}
					}
				}
			}()

			got, err := io.ReadAll(c)
			if took := time.Since(begin); isTimeout(err) || took > 8*time.Second {
				t.Fatalf("not cut after %v: %v", took, err)
			}

			if tc.status == "" && len(got) > 0 || !strings.HasPrefix(string(got), tc.status) {
				t.Errorf("got %.80q", got)
			}
		})
	}
}

func TestASlowReaderIsCut(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Timeouts.Write = ms(200)
	cfg.Timeouts.MinWriteRate = 1 << 40

	large := make([]byte, 32<<20)
	ended := make(chan error, 2)

	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		if string(c.Path) == "/stream" {
			c.Out.Stream(200, func() ([]byte, error) { return large, nil }, func(err error) { ended <- err })

			return
		}

		c.Out.Set(200, large)
	}))

	for _, path := range []string{"/set", "/stream"} {
		c := r.dial(t)
		if _, err := io.WriteString(c, "GET "+path+" HTTP/1.1\r\n"+hostLine+"\r\n"); err != nil {
			t.Fatal(err)
		}
	}

	if err := <-ended; err == nil {
		t.Error("the stream ended well")
	}

	eventually(t, "connections are gone", func() bool { return r.Connections() == 0 })
}

// TestBodyMemoryIsGivenBack posts large bodies over connections that then stay open, and looks
// at what the process holds.
func TestBodyMemoryIsGivenBack(t *testing.T) { //nolint:paralleltest // measures the whole process
	const (
		connections = 24
		size        = 4 << 20
		most        = 16 << 20
	)

	cfg := testConfig()
	cfg.Limits.Body = size
	cfg.Timeouts.ParkAfter = ms(50)

	r := start(t, cfg, handlerFunc(func(c *gateway.Call) {
		b, err := c.Body.Bytes(size)
		if err != nil || len(b) != size {
			t.Errorf("%d bytes, %v", len(b), err)
		}

		c.Out.Set(200, nil)
	}))

	heap := func() int64 {
		runtime.GC()
		runtime.GC() // what a pool holds goes with the second one

		var m runtime.MemStats

		runtime.ReadMemStats(&m)

		return int64(m.HeapAlloc)
	}

	request := "POST /t HTTP/1.1\r\nHost: a\r\nContent-Length: " + strconv.Itoa(size) + "\r\n\r\n" + strings.Repeat("x", size)
	before := heap()

	for range connections {
		c := r.dial(t)
		if reply := ask(t, c, bufio.NewReader(c), request); reply.status != 200 {
			t.Fatalf("got %d", reply.status)
		}
	}

	eventually(t, "the memory of bodies to be given back", func() bool { return heap()-before < most })
}
