package sign_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"testing"

	"github.com/sluice-gateway/sluice/auth/sign"
)

type vector struct {
	Name             string   `json:"name"`
	Algorithm        string   `json:"algorithm"`
	AK               string   `json:"ak"`
	SK               string   `json:"sk"`
	Date             string   `json:"x_sdk_date"`
	SignedHeaders    []string `json:"signed_headers"`
	CanonicalRequest string   `json:"canonical_request"`
	StringToSign     string   `json:"string_to_sign"`
	Signature        string   `json:"signature"`
	Wire             string   `json:"wire_request_base64"`
	Expected         string   `json:"expected_result"`
}

func vectors(t *testing.T, file string) []vector {
	t.Helper()

	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}

	var doc struct {
		Vectors []vector `json:"vectors"`
	}

	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}

	if len(doc.Vectors) == 0 {
		t.Fatal("no vectors")
	}

	return doc.Vectors
}

// message builds what was signed from the bytes on the wire.
func message(t *testing.T, v vector) (*sign.Message, sign.Authorization) {
	t.Helper()

	wire, err := base64.StdEncoding.DecodeString(v.Wire)
	if err != nil {
		t.Fatal(err)
	}

	r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(wire)))
	if err != nil {
		t.Fatal(err)
	}

	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}

	a, err := sign.ParseAuthorization([]byte(r.Header.Get("Authorization")))
	if err != nil {
		t.Fatal(err)
	}

	path, query, _ := bytes.Cut([]byte(r.RequestURI), []byte{'?'})
	m := &sign.Message{Method: []byte(r.Method), Path: path, Query: query, SignedHeaders: a.SignedHeaders}

	for name := range bytes.SplitSeq(a.SignedHeaders, []byte{';'}) {
		value := r.Header.Get(string(name))
		if string(name) == "host" {
			value = r.Host
		}

		m.Fields = append(m.Fields, sign.Field{Name: name, Value: []byte(value)})
	}

	m.BodyHash = []byte(r.Header.Get(a.Algorithm.ContentHeader()))
	if len(m.BodyHash) == 0 {
		m.BodyHash = hexDigest(a.Algorithm, body)
	}

	return m, a
}

func TestVectorsStepByStep(t *testing.T) {
	t.Parallel()

	for _, v := range vectors(t, "testdata/aksk_vectors.json") {
		if v.Expected != "accept" {
			continue // checked through the Verifier
		}

		t.Run(v.Name, func(t *testing.T) {
			t.Parallel()

			m, a := message(t, v)
			scope := &sign.Scope{Algorithm: a.Algorithm, Date: []byte(v.Date), AccessKey: a.Access, Info: a.Info}

			var b sign.Builder

			canonical := b.Canonical(m)
			if string(canonical) != v.CanonicalRequest {
				t.Fatalf("canonical request\n%s\nwant\n%s", canonical, v.CanonicalRequest)
			}

			if got := sign.StringToSign(scope, canonical); string(got) != v.StringToSign {
				t.Errorf("string to sign\n%s\nwant\n%s", got, v.StringToSign)
			}

			if got := b.Sign(sign.NewKey([]byte(v.SK)), scope, canonical); got != a.Signature {
				t.Errorf("signature %x, want %x", got, a.Signature)
			}
		})
	}
}
