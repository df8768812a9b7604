package edge_test

import (
	"bufio"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway/edge"
	"github.com/sluice-gateway/sluice/spec"
)

// TestStalledUploadEndsWithTheTimeOfItsService has clients that send a part of a body, fast, and then nothing. The
// time that the edge grants for a body of that size is minutes; that of the service counts. The instance
// has done nothing wrong and goes on serving.
func TestStalledUploadEndsWithTheTimeOfItsService(t *testing.T) {
	t.Parallel()

	addr := engine(t, func(w http.ResponseWriter, _ *http.Request) {
		c, rest, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)

			return
		}
		defer c.Close()

		_, _ = io.Copy(io.Discard, rest)
	})
	k := withEngine(t, addr, func(_ *edge.Config, r *spec.Route) { r.Policy.Limits.TimeoutSeconds = 0.5 })

	part := strings.Repeat("x", 3<<20)

	for name, request := range map[string]string{
		"length":  "Content-Length: 6000000\r\n\r\n" + part,
		"chunked": "Transfer-Encoding: chunked\r\n\r\n" + strings.TrimSuffix(chunked(part, 60_000), "0\r\n\r\n"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			for range 6 { // more than what takes an instance out, were it blamed
				c := k.dial(t)
				if err := c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
					t.Fatal(err)
				}

				if _, err := io.WriteString(c, "POST /v1/infers/svc/ HTTP/1.1\r\nHost: gw.example\r\n"+request); err != nil {
					t.Fatal(err)
				}

				resp, err := http.ReadResponse(bufio.NewReader(c), nil)
				if err != nil {
					t.Fatal(err)
				}

				if _ = resp.Body.Close(); resp.StatusCode != http.StatusRequestTimeout {
					t.Fatalf("status %d, want 408", resp.StatusCode)
				}
			}
		})
	}
}
