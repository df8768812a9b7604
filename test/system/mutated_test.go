package system_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

// TestMutatedRequestsAreTheClientsFault sends a thousand mutations each of a request with a token and of a
// signed one. Whatever became of them, it is never an error of the platform; a signed request is
// served only if what was changed is not signed.
func TestMutatedRequestsAreTheClientsFault(t *testing.T) {
	t.Parallel()

	s := start(t, "", "auth: {lock: {after: 1000000}}\ndeploy:\n- {service: digits, model: digits, source: "+digitsDir(t)+"}\n")
	s.login()

	list := s.call("GET", s.api("/services?service_name=digits"), nil).json(t)
	service, _ := list["services"].([]any)[0].(map[string]any)["service_id"].(string)
	body, ct := multipartOf(t, "images", sample(t, 7))
	target := "/v1/infers/" + service + "?a=1&b=%20"

	edge, err := url.Parse(s.Edge)
	if err != nil {
		t.Fatal(err)
	}

	signed, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Edge+target, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}

	signed.Header.Set("Content-Type", ct)

	signer := sign.Signer{AccessKey: s.Boot.AccessKey, Secret: spec.NewSecret(s.Boot.SecretKey)}
	if err := signer.SignHTTP(signed, body, time.Now()); err != nil {
		t.Fatal(err)
	}

	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n", target, edge.Host, ct, len(body))
	withToken := head + "X-Auth-Token: " + s.token + "\r\n\r\n" + string(body)
	withSignature := head + "X-Sdk-Date: " + signed.Header.Get("X-Sdk-Date") + "\r\nAuthorization: " + signed.Header.Get("Authorization") +
		"\r\n\r\n" + string(body)

	for name, request := range map[string]string{"token": withToken, "signature": withSignature} {
		if status := exchange(t, edge.Host, []byte(request)); status != 200 {
			t.Fatalf("%s: unchanged got %d", name, status)
		}

		rnd := rand.New(rand.NewPCG(1, 2))
		counts := map[int]int{}

		var (
			mu sync.Mutex
			g  errgroup.Group
		)

		g.SetLimit(16)

		for range 1000 {
			m := mutate(rnd, []byte(request), strings.Index(request, "\r\n\r\n")+4)

			g.Go(func() error {
				status := exchange(t, edge.Host, m)

				mu.Lock()
				defer mu.Unlock()

				counts[status]++

				if status >= 500 && status != http.StatusNotImplemented && status != http.StatusHTTPVersionNotSupported {
					return fmt.Errorf("%s: %d for %.400q", name, status, m)
				}

				return nil
			})
		}

		if err := g.Wait(); err != nil {
			t.Error(err)
		}

		t.Logf("%s: %v", name, counts)

		if counts[200] > 300 || counts[400]+counts[401] < 500 {
			t.Errorf("%s: got %v", name, counts)
		}
	}
}

// mutate changes a request in one to three places, mostly in its head.
func mutate(rnd *rand.Rand, request []byte, headEnd int) []byte {
	b := bytes.Clone(request)

	for range 1 + rnd.IntN(3) {
		at := rnd.IntN(headEnd)
		if rnd.IntN(5) == 0 {
			at = rnd.IntN(len(b))
		}

		at = min(at, len(b)-1)

		switch rnd.IntN(5) {
		case 0:
			b[at] ^= 1 << rnd.IntN(8)
		case 1:
			b[at] = byte(rnd.IntN(256))
		case 2:
			b = append(b[:at], b[at+1:]...)
		case 3:
			b = append(b[:at], append([]byte{"\r\n \t:;,/%.\x00Aa0"[rnd.IntN(14)]}, b[at:]...)...)
		default: // a piece twice
			end := min(at+1+rnd.IntN(40), len(b))
			b = append(b[:end:end], append(bytes.Clone(b[at:end]), b[end:]...)...)
		}
	}

	return b
}

// exchange sends raw bytes and returns the first status; 0 if the connection ended without one.
func exchange(t *testing.T, addr string, raw []byte) int {
	t.Helper()

	c, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Error(err)

		return 0
	}
	defer c.Close()

	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Error(err)
	}

	if _, err := c.Write(raw); err != nil {
		return 0 // cut in the middle of what it sends
	}

	// What waits for more learns that there is none.
	if tcp, ok := c.(*net.TCPConn); ok {
		go func() {
			time.Sleep(300 * time.Millisecond)
			_ = tcp.CloseWrite()
		}()
	}

	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		if ne, ok := err.(net.Error); ok && ne.Timeout() { //nolint:errorlint // as it comes
			t.Errorf("no answer and no end for %.400q", raw)
		}

		return 0
	}
	defer resp.Body.Close()

	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 1<<20))

	return resp.StatusCode
}
