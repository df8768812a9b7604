package system_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// open sends a request and returns the answer with its body unread.
func (s *sluice) open(ctx context.Context, method, url string, body io.Reader, header ...string) *http.Response {
	s.t.Helper()

	req, err := http.NewRequestWithContext(ctx, method, url, body)
	if err != nil {
		s.t.Fatal(err)
	}

	req.Header.Set("X-Auth-Token", s.token)

	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}

	// Its own connection, and no time-out of the client as a whole.
	tr := client.Transport.(*http.Transport).Clone()
	s.t.Cleanup(tr.CloseIdleConnections)

	resp, err := (&http.Client{Transport: tr}).Do(req)
	if err != nil {
		s.t.Fatalf("%s %s: %v\n%s", method, url, err, s.log.tail())
	}

	s.t.Cleanup(func() { resp.Body.Close() })

	return resp
}

// TestStreams runs the streaming sample.
func TestStreams(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	url, _ := s.custom("stream", engineDir(t, "docs/examples/engines/stream", nil), 1, map[string]any{
		// A stream may last longer than a request: the time-out is for the first byte.
		"limits": map[string]any{"timeout_seconds": 1, "body_bytes": 200 << 20},
	})
	tls := strings.Replace(url, s.Edge, s.EdgeTLS, 1)

	t.Run("events arrive one by one", func(t *testing.T) { s.eventsArrive(t, url) })
	t.Run("events over HTTPS", func(t *testing.T) { s.eventsArrive(t, tls) })
	t.Run("chunks", func(t *testing.T) { s.chunksArrive(t, url) })
	t.Run("uploads", func(t *testing.T) { s.uploads(t, url) })
}

func (s *sluice) eventsArrive(t *testing.T, url string) {
	t.Helper()

	// Ten events, 150 ms apart: 1.5 s, beyond the time-out of the service.
	resp := s.open(t.Context(), "GET", url+"/events?n=10&pause_ms=150", nil, "Accept-Encoding", "gzip")
	if resp.StatusCode != http.StatusOK || resp.Header.Get("Content-Type") != "text/event-stream" || resp.Header.Get("Content-Encoding") != "" ||
		resp.Header.Get("X-Sluice-Instance") == "" || resp.Header.Get("X-Request-Id") == "" {
		t.Fatalf("%d %v", resp.StatusCode, resp.Header)
	}

	var slowest time.Duration

	n := 0

	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		var event struct {
			Token int
			At    int64
		}

		data, ok := strings.CutPrefix(sc.Text(), "data: ")
		if !ok || data == "{}" {
			continue
		}

		if err := json.Unmarshal([]byte(data), &event); err != nil || event.Token != n {
			t.Fatalf("event %d: %s %v", n, data, err)
		}

		slowest = max(slowest, time.Since(time.Unix(0, event.At)))
		n++
	}

	// An event waits for no other: that would be 150 ms. A busy machine may take a while.
	if n != 10 || slowest > 140*time.Millisecond && !raceEnabled {
		t.Errorf("%d events, the slowest %v under way", n, slowest)
	}
}

func (s *sluice) chunksArrive(t *testing.T, url string) {
	t.Helper()

	resp := s.open(t.Context(), "POST", url+"/generate", strings.NewReader(`{"prompt":"one two three four","pause_ms":400}`))
	if resp.StatusCode != http.StatusOK || resp.ContentLength != -1 {
		t.Fatalf("%d, length %d", resp.StatusCode, resp.ContentLength)
	}

	began := time.Now()

	var got []string

	for sc := bufio.NewScanner(resp.Body); sc.Scan(); {
		if at := time.Since(began); len(got) < 3 && at > time.Duration(len(got)+1)*400*time.Millisecond {
			t.Errorf("word %d came after %v", len(got), at)
		}

		got = append(got, sc.Text())
	}

	if strings.Join(got, " ") != "one two three four" {
		t.Errorf("got %q", got)
	}
}

// uploads sends far more than the gateway may hold.
func (s *sluice) uploads(t *testing.T, url string) {
	t.Helper()

	const size = 150 << 20

	before := s.rss()
	peak := before
	piece := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	sent := 0

	body := readerFunc(func(p []byte) (int, error) {
		if sent >= size {
			return 0, io.EOF
		}

		if sent%(16<<20) == 0 {
			peak = max(peak, s.rss())
		}

		n := copy(p, piece[:min(len(piece), size-sent)])
		sent += n

		return n, nil
	})

	for _, chunked := range []bool{true, false} {
		sent = 0

		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/upload", body)
		if err != nil {
			t.Fatal(err)
		}

		if !chunked {
			req.ContentLength = size
		}

		req.Header.Set("X-Auth-Token", s.token)

		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}

		got, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()

		if resp.StatusCode != http.StatusOK || string(got) != fmt.Sprintf(`{"bytes":%d}`, size) {
			t.Errorf("chunked %v: %d %s", chunked, resp.StatusCode, got)
		}
	}

	if grown := (peak - before) >> 20; grown > 48 {
		t.Errorf("the gateway grew by %d MiB while %d MiB passed through", grown, size>>20)
	}

	// Over the limit of the service.
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, url+"/upload", readerFunc(func(p []byte) (int, error) { return len(p), nil }))
	req.ContentLength = 201 << 20
	req.Header.Set("X-Auth-Token", s.token)
	req.Header.Set("Expect", "100-continue")

	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()

	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("over the limit: %d", resp.StatusCode)
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// rss is the resident memory of the sluice process, in bytes.
func (s *sluice) rss() int64 {
	s.t.Helper()

	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		s.t.Fatal(err)
	}

	pages, err := strconv.ParseInt(strings.Fields(string(data))[1], 10, 64)
	if err != nil {
		s.t.Fatal(err)
	}

	return pages * int64(os.Getpagesize())
}

// TestClientGoneCancelsTheEngine measures how long an engine works for nobody.
func TestClientGoneCancelsTheEngine(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	url, _ := s.engine("gone", 1, nil, nil)

	state := func() (waiting, endedAt int64) {
		m := s.call("GET", url+"/gone", nil).json(t)

		return int64(m["waiting"].(float64)), int64(m["ended_at"].(float64))
	}

	for _, path := range []string{"/hang", "/hang?head=1"} {
		for _, base := range []string{s.Edge, s.EdgeTLS} {
			ctx, leave := context.WithCancel(t.Context())
			done := make(chan struct{})

			go func() {
				defer close(done)

				req, _ := http.NewRequestWithContext(ctx, http.MethodPost, strings.Replace(url, s.Edge, base, 1)+path, strings.NewReader("x"))
				req.Header.Set("X-Auth-Token", s.token)

				if resp, err := client.Do(req); err == nil {
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			}()

			s.eventually(5*time.Second, "request at the engine", func() bool { n, _ := state(); return n == 1 })

			left := time.Now()

			leave()
			<-done
			s.eventually(5*time.Second, "cancelled request", func() bool { n, _ := state(); return n == 0 })

			_, at := state()
			if took := time.Unix(0, at).Sub(left); took > 250*time.Millisecond && !raceEnabled {
				t.Errorf("%s over %s: the engine heard of it after %v", path, base, took)
			}
		}
	}
}

// TestSilentStreamEnds holds the idle time-out of streams, which services may set.
func TestSilentStreamEnds(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	url, _ := s.engine("silent", 1, nil, map[string]any{"limits": map[string]any{"stream_idle_seconds": 0.5}})

	began := time.Now()
	resp := s.open(t.Context(), "POST", url+"/hang?head=1", strings.NewReader("x"))

	got, err := io.ReadAll(resp.Body)
	if took := time.Since(began); err == nil || string(got) != "data: 1\n\n" || took > 10*time.Second {
		t.Errorf("%q, %v after %v", got, err, took)
	}

	metrics := string(s.call("GET", s.Ops+"/metrics", nil).Body)
	if !strings.Contains(metrics, "first_byte") {
		t.Error("no metric tells the time to the first byte")
	}
}
