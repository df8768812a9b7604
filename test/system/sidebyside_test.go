package system_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// keptAlive is a connection that asks the same thing again and again.
type keptAlive struct {
	c    net.Conn
	r    *bufio.Reader
	raw  []byte
	took []time.Duration
}

func (s *sluice) keepAlive(t *testing.T, address, path string, body []byte, header string) *keptAlive {
	t.Helper()

	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}

	t.Cleanup(func() { c.Close() })

	head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %d\r\n\r\n", path, address, header, len(body))

	return &keptAlive{c: c, r: bufio.NewReader(c), raw: append([]byte(head), body...)}
}

// ask sends the request and times the answer.
func (k *keptAlive) ask(t *testing.T) {
	t.Helper()

	if err := k.c.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}

	began := time.Now()

	if _, err := k.c.Write(k.raw); err != nil {
		t.Fatal(err)
	}

	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		t.Fatal(err)
	}

	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%d %v", resp.StatusCode, err)
	}

	_ = resp.Body.Close() // read to the end

	k.took = append(k.took, time.Since(began))
}

func (k *keptAlive) median() time.Duration {
	slices.Sort(k.took)

	return k.took[len(k.took)/2]
}

// TestDirectAndEdgeSideBySide times the same call by the direct channel, straight to a worker, and through the edge, in turn.
// Times mean nothing on a busy machine: without SLUICE_WS_LATENCY a few calls only have to be answered.
func TestDirectAndEdgeSideBySide(t *testing.T) {
	judged, warm, calls, block := os.Getenv("SLUICE_WS_LATENCY") != "", 2000, 20_000, 500
	if !judged {
		warm, calls, block = 20, 200, 20
	}

	s := start(t, "", "log: {level: warn}\n")
	s.login()

	model, _ := s.model("digits", "1.0.0", digitsDir(t))
	id := s.deploy("side", model, 1, map[string]any{"direct_channel": map[string]any{"enabled": true, "key": directKey}})
	s.waitStatus(id, "running", 30*time.Second)

	e := s.endpoints(id, 1)[0]

	head := `{"inputs":[{"name":"image","datatype":"FP32","shape":[1,1,8,8],"parameters":{"binary_data_size":256}}],"parameters":{"binary_data_output":true}}`
	body := append([]byte(head), make([]byte, 256)...)
	lengths := fmt.Sprintf("Inference-Header-Content-Length: %d\r\nContent-Type: application/octet-stream\r\n", len(head))
	path := "/v2/models/digits/infer"

	direct := s.keepAlive(t, strings.TrimPrefix(e.url(), "http://"), path, body, lengths+"X-Sluice-Direct-Key: "+directKey+"\r\n")
	edge := s.keepAlive(t, strings.TrimPrefix(s.Edge, "http://"), "/v1/infers/"+id+path, body, lengths+"X-Auth-Token: "+s.token+"\r\n")

	// In turn by blocks: a path that rests for every other call has to wake its processes each time.
	for done := 0; done < warm+calls; done += block {
		for range block {
			direct.ask(t)
		}

		for range block {
			edge.ask(t)
		}

		if done < warm {
			direct.took, edge.took = direct.took[:0], edge.took[:0]
		}
	}

	d, g := direct.median(), edge.median()
	t.Logf("p50 by the direct channel %v, through the edge %v: %v more, %.2f times", d, g, g-d, float64(g)/float64(d))

	if judged && g-d > 100*time.Microsecond {
		t.Errorf("the edge adds %v", g-d)
	}
}
