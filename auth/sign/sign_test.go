package sign_test

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
	"github.com/sluice-gateway/sluice/spec"
)

func hexDigest(a sign.Algorithm, body []byte) []byte {
	sum := a.Digest(body)

	return hex.AppendEncode(nil, sum[:])
}

func TestCanonicalURI(t *testing.T) {
	t.Parallel()

	for raw, want := range map[string]string{
		"":               "/",
		"/":              "/",
		"/a":             "/a/",
		"/a/":            "/a/",
		"//a//":          "//a//",
		"/a%20b":         "/a%20b/",
		"/a+b":           "/a%2Bb/",
		"/a%2Bb":         "/a%2Bb/",
		"/a%2fb":         "/a/b/",
		"/~x_y-z.q":      "/~x_y-z.q/",
		"/%7Ex":          "/~x/",
		"/%e4%b8%ad":     "/%E4%B8%AD/",
		"/\xe4\xb8\xad":  "/%E4%B8%AD/",
		"/100%":          "/100%25/",
		"/%zz%4":         "/%25zz%254/",
		"/a:b@c,d;e=f!*": "/a%3Ab%40c%2Cd%3Be%3Df%21%2A/",
	} {
		if got := string(sign.AppendURI(nil, []byte(raw))); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}

	if got := string(sign.AppendURI([]byte("x/"), nil)); got != "x//" {
		t.Errorf("an empty path after a prefix gives %q", got)
	}
}

func TestCanonicalQuery(t *testing.T) {
	t.Parallel()

	for raw, want := range map[string]string{
		"":                      "",
		"a":                     "a=",
		"a=":                    "a=",
		"&&a=1&&":               "a=1",
		"=v":                    "=v",
		"b=2&a=1":               "a=1&b=2",
		"a=2&a=10&a=1":          "a=1&a=10&a=2",
		"a&a=":                  "a=&a=",
		"b=1&B=1":               "B=1&b=1",
		"q=a+b":                 "q=a%20b",
		"q=a%2Bb":               "q=a%2Bb",
		"q=*~'":                 "q=%2A~%27",
		"a=b=c":                 "a=b%3Dc",
		"a%3Db=c":               "a%3Db=c",
		"k=%e4%b8%ad&k=z":       "k=z&k=%E4%B8%AD",
		"a=%zz":                 "a=%25zz",
		"a-b=1&a=2":             "a=2&a-b=1",
		"a;b=1":                 "a%3Bb=1",
		"a/?=:/?":               "a%2F%3F=%3A%2F%3F",
		strings.Repeat("a&", 9): strings.TrimSuffix(strings.Repeat("a=&", 9), "&"),
	} {
		if got := string(sign.AppendQuery(nil, []byte(raw))); got != want {
			t.Errorf("%q: got %q, want %q", raw, got, want)
		}
	}
}

func TestParseDate(t *testing.T) {
	t.Parallel()

	for _, s := range []string{"20250102T030405Z", "20240229T000000Z", "19700101T000000Z", "99991231T235959Z"} {
		want, err := time.Parse(sign.DateLayout, s)
		if err != nil {
			t.Fatal(err)
		}

		if got, ok := sign.ParseDate([]byte(s)); !ok || got != want.Unix() {
			t.Errorf("%s: got %d, %v", s, got, ok)
		}
	}

	for _, s := range []string{
		"", "20250102T030405", "20250102T030405z", "20250102 030405Z", "20250230T030405Z", "20251302T030405Z",
		"20250102T240000Z", "20250102T030460Z", "2025-01-02T03:04", "-0250102T030405Z", "20250100T030405Z", "2025010aT030405Z",
	} {
		if _, ok := sign.ParseDate([]byte(s)); ok {
			t.Errorf("%q is taken for a date", s)
		}
	}
}

func TestParseAuthorization(t *testing.T) {
	t.Parallel()

	sig := strings.Repeat("ab", 32)
	ok := []string{
		"SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=" + sig,
		"SDK-HMAC-SHA256 Access=AK,SignedHeaders=host;x-sdk-date,Signature=" + sig,
		"SDK-HMAC-SHA256  Access=AK ,  SignedHeaders=x-sdk-date , Signature=" + sig + " ",
		"SDK-HMAC-SHA256 SignedHeaders=x-sdk-date, Signature=" + sig + ", Access=AK",
		"SDK-HMAC-SM3 Access=AK, SignedHeaders=x-sdk-date, Signature=" + sig,
		"V11-HMAC-SHA256 Credential=AK/20250102/cn-north-4/modelarts, SignedHeaders=x-sdk-date, Signature=" + sig,
	}

	for _, s := range ok {
		a, err := sign.ParseAuthorization([]byte(s))
		if err != nil || string(a.Access) != "AK" || hex.EncodeToString(a.Signature[:]) != sig {
			t.Errorf("%q: %+v, %v", s, a, err)
		}
	}

	bad := map[string]string{
		"empty":              "",
		"scheme only":        "SDK-HMAC-SHA256",
		"other scheme":       "Bearer abc",
		"unknown algorithm":  "SDK-HMAC-MD5 Access=AK, SignedHeaders=x-sdk-date, Signature=" + sig,
		"scheme in lower":    "sdk-hmac-sha256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + sig,
		"no access":          "SDK-HMAC-SHA256 SignedHeaders=x-sdk-date, Signature=" + sig,
		"no headers":         "SDK-HMAC-SHA256 Access=AK, Signature=" + sig,
		"no signature":       "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date",
		"empty access":       "SDK-HMAC-SHA256 Access=, SignedHeaders=x-sdk-date, Signature=" + sig,
		"access twice":       "SDK-HMAC-SHA256 Access=AK, Access=BK, SignedHeaders=x-sdk-date, Signature=" + sig,
		"unknown parameter":  "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + sig + ", More=1",
		"trailing comma":     "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + sig + ",",
		"access with spaces": "SDK-HMAC-SHA256 Access=A K, SignedHeaders=x-sdk-date, Signature=" + sig,
		"access too long":    "SDK-HMAC-SHA256 Access=" + strings.Repeat("A", 129) + ", SignedHeaders=x-sdk-date, Signature=" + sig,
		"short signature":    "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + sig[1:],
		"upper-case hex":     "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + strings.ToUpper(sig),
		"not hex":            "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + strings.Repeat("xy", 32),
		"header twice":       "SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date;host, Signature=" + sig,
		"empty name":         "SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;;x-sdk-date, Signature=" + sig,
		"name last empty":    "SDK-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date;, Signature=" + sig,
		"name in upper case": "SDK-HMAC-SHA256 Access=AK, SignedHeaders=Host;x-sdk-date, Signature=" + sig,
		"too many names":     "SDK-HMAC-SHA256 Access=AK, SignedHeaders=" + strings.Repeat("a;", 64) + "b, Signature=" + sig,
		"v11 without scope":  "V11-HMAC-SHA256 Credential=AK, SignedHeaders=x-sdk-date, Signature=" + sig,
		"v11 with access":    "V11-HMAC-SHA256 Access=AK, SignedHeaders=x-sdk-date, Signature=" + sig,
		"v11 with bad date":  "V11-HMAC-SHA256 Credential=AK/2025010/cn/ma, SignedHeaders=x-sdk-date, Signature=" + sig,
		"v11 with no region": "V11-HMAC-SHA256 Credential=AK/20250102//ma, SignedHeaders=x-sdk-date, Signature=" + sig,
		"sdk with scope":     "SDK-HMAC-SHA256 Credential=AK/20250102/cn/ma, SignedHeaders=x-sdk-date, Signature=" + sig,
	}

	for name, s := range bad {
		if a, err := sign.ParseAuthorization([]byte(s)); err == nil {
			t.Errorf("%s: %q is taken as %+v", name, s, a)
		}
	}
}

func signer() sign.Signer {
	return sign.Signer{AccessKey: "AK", Secret: spec.NewSecret("sk-very-secret")}
}

func TestSignerSignsWhatTravels(t *testing.T) {
	t.Parallel()

	req, err := http.NewRequest(http.MethodPost, "https://gw.example.com:8443/v1/infers/x%2Fy?b=2&a=1", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}

	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("X-Stage", "RELEASE")
	req.Header.Set("X-Mine", " v ")
	req.Header.Set("User-Agent", "not signed: proxies change it")

	s := signer()
	s.Headers = []string{"X-Mine"}

	if err := s.SignHTTP(req, []byte("{}"), time.Unix(1735787045, 0)); err != nil {
		t.Fatal(err)
	}

	a, err := sign.ParseAuthorization([]byte(req.Header.Get("Authorization")))
	if err != nil {
		t.Fatal(err)
	}

	if want := "content-type;host;x-mine;x-sdk-date;x-stage"; string(a.SignedHeaders) != want {
		t.Errorf("signed %s, want %s", a.SignedHeaders, want)
	}

	var b sign.Builder

	canonical := "POST\n/v1/infers/x/y/\na=1&b=2\ncontent-type:application/json\nhost:gw.example.com:8443\nx-mine:v\n" +
		"x-sdk-date:20250102T030405Z\nx-stage:RELEASE\n\ncontent-type;host;x-mine;x-sdk-date;x-stage\n" + string(hexDigest(sign.HMACSHA256, []byte("{}")))
	want := b.Sign(sign.NewKey([]byte("sk-very-secret")), &sign.Scope{Algorithm: sign.HMACSHA256, Date: []byte("20250102T030405Z")}, []byte(canonical))

	if a.Signature != want {
		t.Errorf("signature %x, want %x", a.Signature, want)
	}
}

func TestSignerRefusesWhatItCannotSign(t *testing.T) {
	t.Parallel()

	for name, s := range map[string]sign.Signer{
		"no key":       {Secret: spec.NewSecret("x")},
		"no secret":    {AccessKey: "AK"},
		"v11 unscoped": {AccessKey: "AK", Secret: spec.NewSecret("x"), Algorithm: sign.V11},
		"unknown":      {AccessKey: "AK", Secret: spec.NewSecret("x"), Algorithm: 9},
	} {
		if _, err := s.Prepare(); err == nil {
			t.Errorf("%s: prepared", name)
		}
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()

	key := sign.NewKey([]byte("sk-very-secret"))
	inJSON, err := json.Marshal(map[string]any{"key": key, "signer": signer()})
	if err != nil {
		t.Fatal(err)
	}

	var b strings.Builder

	b.Write(inJSON)

	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb+verb, key, signer())
	}

	text := b.String()

	if strings.Contains(text, "very") || strings.Contains(text, hex.EncodeToString([]byte("very"))) {
		t.Errorf("a secret prints: %s", text)
	}
}
