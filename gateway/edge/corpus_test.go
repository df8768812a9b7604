package edge_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// corpusCase is one line of the corpus: raw bytes and what a strict edge must do with them.
type corpusCase struct {
	Name   string   `json:"name"`
	Cat    string   `json:"cat"`
	Raw    []byte   `json:"raw"`
	RawGz  []byte   `json:"raw_gz"`
	Steps  [][2]any `json:"steps"`
	Edge   string   `json:"edge"`
	Reqs   int      `json:"reqs"`
	Body   *string  `json:"body"`
	Forbid []string `json:"forbid"`
}

type step struct {
	after time.Duration
	bytes []byte
}

func (c *corpusCase) steps(t *testing.T) []step {
	t.Helper()

	if c.RawGz != nil {
		zr, err := gzip.NewReader(bytes.NewReader(c.RawGz))
		if err != nil {
			t.Fatal(err)
		}

		b, err := io.ReadAll(zr)
		if err != nil {
			t.Fatal(err)
		}

		return []step{{0, b}}
	}

	if c.Steps == nil {
		return []step{{0, c.Raw}}
	}

	var out []step

	for _, s := range c.Steps {
		ms, _ := s[0].(float64)
		text, _ := s[1].(string)

		b, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}

		out = append(out, step{time.Duration(ms) * time.Millisecond, b})
	}

	return out
}

func loadCorpus(t *testing.T) []*corpusCase {
	t.Helper()

	f, err := os.Open("testdata/http1_corpus.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()

	var out []*corpusCase

	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 64<<20)

	for lines.Scan() {
		c := &corpusCase{}
		if err := json.Unmarshal(lines.Bytes(), c); err != nil {
			t.Fatal(err)
		}

		out = append(out, c)
	}

	if lines.Err() != nil || len(out) < 200 {
		t.Fatalf("%d cases, %v", len(out), lines.Err())
	}

	return out
}

// collector reads a socket until it is closed.
type collector struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	last   time.Time
	closed bool
}

func (k *collector) run(c net.Conn) {
	b := make([]byte, 64<<10)

	for {
		n, err := c.Read(b)

		k.mu.Lock()
		k.buf.Write(b[:n])
		k.last = time.Now()
		k.closed = err != nil
		k.mu.Unlock()

		if err != nil {
			return
		}
	}
}

// settle waits until nothing more comes.
func (k *collector) settle(quiet, most time.Duration) (data []byte, closed bool) {
	begin := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)

	defer tick.Stop()

	for range tick.C {
		k.mu.Lock()
		waited := time.Since(begin)
		still := time.Since(k.last) > quiet && waited > quiet && (k.buf.Len() > 0 || waited > 2*time.Second)
		data, closed = bytes.Clone(k.buf.Bytes()), k.closed
		k.mu.Unlock()

		if closed || still || time.Since(begin) > most {
			break
		}
	}

	return data, closed
}

type answered struct {
	status int
	close  bool
	echo   *echoed
}

// answers parses what the server sent; interim answers are left out.
func answers(data []byte, first string) []answered {
	var out []answered

	br := bufio.NewReader(bytes.NewReader(data))

	for {
		if _, err := br.Peek(1); err != nil {
			return out
		}

		method := http.MethodGet
		if len(out) == 0 {
			method = first
		}

		res, err := http.ReadResponse(br, &http.Request{Method: method})
		if err != nil {
			return append(out, answered{status: -1})
		}

		if res.StatusCode == http.StatusContinue {
			continue
		}

		body, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		a := answered{status: res.StatusCode, close: res.Close}

		var e echoed
		if json.Unmarshal(body, &e) == nil && e.M != "" {
			a.echo = &e
		}

		out = append(out, a)
	}
}

// replay sends one case, then a canary on the same connection, and returns why the strict verdict is
// not met, "" if it is.
func replay(t *testing.T, addr string, c *corpusCase) string {
	t.Helper()

	const quiet = 200 * time.Millisecond

	conn, err := net.DialTimeout("tcp", addr, 2*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	k := &collector{last: time.Now()}
	go k.run(conn)

	first := http.MethodGet

	for i, s := range c.steps(t) {
		if s.after > 0 {
			<-time.After(s.after)
		}

		if i == 0 && bytes.HasPrefix(s.bytes, []byte("HEAD ")) {
			first = http.MethodHead
		}

		_ = conn.SetWriteDeadline(time.Now().Add(3 * time.Second))
		if _, err := conn.Write(s.bytes); err != nil {
			break
		}
	}

	data, closed := k.settle(quiet, 4*time.Second)
	got := answers(data, first)

	if closed {
		return verdict(c, got, closed)
	}

	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	if _, err := io.WriteString(conn, "GET /canary HTTP/1.1\r\nHost: example.test\r\nConnection: close\r\n\r\n"); err != nil {
		return verdict(c, got, closed)
	}

	all, _ := k.settle(quiet, 2*time.Second)

	later := answers(all, first)
	if n := len(later); n > len(got) && later[n-1].echo != nil && later[n-1].echo.URI != "/canary" {
		got = append(got, later[n-1])
	}

	return verdict(c, got, closed)
}

func verdict(c *corpusCase, got []answered, closed bool) string {
	served, bad, closing := 0, false, closed

	for _, a := range got {
		if a.status >= 200 && a.status < 400 {
			served++
		}

		bad = bad || a.status >= 400 || a.status < 0
		closing = closing || a.close

		if a.echo == nil {
			continue
		}

		for _, f := range c.Forbid {
			if strings.Contains(a.echo.URI, f) {
				return "a forbidden target was served: " + a.echo.URI
			}
		}
	}

	rejected := len(got) == 0 && closed || len(got) > 0 && (got[0].status >= 400 || got[0].status < 0)
	accepted := len(got) > 0 && !rejected && served <= c.Reqs

	if accepted && c.Body != nil && got[0].echo != nil {
		want, _ := base64.StdEncoding.DecodeString(*c.Body)
		if got[0].echo.Body != string(want) {
			return fmt.Sprintf("body %q, want %q", got[0].echo.Body, want)
		}
	}

	ok := false

	switch c.Edge {
	case "reject":
		ok = rejected && closing && served == 0
	case "accept":
		ok = accepted
	case "accept_close":
		ok = accepted && closing
	case "no_smuggle":
		ok = served <= c.Reqs || bad
	}

	if ok {
		return ""
	}

	return fmt.Sprintf("want %s, got %+v, closed %v", c.Edge, got, closed)
}

// TestCorpusMeetsTheStrictVerdict replays every case through the real listener settings.
func TestCorpusMeetsTheStrictVerdict(t *testing.T) {
	t.Parallel()

	cfg := testConfig()
	cfg.Limits.Body = 4 << 20
	r := start(t, cfg, &echo{})

	slots := make(chan struct{}, 16)

	t.Run("cases", func(t *testing.T) {
		t.Parallel()

		for _, c := range loadCorpus(t) {
			t.Run(c.Name, func(t *testing.T) {
				t.Parallel()

				slots <- struct{}{}
				defer func() { <-slots }()

				if why := replay(t, r.HTTPAddr(), c); why != "" {
					t.Error(why)
				}
			})
		}
	})
}
