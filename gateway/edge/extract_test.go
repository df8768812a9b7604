package edge

import (
	"bufio"
	"strings"
	"testing"

	"github.com/valyala/fasthttp"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
)

// TestExtractMeansTheSame holds what fasthttp is told of a head against what the guard read in it.
func TestExtractMeansTheSame(t *testing.T) {
	t.Parallel()

	lim := &wire.Limits{Line: 1 << 10, Field: 1 << 10, Head: 4 << 10, Fields: 16}

	for _, method := range []string{"GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"} {
		for _, rest := range []string{
			" /a?b HTTP/1.1\r\nHost: x\r\n\r\n",
			" /a?b HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Long: " + strings.Repeat("y", 900) + "\r\n\r\n",
			" /a?b HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, x\r\nContent-Length: 7\r\nExpect: 100-continue\r\n\r\n",
			" /a?b HTTP/1.0\r\n\r\n",
			" /a?b HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
		} {
			var (
				given wire.Head
				got   fasthttp.RequestHeader
			)

			if err := given.Parse([]byte(method+rest), "http", lim); err != nil {
				t.Fatalf("%s%.40q: %v", method, rest, err)
			}

			text := extract(&given)
			if err := got.Read(bufio.NewReaderSize(strings.NewReader(text), readerSize)); err != nil {
				t.Fatalf("%q: %v", text, err)
			}

			if string(got.Method()) != method || got.IsHTTP11() == given.HTTP10 || got.ConnectionClose() != given.Close ||
				got.ContentLength() > 0 || len(got.Peek("Expect")) > 0 {
				t.Errorf("%s%.40q became %q", method, rest, text)
			}
		}
	}
}
