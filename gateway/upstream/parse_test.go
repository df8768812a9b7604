package upstream

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// loop is a connection that gives raw bytes in pieces and then ends.
type loop struct {
	net.Conn

	rest  []byte
	piece int
}

func (l *loop) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		return 0, io.EOF
	}

	n := copy(p, l.rest[:min(l.piece, len(l.rest))])
	l.rest = l.rest[n:]

	return n, nil
}

func (*loop) SetReadDeadline(time.Time) error { return nil }

// read parses one answer; ok is false if it is refused.
func read(t *testing.T, raw []byte, piece int) (status int, body []byte, ok bool) {
	t.Helper()

	cl, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}

	x := newConn(&host{client: cl}, &loop{rest: raw, piece: piece}, nil)
	ctx, until := context.Background(), time.Now().Add(time.Minute)

	if _, err := x.readHead(ctx, until, false); err != nil {
		return 0, nil, false
	}

	if x.resp.length == chunkedLen {
		x.unchunk()
	}

	for b := (reader{length: x.resp.length}); ; {
		part, err := b.next(ctx, x, until)
		body = append(body, part...)

		if err == io.EOF { //nolint:errorlint // io.EOF itself is the proper end
			return x.resp.status, body, true
		}

		if err != nil {
			return 0, nil, false
		}
	}
}

// FuzzAnswer: what is accepted reads the same however it is cut into pieces, and as net/http reads it.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.0 404 Not Found\r\n\r\nuntil the end",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
	} {
		f.Add([]byte(seed), uint8(1))
		f.Add([]byte(seed), uint8(200))
	}

	f.Fuzz(func(t *testing.T, raw []byte, piece uint8) {
		status, body, ok := read(t, raw, int(piece)+1)

		status2, body2, ok2 := read(t, raw, len(raw)+1)
		if ok != ok2 || status != status2 || !bytes.Equal(body, body2) {
			t.Fatalf("in pieces of %d: %v %d %q, as a whole: %v %d %q", piece, ok, status, body, ok2, status2, body2)
		}

		if !ok {
			return
		}

		br := bufio.NewReader(bytes.NewReader(raw))

		res, err := http.ReadResponse(br, &http.Request{Method: http.MethodPost})
		for err == nil && res.StatusCode < 200 {
			res, err = http.ReadResponse(br, &http.Request{Method: http.MethodPost})
		}

		if err != nil {
			if strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "trailer") {
				return // net/http is stricter about bytes in values
			}

			t.Fatalf("accepted %d %q, net/http: %v", status, body, err)
		}
		defer res.Body.Close()

		got, err := io.ReadAll(res.Body)
		if res.StatusCode != status || err == nil && !bytes.Equal(got, body) {
			t.Fatalf("read %d %q, net/http %d %q %v", status, body, res.StatusCode, got, err)
		}
	})
}

func TestTraceparent(t *testing.T) {
	t.Parallel()

	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

	if !validTraceparent([]byte(good)) || !validTraceparent(appendTraceparent(nil)) {
		t.Error("a good one was refused")
	}

	for _, bad := range []string{
		"", good[:54], good + "0", "01" + good[2:], strings.ToUpper(good), strings.Replace(good, "-", "_", 1),
		"00-00000000000000000000000000000000-b7ad6b7169203331-01", "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
	} {
		if validTraceparent([]byte(bad)) {
			t.Errorf("%q accepted", bad)
		}
	}
}
