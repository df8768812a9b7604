package auth_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/spec"
)

type vector struct {
	Name     string `json:"name"`
	AK       string `json:"ak"`
	SK       string `json:"sk"`
	Date     string `json:"x_sdk_date"`
	Wire     string `json:"wire_request_base64"`
	Expected string `json:"expected_result"`
}

func vectors(tb testing.TB) []vector {
	tb.Helper()

	all := make([]vector, 0, 64)

	for _, file := range []string{"aksk_vectors.json", "client_vectors.json"} {
		raw, err := os.ReadFile("sign/testdata/" + file)
		if err != nil {
			tb.Fatal(err)
		}

		var doc struct {
			Vectors []vector `json:"vectors"`
		}

		if err := json.Unmarshal(raw, &doc); err != nil {
			tb.Fatal(err)
		}

		if len(doc.Vectors) < 10 {
			tb.Fatalf("%s holds %d vectors", file, len(doc.Vectors))
		}

		all = append(all, doc.Vectors...)
	}

	return all
}

// wireRequest cuts raw bytes into a request, changing nothing but what any HTTP parser does:
// white space around header values goes.
func wireRequest(tb testing.TB, wire []byte, date string) *auth.Request {
	tb.Helper()

	head, body, ok := bytes.Cut(wire, []byte("\r\n\r\n"))
	if !ok {
		tb.Fatal("no end of headers")
	}

	lines := strings.Split(string(head), "\r\n")
	first := strings.Split(lines[0], " ")

	if len(first) != 3 {
		tb.Fatalf("request line %q", lines[0])
	}

	path, query, _ := strings.Cut(first[1], "?")

	h := make(headers, 0, len(lines))

	for _, l := range lines[1:] {
		name, value, _ := strings.Cut(l, ":")
		h = append(h, [2]string{name, strings.Trim(value, " \t")})
	}

	now, err := time.Parse("20060102T150405Z", date)
	if err != nil {
		tb.Fatal(err)
	}

	r := newRequest()
	r.Method, r.Path, r.Query, r.Host = []byte(first[0]), []byte(path), []byte(query), h.Get("host")
	r.Header, r.Now = h, now
	r.Body = func() ([]byte, error) { return body, nil }

	return r
}

// TestVectorsThroughTheVerifier runs each vector as a user's key and as an app's.
func TestVectorsThroughTheVerifier(t *testing.T) {
	t.Parallel()

	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()

			wire, err := base64.StdEncoding.DecodeString(v.Wire)
			if err != nil {
				t.Fatal(err)
			}

			asUser := world(t)
			asUser.AccessKeys = []spec.AccessKey{{AccessKey: v.AK, SealedSecret: seal(v.SK, "ak:"+v.AK), UserID: "u1", Enabled: true}}

			asApp := world(t)
			asApp.AccessKeys = nil
			asApp.Apps[0].Key, asApp.Apps[0].SealedSecret = v.AK, seal(v.SK, "app:app1")

			for _, as := range []struct {
				world *spec.Snapshot
				want  auth.Method
			}{{asUser, auth.MethodAKSK}, {asApp, auth.MethodAppSignature}} {
				p, err := verifier(t, auth.Config{}).Verify(compile(t, as.world, nil), wireRequest(t, wire, v.Date), auth.AllowDefault)

				switch v.Expected {
				case "accept":
					if err != nil {
						t.Errorf("%v", err)
					} else if p.Method != as.want {
						t.Errorf("method %d, want %d", p.Method, as.want)
					}
				case "reject":
					if err == nil {
						t.Error("accepted")
					}
				default:
					t.Fatalf("unknown expectation %q", v.Expected)
				}
			}
		})
	}
}
