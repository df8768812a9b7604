package system_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// whole asks on a connection of its own and reports the answer, and whether it came to a proper end.
func (s *sluice) whole(url, body string) (a answer, err error) {
	s.t.Helper()

	host, path, _ := strings.Cut(strings.TrimPrefix(url, "http://"), "/")

	c, err := net.DialTimeout("tcp", host, 5*time.Second)
	if err != nil {
		return a, err
	}
	defer c.Close()

	_ = c.SetDeadline(time.Now().Add(30 * time.Second))

	_, err = fmt.Fprintf(c, "POST /%s HTTP/1.1\r\nHost: %s\r\nX-Auth-Token: %s\r\nContent-Length: %d\r\n\r\n%s", path, host, s.token, len(body), body)
	if err != nil {
		return a, err
	}

	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: http.MethodPost})
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()

	data, err := io.ReadAll(resp.Body)

	return answer{Status: resp.StatusCode, Header: resp.Header, Body: data}, err
}

const ok200 = "HTTP/1.1 200 OK\r\n"

// badAnswers are what engines get wrong, and what the client is told.
//

var badAnswers = []struct {
	name, raw string
	status    int    // 0: the connection breaks, before or within the body
	text      string // in the body
}{
	{"closes without a word", "", 503, "ModelArts.4302"},
	{"resets", "\x00RESET\x00", 503, "ModelArts.4302"},
	{"says nothing", "\x00HANG\x00", 504, "Backend timeout"},
	{"no HTTP", "220 smtp.example ESMTP\r\n\r\n", 502, "Backend unavailable"},
	{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 502, "Backend unavailable"},
	{"another version", "HTTP/3.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 502, "Backend unavailable"},
	{"status of four digits", "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nhi", 502, "Backend unavailable"},
	{"status below 100", "HTTP/1.1 099 What\r\nContent-Length: 2\r\n\r\nhi", 502, "Backend unavailable"},
	{"status beyond 599", "HTTP/1.1 999 What\r\nContent-Length: 2\r\n\r\nhi", 502, "Backend unavailable"},
	{"half a status line", "HTTP/1.1 2", 503, "ModelArts.4302"},
	{"half a head", ok200 + "Content-Ty", 503, "ModelArts.4302"},
	{"half a head, then silence", ok200 + "Content-Ty\x00HANG\x00", 504, "Backend timeout"},
	{"head of 1 MB", ok200 + "X-Long: \x00FLOOD 1024\x00\r\n\r\n", 502, "Backend unavailable"},
	{"endless interim answers", strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 50) + ok200 + "Content-Length: 2\r\n\r\nhi", 502, "Backend unavailable"},
	{"switches protocols unasked", "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 502, "Backend unavailable"},
	{"two lengths", ok200 + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nhi!", 502, "Backend unavailable"},
	{"negative length", ok200 + "Content-Length: -1\r\n\r\nhi", 502, "Backend unavailable"},
	{"length and chunks", ok200 + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 502, "Backend unavailable"},
	{"unknown coding", ok200 + "Transfer-Encoding: gzip\r\n\r\nxx", 502, "Backend unavailable"},
	{"header smuggling", ok200 + "X: a\r\n\tfolded: b\r\nContent-Length: 2\r\n\r\nhi", 502, "Backend unavailable"},
	{"less than its length", ok200 + "Content-Length: 100\r\n\r\nonly this", 503, "ModelArts.4302"},
	{"less than its length, then silence", ok200 + "Content-Length: 100\r\n\r\nonly this\x00HANG\x00", 504, "Backend timeout"},
	{"more than its length", ok200 + "Content-Length: 5\r\n\r\nhello and more", 200, "hello"},
	{"less than its huge length", ok200 + "Content-Length: 90000000\r\n\r\n\x00FLOOD 100\x00", 0, ""},
	{"dies between chunks", ok200 + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n\x00PAUSE 50\x00", 0, ""},
	{"dies within a chunk", ok200 + "Transfer-Encoding: chunked\r\n\r\n50\r\nhello\x00RESET\x00", 0, ""},
	{"wrong chunk size", ok200 + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n\r\n", 0, ""},
	{"chunk longer than it says", ok200 + "Transfer-Encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n", 0, ""},
	{"negative chunk", ok200 + "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", 0, ""},
	{"overflowing chunk", ok200 + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nhello\r\n0\r\n\r\n", 0, ""},
	{"chunks without CR", ok200 + "Transfer-Encoding: chunked\r\n\r\n5\nhello\n0\n\n", 0, ""},
	{"events that break off", ok200 + "Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n9\r\ndata: 1\n\n\r\n\x00PAUSE 50\x00", 0, ""},
	{"events of unknown length", ok200 + "Content-Type: text/event-stream\r\n\r\ndata: 1\n\n", 200, "data: 1"},
	{"drips its head", "H\x00PAUSE 300\x00TTP/1.1 200 OK\r\n\x00PAUSE 300\x00X: 1\r\n\x00PAUSE 2000\x00Content-Length: 2\r\n\r\nhi", 504, "Backend timeout"},
	{"drips its body", ok200 + "Content-Length: 4\r\n\r\na\x00PAUSE 700\x00b\x00PAUSE 700\x00c\x00PAUSE 700\x00d", 504, "Backend timeout"},
	{"a slow but honest body", ok200 + "Content-Length: 4\r\n\r\na\x00PAUSE 100\x00b\x00PAUSE 100\x00c\x00PAUSE 100\x00d", 200, "abcd"},
	{"forged headers", ok200 + "X-Sluice-Instance: me\r\nX-Request-Id: mine\r\nContent-Length: 2\r\n\r\nhi", 200, "hi"},
}

// TestBadEngines lets engines lie in every way, while a good service of the same gateway is used.
func TestBadEngines(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	bad, _ := s.engine("bad", 1, nil, map[string]any{"limits": map[string]any{"timeout_seconds": 1.5, "stream_idle_seconds": 1.5}})
	good, _ := s.engine("good", 1, nil, nil)

	var (
		stop   atomic.Bool
		served atomic.Int64
		wg     sync.WaitGroup
	)

	wg.Go(func() {
		for !stop.Load() {
			if a, err := s.try("POST", good+"/echo", "hello"); err != nil || a.Status != 200 || string(a.Body) != "hello" {
				t.Errorf("the good service: %v, %d %s", err, a.Status, a.Body)
			}

			served.Add(1)
		}
	})

	for _, tc := range badAnswers {
		// A good answer in between keeps breaker and ejection out of it: they have a test of their own.
		s.eventually(10*time.Second, "good answer before "+tc.name, func() bool {
			a, err := s.try("POST", bad+"/echo", "x")

			return err == nil && a.Status == 200
		})

		a, err := s.whole(bad+"/raw", tc.raw)

		switch {
		case tc.status == 0:
			if err == nil && a.Status < 500 {
				t.Errorf("%s: looks complete: %d %d bytes", tc.name, a.Status, len(a.Body))
			}
		case err != nil:
			t.Errorf("%s: %v after %d bytes", tc.name, err, len(a.Body))
		case a.Status != tc.status || !strings.Contains(string(a.Body), tc.text):
			t.Errorf("%s: %d %.200s, want %d %s", tc.name, a.Status, a.Body, tc.status, tc.text)
		case a.Header.Get("X-Request-Id") == "" || a.Header.Get("X-Request-Id") == "mine" || a.Header.Get("X-Sluice-Instance") == "me":
			t.Errorf("%s: headers %v", tc.name, a.Header)
		}
	}

	stop.Store(true)
	wg.Wait()

	if served.Load() < 100 && !raceEnabled {
		t.Errorf("the good service answered %d times", served.Load())
	}
}

// TestBadInstanceIsTakenOut breaks one of two instances: callers soon see only the other.
func TestBadInstanceIsTakenOut(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	// Two external addresses: one serves, one breaks off. Nothing probes them, so that only the requests tell.
	good := listenRaw(t, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood")
	broken := listenRaw(t, "HTTP/1.1 200 OK\r\nContent-Le")

	id := s.external("halves", map[string]any{"endpoints": []any{
		map[string]any{"url": "http://" + good}, map[string]any{"url": "http://" + broken},
	}}, map[string]any{"load_balancer_policy": "ROUND_ROBIN"})

	url := s.Edge + "/v1/infers/" + id
	failed := 0

	for range 100 {
		if a := s.call("POST", url, "x"); a.Status != 200 {
			failed++
		}
	}

	if failed == 0 || failed > 15 {
		t.Errorf("%d of 100 requests met the broken instance; want some, and few", failed)
	}

	// The picker may avoid a slow or failing instance before its fifth failure in a row takes it out.
	const ejectedAfter = 5

	metrics := string(s.call("GET", s.Ops+"/metrics", nil).Body)
	if failed > ejectedAfter && !strings.Contains(metrics, "eject") && !strings.Contains(metrics, "breaker") {
		t.Error("no metric tells that the instance was taken out")
	}
}

// listenRaw answers every request with the same bytes and closes.
func listenRaw(t testing.TB, raw string) string {
	t.Helper()

	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { ln.Close() })

	go func() {
		for {
			c, err := ln.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}

			if err != nil {
				continue
			}

			go func() {
				defer c.Close()

				r, err := http.ReadRequest(bufio.NewReader(c))
				if err != nil {
					return
				}

				io.Copy(io.Discard, r.Body)
				io.WriteString(c, raw)
			}()
		}
	}()

	return ln.Addr().String()
}
