package wire_test

import (
	"bufio"
	"bytes"
	"net/http"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
)

// FuzzHead holds that what the guard accepts, fasthttp and net/http accept too and parse the same way:
// method, target, host, every header field and the length of the body.
func FuzzHead(f *testing.F) {
	for _, s := range []string{
		request(get, host),
		request("POST /v1/infers/x?a=b HTTP/1.1", host, "Content-Length: 5", "X-Auth-Token: abc"),
		request(post, host, "Transfer-Encoding: chunked", "Trailer: X-Sum"),
		request("GET http://example.test/t HTTP/1.1", host),
		request("OPTIONS * HTTP/1.1", host),
		request("GET /t HTTP/1.0", "Connection: keep-alive"),
		request(get, "Host: [::1]:80", "Upgrade: websocket", "Connection: Upgrade"),
		request(get, host, "Cookie: a=b; c", "X:\t\xe9 ", "Pragma: no-cache", "Expect: 100-continue"),
		request(post, host, "Content-Length: 5", "Transfer-Encoding: chunked"),
		request(post, host, "X: y\r\n Transfer-Encoding: chunked"),
		get + "\nHost: a\n\n",
	} {
		f.Add([]byte(s))
	}

	lim := &wire.Limits{Line: 4096, Field: 4096, Head: 16384, Fields: 100}

	f.Fuzz(func(t *testing.T, raw []byte) {
		end := wire.End(raw, 0)
		if end < 0 {
			return
		}

		raw = raw[:end]

		var h wire.Head
		if h.Parse(raw, "http", lim) != nil {
			return
		}

		sameAsNetHTTP(t, raw, &h)
		sameAsFasthttp(t, raw, &h)
	})
}

func sameAsNetHTTP(t *testing.T, raw []byte, h *wire.Head) {
	t.Helper()

	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatalf("net/http refuses %q: %v", raw, err)
	}

	length := r.ContentLength
	if r.TransferEncoding != nil {
		length = wire.Chunked
	}

	if r.Method != string(h.Method) || r.RequestURI != string(h.Target) || length != h.Length ||
		!strings.EqualFold(r.Host, string(h.Host)) || r.ProtoAtLeast(1, 1) == h.HTTP10 {
		t.Fatalf("net/http reads %q as %s %s %s %d", raw, r.Method, r.RequestURI, r.Host, length)
	}

	want := map[string]int{}

	for i := range h.Count() {
		name, value := h.Field(i)
		key := http.CanonicalHeaderKey(string(name))

		switch key {
		case "Host", "Transfer-Encoding", "Trailer":
			continue
		}

		at := want[key]
		want[key]++

		if got := r.Header[key]; at >= len(got) || got[at] != string(value) {
			t.Fatalf("net/http reads field %q of %q as %q", name, raw, got)
		}
	}

	for key, got := range r.Header {
		// net/http adds Cache-Control for a client's Pragma.
		if len(got) != want[key] && key != "Cache-Control" && key != "Connection" && key != "Trailer" {
			t.Fatalf("net/http has %d of %s in %q, the guard %d", len(got), key, raw, want[key])
		}
	}
}

func sameAsFasthttp(t *testing.T, raw []byte, h *wire.Head) {
	t.Helper()

	var r fasthttp.RequestHeader
	if err := r.Read(bufio.NewReaderSize(bytes.NewReader(raw), len(raw)+16)); err != nil {
		t.Fatalf("fasthttp refuses %q: %v", raw, err)
	}

	var uri fasthttp.URI
	if err := uri.Parse(r.Host(), r.RequestURI()); err != nil {
		t.Fatalf("fasthttp refuses the target of %q: %v", raw, err)
	}

	length := int64(r.ContentLength())
	if length == -2 {
		length = wire.NoBody
	}

	// fasthttp has no length for a GET without a body and one for what the field says.
	if string(r.Method()) != string(h.Method) || string(r.RequestURI()) != string(h.Target) || length != h.Length ||
		h.Get("host") != nil && !strings.EqualFold(string(r.Host()), string(h.Host)) || r.IsHTTP11() == h.HTTP10 {
		t.Fatalf("fasthttp reads %q as %s %s %s %d", raw, r.Method(), r.RequestURI(), r.Host(), length)
	}

	if !bytes.Equal(r.RawHeaders(), raw[bytes.IndexByte(raw, '\n')+1:]) && h.Count() > 0 {
		t.Fatalf("fasthttp took %q of %q", r.RawHeaders(), raw)
	}

	seen := map[string]int{}

	for i := range h.Count() {
		name, value := h.Field(i)
		key := http.CanonicalHeaderKey(string(name))

		switch key {
		// Kept apart by fasthttp: framing and connection are compared above, cookies are split.
		case "Host", "Content-Length", "Transfer-Encoding", "Connection", "Cookie", "Trailer", "Content-Type", "User-Agent":
			continue
		}

		at := seen[key]
		seen[key]++

		if got := r.PeekAll(key); at >= len(got) || string(got[at]) != string(value) {
			t.Fatalf("fasthttp reads field %q of %q as %q", name, raw, got)
		}
	}
}
