package gateway_test

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// recorder is an Out that keeps what it gets.
type recorder struct {
	status  int
	headers [][2]string
	body    []byte
	sets    int
	streams int
}

func (r *recorder) AddHeader(name string, value []byte) {
	r.headers = append(r.headers, [2]string{name, string(value)})
}

func (r *recorder) Set(status int, body []byte) {
	r.sets++
	r.status, r.body = status, append([]byte(nil), body...)
}

func (r *recorder) Stream(status int, next func() ([]byte, error), done func(error)) {
	r.streams++
	r.status = status

	for {
		chunk, err := next()
		r.body = append(r.body, chunk...)

		if err != nil {
			if err == io.EOF { //nolint:errorlint // the contract is io.EOF itself
				err = nil
			}

			done(err)

			return
		}
	}
}

func (r *recorder) header(name string) string {
	for _, h := range r.headers {
		if strings.EqualFold(h[0], name) {
			return h[1]
		}
	}

	return ""
}

func TestWriteFaultRendersBothBodies(t *testing.T) {
	t.Parallel()

	cases := []struct {
		name, path string
		v2         bool
	}{
		{"plain", "/v1/infers/abc", false},
		{"deep", "/v1/infers/abc/predict/x/v2", false},
		{"v2", "/v1/infers/abc/v2/models/m/infer", true},
		{"v2 root", "/v1/infers/abc/v2", true},
		{"v2 behind a cluster id", "/v1/infers/cl/abc/v2/health/live", true},
		{"v2 as a name", "/v1/infers/abc/v2x", false},
		{"elsewhere", "/v2/health", false},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			out := &recorder{}
			c := &gateway.Call{ID: "r\"1", Path: []byte(tc.path), Out: out}
			gateway.WriteFault(c, fault.New(fault.TooManyRequests, "slow \x01 down\xff <b>").After(1200*time.Millisecond))

			var got map[string]string
			if err := json.Unmarshal(out.body, &got); err != nil {
				t.Fatalf("body %q: %v", out.body, err)
			}

			want := map[string]string{"error_code": "APIG.0308", "error_msg": "slow \x01 down\ufffd <b>", "request_id": `r"1`}
			if tc.v2 {
				want = map[string]string{"error": "slow \x01 down\ufffd <b>"}
			}

			if len(got) != len(want) {
				t.Fatalf("got %v", got)
			}

			for k, v := range want {
				if got[k] != v {
					t.Errorf("%s: got %q, want %q", k, got[k], v)
				}
			}

			if out.status != 429 || out.header("Retry-After") != "2" || c.Record.Status != 429 || out.sets != 1 {
				t.Errorf("status %d, headers %v", out.status, out.headers)
			}
		})
	}
}

func TestWriteFaultHidesUnclassifiedErrors(t *testing.T) {
	t.Parallel()

	out := &recorder{}
	gateway.WriteFault(&gateway.Call{Path: []byte("/"), Out: out}, io.ErrUnexpectedEOF)

	if out.status != 500 || strings.Contains(string(out.body), "EOF") {
		t.Fatalf("got %d %s", out.status, out.body)
	}
}
