package router_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/router"
)

func TestCheckPath(t *testing.T) {
	t.Parallel()

	good := []string{
		"/", "/v1/infers/abc", "/v1/infers/abc/", "/a%20b/c%2Bd%3Ae%40f", "/100%25/~x_y-z.q", "/a.b/..c/c../...",
		"/v1/infers/x/v2/models/m/versions/1/infer", "/a;b=c/d,e", "/%E8%AF%86/x", "/a!$&'()*+=:@",
	}
	bad := []string{
		"", "a", "*", "//a", "/a//b", "/a//", "/.", "/..", "/a/../b", "/a/./b", "/a/..", "/%2e%2e/b", "/%2E/x", "/.%2e",
		"/a%2fb", "/a%2Fb", "/a%5cb", "/a\\b", "/a%00", "/a%0d%0ab", "/a\x00", "/a b", "/a\x7f", "/%7f", "/a%", "/a%2", "/a%zz",
		"/..;/x", "/.;x/y", "/%2e%2e;a/y", "/..%3bx/y", "/a#b", "/a?b", "/\xff", "/<x>", "/a\"b", "/a|b", "/{a}", "/a^b", "/[::1]",
	}

	for _, p := range good {
		if err := router.CheckPath([]byte(p)); err != nil {
			t.Errorf("%q refused: %v", p, err)
		}
	}

	for _, p := range bad {
		err := router.CheckPath([]byte(p))
		if err == nil {
			t.Errorf("%q accepted", p)
		} else if fault.From(err).Code != fault.BadRequest {
			t.Errorf("%q: %v", p, err)
		}
	}
}

// FuzzCheckPath: no decoding, cleaning or re-parsing moves an accepted path elsewhere.
func FuzzCheckPath(f *testing.F) {
	for _, seed := range []string{"/v1/infers/a/b", "/a/../b", "/%2e%2e/", "/a%2fb", "/..;/", "/%25%32%65"} {
		f.Add(seed)
	}

	f.Fuzz(func(t *testing.T, p string) {
		if router.CheckPath([]byte(p)) != nil {
			return
		}

		u, err := url.ParseRequestURI(p)
		if err != nil {
			t.Fatalf("%q accepted, but it does not parse: %v", p, err)
		}

		if u.EscapedPath() != p && u.RawPath != "" || u.RawQuery != "" || u.Host != "" {
			t.Fatalf("%q parsed to %+v", p, u)
		}

		clean := path.Clean(u.Path)
		if strings.HasSuffix(u.Path, "/") && clean != "/" {
			clean += "/"
		}

		if clean != u.Path {
			t.Fatalf("%q decodes to %q, which cleans to %q", p, u.Path, clean)
		}

		if strings.Count(u.Path, "/") != strings.Count(p, "/") || strings.ContainsAny(u.Path, "\\\x00\r\n") {
			t.Fatalf("%q decodes to %q", p, u.Path)
		}
	})
}

func TestMatchKnowsBothForms(t *testing.T) {
	t.Parallel()

	table := router.Table[int]{"a": 1, "b": 2}

	cases := []struct {
		path, id, rest    string
		service           int
		prediction, found bool
	}{
		{"/v1/infers/a", "a", "", 1, true, true},
		{"/v1/infers/a/", "a", "/", 1, true, true},
		{"/v1/infers/a/b", "a", "/b", 1, true, true},
		{"/v1/infers/pool/b", "b", "", 2, true, true},
		{"/v1/infers/pool/b/x/y", "b", "/x/y", 2, true, true},
		{"/v1/infers/pool/c/x", "pool", "/c/x", 0, true, false},
		{"/v1/infers/pool/", "pool", "/", 0, true, false},
		{"/v1/infers/", "", "", 0, false, false},
		{"/v1/infers", "", "", 0, false, false},
		{"/v1/infersa/a", "", "", 0, false, false},
		{"/v2/health", "", "", 0, false, false},
	}
	for _, tc := range cases {
		service, m := table.Match([]byte(tc.path))
		if service != tc.service || string(m.ID) != tc.id || string(m.Rest) != tc.rest || m.Prediction != tc.prediction || m.Found != tc.found {
			t.Errorf("%s: got %d, %q %q %v %v", tc.path, service, m.ID, m.Rest, m.Prediction, m.Found)
		}
	}
}
