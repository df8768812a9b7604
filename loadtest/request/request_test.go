package request_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/loadtest/request"
	"github.com/sluice-gateway/sluice/spec"
)

func mix(t *testing.T, items ...request.Item) *request.Mix {
	t.Helper()

	m, err := request.NewMix(items)
	if err != nil {
		t.Fatal(err)
	}

	return m
}

// parse reads a request as a server would.
func parse(t *testing.T, raw []byte) (*http.Request, string) {
	t.Helper()

	r := bufio.NewReader(bytes.NewReader(raw))

	req, err := http.ReadRequest(r)
	if err != nil {
		t.Fatalf("%v in %q", err, raw)
	}

	body, err := io.ReadAll(req.Body)
	if err != nil {
		t.Fatal(err)
	}

	if r.Buffered() != 0 {
		t.Fatalf("%d bytes behind the request %q", r.Buffered(), raw)
	}

	return req, string(body)
}

func TestRequestsAreWhatWasAskedFor(t *testing.T) {
	t.Parallel()

	m := mix(t, request.Item{
		Method: http.MethodPost, Target: "/v1/infers/x?a=b%20c", Host: "edge.test:8080",
		Fields: []request.Field{{"Content-Type", "application/json"}, {"X-Auth-Token", "secret"}}, Body: []byte(`{"a":{"b":{}}}`),
	})
	s := m.Source(0, 1)

	for range 2 {
		raw, target := s.Append(nil, 0)
		req, body := parse(t, raw)

		if target != 0 || req.Method != http.MethodPost || req.RequestURI != "/v1/infers/x?a=b%20c" || req.Host != "edge.test:8080" ||
			req.Header.Get("X-Auth-Token") != "secret" || body != `{"a":{"b":{}}}` {
			t.Errorf("%+v %q", req, body)
		}
	}

	for _, tc := range []struct {
		method, length string
	}{{"GET", ""}, {"HEAD", ""}, {"POST", "0"}, {"PUT", "0"}} {
		raw, _ := mix(t, request.Item{Method: tc.method, Target: "/", Host: "h"}).Source(0, 1).Append(nil, 0)
		if req, _ := parse(t, raw); req.Header.Get("Content-Length") != tc.length {
			t.Errorf("%s: Content-Length %q, want %q", tc.method, req.Header.Get("Content-Length"), tc.length)
		}
	}
}

func TestTemplates(t *testing.T) {
	t.Parallel()

	for text, want := range map[string]string{
		"plain":                     `^plain$`,
		`{"a":{"b":{{.Seq}}}}`:      `^\{"a":\{"b":0\}\}$`,
		"{{ .Seq }}/{{.Seq}}":       `^0/0$`,
		"{{.Rand}}":                 `^\d{1,19}$`,
		"{{.Rand 7}}":               `^[0-6]$`,
		"{{.Float}}":                `^0\.\d{6}$`,
		"{{.UUID}}":                 `^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`,
		"{{.Now}}":                  `^\d{13}$`,
		"{{.Sender}}":               `^3$`,
		"{{{.Seq}}}":                `^\{0\}$`,
		"{{not a template}} {{1}}":  `^\{\{not a template\}\} \{\{1\}\}$`,
		"a{{.Seq}}b{{.Rand 1}}c{{ ": `^a0b0c\{\{ $`,
	} {
		m := mix(t, request.Item{Method: "POST", Target: "/", Host: "h", Body: []byte(text)})
		raw, _ := m.Source(3, 1).Append(nil, 0)

		if _, body := parse(t, raw); !regexp.MustCompile(want).MatchString(body) {
			t.Errorf("%q became %q, want %s", text, body, want)
		}
	}

	for _, bad := range []string{"{{.Nope}}", "{{.Seq", "{{.Seq 4}}", "{{.Rand x}}", "{{.Rand 0}}", "{{.Rand 1 2}}"} {
		if _, err := request.ParseTemplate(bad); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

func TestEverySequenceNumberIsUsedOnce(t *testing.T) {
	t.Parallel()

	m := mix(t, request.Item{Method: "GET", Target: "/{{.Seq}}", Host: "h", Fields: []request.Field{{"X-N", "n{{.Seq}}"}}})
	seen := map[string]bool{}

	for sender := range 3 {
		s := m.Source(sender, 1)

		for range 50 {
			raw, _ := s.Append(nil, 0)
			req, _ := parse(t, raw)

			if seen[req.URL.Path] || req.Header.Get("X-N") != "n"+req.URL.Path[1:] {
				t.Fatalf("%s twice, or with another header %s", req.URL.Path, req.Header.Get("X-N"))
			}

			seen[req.URL.Path] = true
		}
	}

	if !seen["/0"] || !seen["/149"] {
		t.Error("numbers are missing")
	}
}

func TestWeightsOfAMix(t *testing.T) {
	t.Parallel()

	m := mix(t,
		request.Item{Name: "a", Weight: 70, Method: "GET", Target: "/a", Host: "h"},
		request.Item{Name: "b", Weight: 29, Method: "GET", Target: "/b", Host: "h"},
		request.Item{Name: "c", Method: "GET", Target: "/c", Host: "h"},
	)
	counts := [3]int{}
	s := m.Source(0, 5)

	for range 10_000 {
		raw, i := s.Append(nil, 0)
		counts[i]++

		if want := "GET /" + m.Names()[i]; !strings.HasPrefix(string(raw), want) {
			t.Fatalf("%q is not %s", raw, want)
		}
	}

	for i, want := range []float64{7000, 2900, 100} {
		if math.Abs(float64(counts[i])-want) > 5*math.Sqrt(want) {
			t.Errorf("%v", counts)
		}
	}
}

// TestEverySignatureIsFreshAndGood computes the signature again from what a server receives.
func TestEverySignatureIsFreshAndGood(t *testing.T) {
	t.Parallel()

	for _, algorithm := range []sign.Algorithm{sign.HMACSHA256, sign.HMACSM3, sign.V11} {
		signer := sign.Signer{
			AccessKey: "AK", Secret: spec.NewSecret("a secret"), Algorithm: algorithm, Region: "local", Service: "modelarts",
		}

		prepared, err := signer.Prepare()
		if err != nil {
			t.Fatal(err)
		}

		m := mix(t, request.Item{
			Method: "POST", Target: "/v1/infers/x?b=2&a={{.Seq}}", Host: "h:1", Signer: prepared,
			Fields: []request.Field{{"Content-Type", "application/json"}}, Body: []byte(`{"n":{{.Rand}}}`),
		})
		s := m.Source(0, 1)
		seen := map[string]bool{}

		for i := range 3 {
			raw, _ := s.Append(nil, int64(i)*int64(time.Millisecond))
			req, body := parse(t, raw)
			got := req.Header.Get("Authorization")

			if seen[got] {
				t.Fatal("a signature was used twice")
			}

			seen[got] = true

			a, err := sign.ParseAuthorization([]byte(got))
			if err != nil {
				t.Fatalf("%v: %q", err, got)
			}

			if list := string(a.SignedHeaders); list != "content-type;host;x-sdk-date;x-sdk-nonce" {
				t.Errorf("signed headers %s", list)
			}

			at, err := time.Parse(sign.DateLayout, req.Header.Get("X-Sdk-Date"))
			if err != nil || time.Since(at).Abs() > time.Minute {
				t.Errorf("date %v: %v", at, err)
			}

			req.URL.Host = req.Host
			again := req.Clone(t.Context())
			prepared.SignHTTP(again, []byte(body), at)

			if again.Header.Get("Authorization") != got {
				t.Errorf("%v: signed %s, want %s", algorithm, got, again.Header.Get("Authorization"))
			}
		}
	}
}

func TestItemsThatMakeNoSense(t *testing.T) {
	t.Parallel()

	good := request.Item{Method: "GET", Target: "/", Host: "h"}

	for name, change := range map[string]func(*request.Item){
		"method":       func(i *request.Item) { i.Method = "GET /x" },
		"empty method": func(i *request.Item) { i.Method = "" },
		"path":         func(i *request.Item) { i.Target = "no-slash" },
		"space":        func(i *request.Item) { i.Target = "/a b" },
		"line break":   func(i *request.Item) { i.Target = "/a\r\nX: y" },
		"field":        func(i *request.Item) { i.Fields = []request.Field{{"A B", "c"}} },
		"field value":  func(i *request.Item) { i.Fields = []request.Field{{"A", "b\r\nC: d"}} },
		"length":       func(i *request.Item) { i.Fields = []request.Field{{"Content-Length", "4"}} },
		"template":     func(i *request.Item) { i.Body = []byte("{{.Wrong}}") },
		"weight":       func(i *request.Item) { i.Weight = -1 },
	} {
		item := good
		change(&item)

		if _, err := request.NewMix([]request.Item{item}); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}

	if _, err := request.NewMix(nil); err == nil {
		t.Error("nothing was taken")
	}
}

func TestBinaryBodiesAreNoTemplates(t *testing.T) {
	t.Parallel()

	m := mix(t, request.Item{Method: "POST", Target: "/", Host: "h", Body: []byte("\xff{{.Seq}}\x00{{"), Binary: true})
	raw, _ := m.Source(0, 1).Append(nil, 0)

	if _, body := parse(t, raw); body != "\xff{{.Seq}}\x00{{" {
		t.Errorf("%q", body)
	}
}

func TestMessagesAndTheOpeningOfASocket(t *testing.T) {
	t.Parallel()

	m := mix(t, request.Item{Method: "POST", Target: "/ws", Host: "h", Fields: []request.Field{{"X-Auth-Token", "t"}}, Body: []byte("m{{.Seq}}")})

	if raw, _ := m.Messages(0, 1).Append(nil, 0); string(raw) != "m0" {
		t.Errorf("%q", raw)
	}

	if head := string(m.Head(1)(nil)); head != "GET /ws HTTP/1.1\r\nHost: h\r\nX-Auth-Token: t\r\n" {
		t.Errorf("%q", head)
	}
}

func TestInferencesFromMetadata(t *testing.T) {
	t.Parallel()

	inputs := []request.TensorMeta{
		{Name: "image", Datatype: "FP32", Shape: []int64{-1, 2, -1}},
		{Name: "ids", Datatype: "INT64", Shape: []int64{3}},
		{Name: "flags", Datatype: "BOOL", Shape: []int64{2}},
		{Name: "words", Datatype: "BYTES", Shape: []int64{-1}},
	}
	shapes := map[string][]int64{"image": {-1, 2, 5}}

	type answer struct {
		Inputs []struct {
			Name       string         `json:"name"`
			Shape      []int64        `json:"shape"`
			Data       []any          `json:"data"`
			Parameters map[string]int `json:"parameters"`
		} `json:"inputs"`
	}

	body, n, err := request.Infer(inputs, shapes, 4, false)
	if err != nil || n != len(body) {
		t.Fatal(n, err)
	}

	var a answer
	if err := json.Unmarshal(body, &a); err != nil {
		t.Fatal(err)
	}

	for i, want := range []int{40, 3, 2, 4} {
		if len(a.Inputs[i].Data) != want {
			t.Errorf("%s: %d values, want %d", a.Inputs[i].Name, len(a.Inputs[i].Data), want)
		}
	}

	body, n, err = request.Infer(inputs, shapes, 4, true)
	if err != nil {
		t.Fatal(err)
	}

	a = answer{}
	if err := json.Unmarshal(body[:n], &a); err != nil {
		t.Fatal(err)
	}

	rest := body[n:]
	if size := a.Inputs[0].Parameters["binary_data_size"]; size != 160 {
		t.Errorf("image has %d bytes", size)
	}

	if f := math.Float32frombits(binary.LittleEndian.Uint32(rest)); f < 0 || f > 1 {
		t.Errorf("first value %v", f)
	}

	sum := 0
	for _, in := range a.Inputs {
		sum += in.Parameters["binary_data_size"]
	}

	if sum != len(rest) {
		t.Errorf("%d bytes, told are %d", len(rest), sum)
	}

	for _, bad := range []request.TensorMeta{
		{Name: "x", Datatype: "FP16", Shape: []int64{1}}, {Name: "x", Datatype: "FP32", Shape: []int64{1 << 40}},
	} {
		if _, _, err := request.Infer([]request.TensorMeta{bad}, nil, 1, false); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
}

func TestFormsOfFiles(t *testing.T) {
	t.Parallel()

	name := filepath.Join(t.TempDir(), "7.png")
	if err := os.WriteFile(name, []byte("picture {{.Seq}}"), 0o600); err != nil {
		t.Fatal(err)
	}

	body, contentType, err := request.Form("images", []string{name, name})
	if err != nil {
		t.Fatal(err)
	}

	m := mix(t, request.Item{Method: "POST", Target: "/", Host: "h", Body: body, Binary: true, Fields: []request.Field{{"Content-Type", contentType}}})
	raw, _ := m.Source(0, 1).Append(nil, 0)

	req, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(raw)))
	if err != nil {
		t.Fatal(err)
	}

	if err := req.ParseMultipartForm(1 << 20); err != nil {
		t.Fatal(err)
	}

	if files := req.MultipartForm.File["images"]; len(files) != 2 || files[0].Filename != "7.png" || files[0].Size != 16 {
		t.Errorf("%+v", req.MultipartForm.File)
	}

	if _, _, err := request.Form("images", []string{"/nonexistent"}); err == nil {
		t.Error("a missing file was taken")
	}
}

func FuzzTemplate(f *testing.F) {
	f.Add("{{.Seq}} {{.Rand 4}}")
	f.Add("{{{.UUID}}}")
	f.Fuzz(func(t *testing.T, text string) {
		if _, err := request.ParseTemplate(text); err != nil {
			return
		}

		m, err := request.NewMix([]request.Item{{Method: "POST", Target: "/", Host: "h", Body: []byte(text)}})
		if err != nil {
			t.Fatal(err)
		}

		raw, _ := m.Source(0, 1).Append(nil, 0)
		parse(t, raw)
	})
}
