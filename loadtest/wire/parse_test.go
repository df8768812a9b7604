package wire

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// outcome is what a reader of answers sees.
type outcome struct {
	Status int
	Bytes  int64
	Close  bool
	Body   string
	Rest   int // bytes behind the answer
	Done   bool
	Err    error
}

// readIn feeds text in pieces of a size.
func readIn(text string, size int) outcome {
	var (
		p parser
		o outcome
		b bytes.Buffer
	)

	p.onBody = func(piece []byte) { b.Write(piece) }

	for at := 0; at < len(text); {
		piece := []byte(text[at:min(at+size, len(text))])
		n, done, err := p.feed(piece)
		at += n

		// Whatever the parser wants to keep it must have copied.
		for i := range piece {
			piece[i] = 'x'
		}

		o.Done, o.Err = done, err
		if done || err != nil {
			o.Rest = len(text) - at

			break
		}
	}

	o.Status, o.Bytes, o.Close, o.Body = p.status, p.bytes, p.close, b.String()

	return o
}

func TestAnswersAreReadInPiecesOfAnySize(t *testing.T) {
	t.Parallel()

	long := strings.Repeat("0123456789", 1000)

	for name, tc := range map[string]struct {
		text string
		want outcome
	}{
		"length":      {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", outcome{Status: 200, Bytes: 5, Body: "hello", Done: true}},
		"length zero": {"HTTP/1.1 200 OK\r\ncontent-length:0\r\n\r\n", outcome{Status: 200, Done: true}},
		"long":        {"HTTP/1.1 404 Nope\r\nContent-Length: 10000\r\n\r\n" + long, outcome{Status: 404, Bytes: 10000, Body: long, Done: true}},
		"no content":  {"HTTP/1.1 204 No Content\r\n\r\n", outcome{Status: 204, Done: true}},
		"no reason":   {"HTTP/1.1 200 \r\nContent-Length: 1\r\n\r\nx", outcome{Status: 200, Bytes: 1, Body: "x", Done: true}},
		"interim": {
			"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
			outcome{Status: 200, Bytes: 2, Body: "ok", Done: true},
		},
		"chunked": {
			"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1A;x=y\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: x\r\n\r\n",
			outcome{Status: 200, Bytes: 31, Body: "helloabcdefghijklmnopqrstuvwxyz", Done: true},
		},
		"closes":       {"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx", outcome{Status: 200, Bytes: 1, Body: "x", Close: true, Done: true}},
		"old":          {"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", outcome{Status: 200, Bytes: 1, Body: "x", Close: true, Done: true}},
		"old and kept": {"HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 1\r\n\r\nx", outcome{Status: 200, Bytes: 1, Body: "x", Done: true}},
		"until close":  {"HTTP/1.1 200 OK\r\n\r\nall the rest", outcome{Status: 200, Bytes: 12, Body: "all the rest", Close: true}},
		"more behind":  {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxHTTP", outcome{Status: 200, Bytes: 1, Body: "x", Done: true, Rest: 4}},
		"half":         {"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", outcome{Status: 200, Bytes: 4, Body: "half"}},
		"not HTTP":     {"SSH-2.0-OpenSSH_9.2p1 Debian\r\n\r\n", outcome{Err: ErrMalformed}},
		"bad status":   {"HTTP/1.1 2x0 OK\r\n\r\n", outcome{Status: 2, Err: ErrMalformed}},
		"bad length":   {"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", outcome{Status: 200, Err: ErrMalformed}},
		"huge length":  {"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999999\r\n\r\n", outcome{Status: 200, Err: ErrMalformed}},
		"bad field":    {"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", outcome{Status: 200, Err: ErrMalformed}},
		"bad chunk":    {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", outcome{Status: 200, Err: ErrMalformed}},
		"long chunk":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhello\r\n", outcome{Status: 200, Bytes: 2, Body: "he", Err: ErrMalformed}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			for _, size := range []int{1, 2, 3, 7, 16, 61, 1 << 20} {
				got := readIn(tc.text, size)
				if got.Err != nil {
					got.Rest, got.Close = 0, tc.want.Close // how much a wrong answer leaves is of no interest
				}

				if !errors.Is(got.Err, tc.want.Err) {
					t.Fatalf("pieces of %d: error %v, want %v", size, got.Err, tc.want.Err)
				}

				got.Err, tc.want.Err = nil, nil
				if got != tc.want {
					t.Errorf("pieces of %d: %+v, want %+v", size, got, tc.want)
				}

				tc.want.Err = readIn(tc.text, 1<<20).Err
			}
		})
	}
}

func TestHeadsAreBounded(t *testing.T) {
	t.Parallel()

	text := "HTTP/1.1 200 OK\r\n" + strings.Repeat("X-Filler: "+strings.Repeat("y", 90)+"\r\n", 1000)
	if got := readIn(text, 1000); !errors.Is(got.Err, ErrTooLong) {
		t.Errorf("%+v", got)
	}
}

func TestParserCanBeUsedAgain(t *testing.T) {
	t.Parallel()

	var p parser

	for i := range 3 {
		body := strings.Repeat("e", i+1)
		n, done, err := p.feed(fmt.Appendf(nil, "HTTP/1.1 50%d X\r\nContent-Length: %d\r\n\r\n%s", i, i+1, body))

		if !done || err != nil || p.status != 500+i || p.bytes != int64(i+1) || string(p.body) != body {
			t.Errorf("%d: %v %v %v status %d, %d bytes, body %q", i, n, done, err, p.status, p.bytes, p.body)
		}

		p.reset()
	}
}

func FuzzParserDoesNotDependOnPieces(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 3)
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 1)
	f.Add("HTTP/1.0 500 X\r\n\r\nuntil close", 2)
	f.Fuzz(func(t *testing.T, text string, size int) {
		whole := readIn(text, 1<<20)
		if got := readIn(text, max(size&1023, 1)); (got.Err == nil) != (whole.Err == nil) || (whole.Err == nil && got != whole) {
			t.Errorf("pieces of %d: %+v, as a whole: %+v", size, got, whole)
		}
	})
}

func TestEventsOfAStream(t *testing.T) {
	t.Parallel()

	text := ": hello\n\ndata: a\n\nevent: x\ndata: b\ndata: c\n\n\r\ndata: d\r\n\r\ndata: " + strings.Repeat("z", 500) + "\n\nid: 4\n\ndata: [DONE]\n\n"

	for _, size := range []int{1, 2, 5, 1000} {
		now, gaps := int64(0), int64(0)
		e := &events{now: func() int64 { now++; return now }, onGap: func(_, ns int64) { gaps += ns }}

		for at := 0; at < len(text); at += size {
			e.feed([]byte(text[at:min(at+size, len(text))]))
		}

		if e.count != 4 || gaps != 3 || e.first != 1 || e.last != 4 || e.failed {
			t.Errorf("pieces of %d: %+v, gaps %d", size, e, gaps)
		}
	}

	for _, text := range []string{"event: error\ndata: x\n\n", "data: {\"error\":\"no\"}\n\n"} {
		e := &events{now: func() int64 { return 1 }, onGap: func(_, _ int64) {}}
		if e.feed([]byte(text)); !e.failed {
			t.Errorf("%q is no error", text)
		}
	}
}
