package upstream_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
)

// script is a server that reads one request and then does what play says with the connection.
// It counts connections and requests.
type script struct {
	addr     string
	conns    atomic.Int64
	closed   atomic.Int64
	requests atomic.Int64
}

func startScript(t *testing.T, play func(n int64, c net.Conn, r *http.Request) (goOn bool)) *script {
	t.Helper()

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}

	s := &script{addr: l.Addr().String()}

	var wg sync.WaitGroup

	stop, cancel := context.WithCancel(context.Background())

	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}

			s.conns.Add(1)
			wg.Go(func() {
				defer s.closed.Add(1)
				defer c.Close()
				defer context.AfterFunc(stop, func() { _ = c.Close() })()

				for br := bufio.NewReader(c); ; {
					r, err := http.ReadRequest(br)
					if err != nil {
						return
					}

					_, _ = io.Copy(io.Discard, r.Body)

					if !play(s.requests.Add(1), c, r) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()

		cancel()
		wg.Wait()
	})

	return s
}

// say answers every request with the same bytes.
func say(t *testing.T, raw string) *script {
	t.Helper()

	return startScript(t, func(_ int64, c net.Conn, _ *http.Request) bool {
		_, err := io.WriteString(c, raw)

		return err == nil
	})
}
