package sign_test

import (
	"bytes"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/auth/sign"
)

// FuzzCanonical holds that the canonical form is its own canonical form, and that it is what the
// documented algorithm gives when done naively.
func FuzzCanonical(f *testing.F) {
	f.Add("/a%20b//c+d/%E4%B8%AD", "b=2&a=1&a=%20+x&&=&k")
	f.Add("", "%zz=%&;=;")

	f.Fuzz(func(t *testing.T, path, query string) {
		uri := sign.AppendURI(nil, []byte(path))
		if again := sign.AppendURI(nil, uri); !bytes.Equal(uri, again) {
			t.Errorf("path %q: %q, then %q", path, uri, again)
		}

		if decoded, err := url.PathUnescape(path); err == nil {
			if want := naiveURI(decoded); string(uri) != want {
				t.Errorf("path %q: got %q, want %q", path, uri, want)
			}
		}

		q := sign.AppendQuery(nil, []byte(query))
		if again := sign.AppendQuery(nil, q); !bytes.Equal(q, again) {
			t.Errorf("query %q: %q, then %q", query, q, again)
		}

		if values, err := url.ParseQuery(query); err == nil {
			// Encode sorts by key and keeps the order of values, so sort those first.
			for _, vs := range values {
				slices.Sort(vs)
			}

			want := strings.NewReplacer("+", "%20", "%7E", "~").Replace(values.Encode())
			if string(q) != want {
				t.Errorf("query %q: got %q, want %q", query, q, want)
			}
		}
	})
}

func naiveURI(decoded string) string {
	segments := strings.Split(decoded, "/")
	for i, s := range segments {
		segments[i] = strings.ReplaceAll(url.QueryEscape(s), "+", "%20")
	}

	uri := strings.Join(segments, "/")
	if !strings.HasSuffix(uri, "/") {
		uri += "/"
	}

	return uri
}

// FuzzParseAuthorization holds that what is parsed, written and parsed again stays the same.
func FuzzParseAuthorization(f *testing.F) {
	f.Add([]byte("SDK-HMAC-SHA256 Access=AK, SignedHeaders=host;x-sdk-date, Signature=" + strings.Repeat("0a", 32)))
	f.Add([]byte("V11-HMAC-SHA256 Credential=AK/20250102/r/s, SignedHeaders=x-sdk-date, Signature=" + strings.Repeat("0a", 32)))

	f.Fuzz(func(t *testing.T, value []byte) {
		a, err := sign.ParseAuthorization(value)
		if err != nil {
			return
		}

		if !sign.IsSignature(value) {
			t.Error("parsed, but not a signature")
		}

		again, err := sign.ParseAuthorization(sign.AppendAuthorization(nil, &a))
		if err != nil || again.Algorithm != a.Algorithm || !bytes.Equal(again.Access, a.Access) || !bytes.Equal(again.Info, a.Info) ||
			!bytes.Equal(again.SignedHeaders, a.SignedHeaders) || again.Signature != a.Signature {
			t.Errorf("%+v, then %+v, %v", a, again, err)
		}
	})
}
