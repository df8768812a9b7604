package web_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/auth"
	"github.com/sluice-gateway/sluice/control/web"
	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/spec"
)

// gate lets in who sends "X-Auth-Token: good" and allows everything but the action "no".
type gate struct{ saw auth.Request }

func (g *gate) Authenticate(r *auth.Request) (*auth.Principal, error) {
	g.saw = *r

	if string(r.Header.Get("x-auth-token")) != "good" {
		return nil, fault.New(fault.NoCredentials, "")
	}

	return &auth.Principal{UserID: "u"}, nil
}

func (*gate) Authorize(_ *auth.Principal, action, projectID, id string) error {
	if action == "no" {
		return fault.New(fault.Forbidden, "%s in %s denied", id, projectID)
	}

	return nil
}

func router(t *testing.T, g *gate, cfg web.Config, log io.Writer) *web.Router {
	t.Helper()

	say := func(text string) web.Handler {
		return func(r *web.Request) (any, error) {
			return map[string]string{"op": text, "a": r.Var("a"), "b": r.Var("b")}, nil
		}
	}

	rt, err := web.New(cfg, g, slog.New(slog.NewTextHandler(log, nil)),
		web.Route{Name: "get", Method: http.MethodGet, Pattern: "/x/{a}", Handle: say("param")},
		web.Route{Name: "lit", Method: http.MethodGet, Pattern: "/x/lit", Handle: say("literal")},
		web.Route{Name: "apps", Method: http.MethodGet, Pattern: "/x/apps/{a}/exists", Handle: say("exists")},
		web.Route{Name: "apis", Method: http.MethodGet, Pattern: "/x/{a}/apis/{b}", Handle: say("apis")},
		web.Route{Name: "del", Method: http.MethodDelete, Pattern: "/x/{a}", Handle: func(*web.Request) (any, error) {
			return web.Reply{Status: http.StatusNoContent}, nil
		}},
		web.Route{Name: "no", Method: http.MethodPost, Pattern: "/p/{project_id}/x/{a}", Action: "no", Resource: "a", Handle: say("never")},
		web.Route{Name: "panic", Method: http.MethodPost, Pattern: "/panic", Handle: func(*web.Request) (any, error) { panic("boom secret") }},
		web.Route{Name: "fail", Method: http.MethodPost, Pattern: "/v3/fail", Style: web.IAM, Public: true, Handle: func(*web.Request) (any, error) {
			return nil, errors.New("password=hunter2")
		}},
		web.Route{Name: "echo", Method: http.MethodPost, Pattern: "/echo", Handle: func(r *web.Request) (any, error) {
			var in struct {
				N int `json:"n"`
			}

			return &in, r.Decode(&in)
		}},
	)
	if err != nil {
		t.Fatal(err)
	}

	return rt
}

func call(rt http.Handler, method, target, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	r.Header.Set("X-Auth-Token", "good")

	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}

	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)

	return w
}

func TestRouterFindsTheOperation(t *testing.T) {
	t.Parallel()

	rt := router(t, &gate{}, web.Config{}, io.Discard)

	for target, want := range map[string]string{
		"/x/1":                `"param"`,
		"/x/1/":               `"param"`,
		"/x/a%20b":            `"a":"a b"`,
		"/x/lit":              `"literal"`,
		"/x/apps/apis/exists": `"exists"`,
		"/x/svc/apis/7":       `"b":"7"`,
	} {
		if w := call(rt, http.MethodGet, target, ""); w.Code != http.StatusOK || !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}

	for _, target := range []string{"/", "/x", "/x//", "/x/.", "/x/%2e%2e", "/x/a%2fb", "/x/%00", "/x/%ff", "/x/a%0ab", "/x/1/2", strings.Repeat("/x", 40)} {
		w := call(rt, http.MethodGet, target, "")
		if w.Code != http.StatusNotFound || !strings.Contains(w.Body.String(), "APIG.0101") {
			t.Errorf("%s: %d %s", target, w.Code, w.Body)
		}
	}

	if w := call(rt, http.MethodPut, "/x/1", ""); w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") != "DELETE, GET" {
		t.Errorf("wrong method: %d, Allow %q", w.Code, w.Header().Get("Allow"))
	}

	if w := call(rt, http.MethodDelete, "/x/1", ""); w.Code != http.StatusNoContent || w.Body.Len() > 0 {
		t.Errorf("no content: %d %q", w.Code, w.Body)
	}

	if w := call(rt, http.MethodHead, "/x/1", ""); w.Code != http.StatusOK || w.Body.Len() > 0 || w.Header().Get("Content-Length") == "" {
		t.Errorf("HEAD: %d %q %v", w.Code, w.Body, w.Header())
	}
}

func TestRouterRefusesARouteGivenTwice(t *testing.T) {
	t.Parallel()

	r := web.Route{Method: http.MethodGet, Pattern: "/x/{a}"}
	if _, err := web.New(web.Config{}, nil, slog.Default(), r, web.Route{Method: http.MethodGet, Pattern: "/x/{b}"}); err == nil {
		t.Fatal("taken")
	}
}

func TestRouterAuthenticatesAndAuthorizes(t *testing.T) {
	t.Parallel()

	g := &gate{}
	rt := router(t, g, web.Config{}, io.Discard)

	w := call(rt, http.MethodGet, "/x/a%20b?q=%2B", "", "X-Auth-Token", "bad", "X-Sdk-Date", "d")
	if w.Code != http.StatusUnauthorized {
		t.Fatalf("got %d", w.Code)
	}

	if string(g.saw.Path) != "/x/a%20b" || string(g.saw.Query) != "q=%2B" || string(g.saw.Header.Get("x-sdk-date")) != "d" ||
		string(g.saw.Header.Get("host")) != "example.com" || g.saw.Remote.String() != "192.0.2.1" {
		t.Fatalf("verifiers saw %+v", g.saw)
	}

	var body map[string]string
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body["request_id"] != w.Header().Get("X-Request-Id") || len(body["request_id"]) != 32 {
		t.Fatalf("body %v, %v", body, err)
	}

	if w := call(rt, http.MethodPost, "/p/pid/x/7", ""); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "7 in pid denied") {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}
}

func TestRouterSurvivesPanicAndHidesInternals(t *testing.T) {
	t.Parallel()

	var log bytes.Buffer

	done := 0
	rt := router(t, &gate{}, web.Config{Hooks: web.Hooks{Done: func(_ *web.Route, _ *web.Request, status int, err error) {
		done++

		if status != http.StatusInternalServerError || err == nil {
			t.Errorf("hook got %d, %v", status, err)
		}
	}}}, &log)

	w := call(rt, http.MethodPost, "/panic", "")
	if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "boom") || !strings.Contains(log.String(), "boom") {
		t.Fatalf("got %d %s", w.Code, w.Body)
	}

	w = call(rt, http.MethodPost, "/v3/fail", "")
	if want := `{"error":{"code":500,"message":"Internal error.","title":"Internal Server Error"}}`; w.Body.String() != want {
		t.Fatalf("got %s", w.Body)
	}

	if done != 2 {
		t.Fatalf("hook ran %d times", done)
	}
}

func TestAClientThatLeavesIsNotAFailureOfThePlatform(t *testing.T) {
	t.Parallel()

	away := func(r *web.Request) (any, error) {
		return nil, fmt.Errorf("list services: %w", fault.Wrap(fault.Unavailable, r.HTTP.Context().Err(), ""))
	}

	for name, c := range map[string]struct {
		leaves bool
		status int
	}{
		"left":                               {true, 499},
		"here, and the store is really away": {false, http.StatusServiceUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()

			var log bytes.Buffer

			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()

			handle := func(r *web.Request) (any, error) {
				if c.leaves {
					cancel()

					return away(r)
				}

				return nil, fault.Wrap(fault.Unavailable, context.Canceled, "")
			}

			rt, err := web.New(web.Config{}, &gate{}, slog.New(slog.NewTextHandler(&log, nil)),
				web.Route{Name: "list", Method: http.MethodGet, Pattern: "/list", Public: true, Handle: handle})
			if err != nil {
				t.Fatal(err)
			}

			w := httptest.NewRecorder()
			rt.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/list", nil))

			if w.Code != c.status {
				t.Errorf("got %d %s, want %d", w.Code, w.Body, c.status)
			}

			if failed := strings.Contains(log.String(), "level=ERROR"); failed == c.leaves {
				t.Errorf("logged as a failure: %v: %s", failed, log.String())
			}
		})
	}
}

func TestBodiesAreBounded(t *testing.T) {
	t.Parallel()

	rt := router(t, &gate{}, web.Config{MaxBodyBytes: 100}, io.Discard)
	long := `{"n":1,"x":"` + strings.Repeat("x", 100) + `"}`

	for name, c := range map[string]struct {
		body   string
		header []string
		status int
		code   string
	}{
		"fits":             {`{"n":1}`, nil, 200, `{"n":1}`},
		"null":             {`{"n":null,"other":[{}]}`, nil, 200, `{"n":0}`},
		"too long":         {long, nil, 413, "ModelArts.4104"},
		"empty":            {" ", nil, 400, "ModelArts.4202"},
		"no JSON":          {"{", nil, 400, "ModelArts.4105"},
		"trailing":         {"{} {}", nil, 400, "ModelArts.4105"},
		"wrong type":       {`{"n":"1"}`, nil, 400, "The field [n] must be an integer, not a string"},
		"wrong top type":   {`[]`, nil, 400, "The field [body] must be an object, not an array"},
		"content encoding": {`{"n":1}`, []string{"Content-Encoding", "gzip"}, 415, "Sluice.1004"},
	} {
		w := call(rt, http.MethodPost, "/echo", c.body, c.header...)
		if w.Code != c.status || !strings.Contains(w.Body.String(), c.code) {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}

	// A body of unknown length is counted while it is read.
	r := httptest.NewRequest(http.MethodPost, "/echo", struct{ io.Reader }{strings.NewReader(long)})
	r.Header.Set("X-Auth-Token", "good")

	w := httptest.NewRecorder()
	rt.ServeHTTP(w, r)

	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("chunked: %d %s", w.Code, w.Body)
	}
}

type document struct {
	Name   string             `json:"name"`
	Weight *spec.Int          `json:"weight"`
	Share  float64            `json:"share"`
	Flag   *bool              `json:"flag"`
	Envs   map[string]string  `json:"envs"`
	List   []document         `json:"list"`
	Raw    json.RawMessage    `json:"raw"`
	Any    any                `json:"any"`
	Deep   map[string][]int64 `json:"deep"`
	Strict *struct {
		In []struct {
			A int `json:"a"`
		} `json:"in"`
	} `json:"strict" web:"strict"`
}

func TestUnmarshalNamesTheFieldThatIsWrong(t *testing.T) {
	t.Parallel()

	for in, want := range map[string]string{
		`{"name":1}`:                                    "[name] must be a string, not the number 1",
		`{"list":[{},{"share":"x"}]}`:                   "[list[1].share] must be a number, not a string",
		`{"list":{}}`:                                   "[list] must be an array, not an object",
		`{"list":[null]}`:                               "[list[0]] must not be null",
		`{"envs":{"A":1}}`:                              "[envs.A] must be a string",
		`{"envs":[]}`:                                   "[envs] must be an object",
		`{"flag":"true"}`:                               "[flag] must be true or false",
		`{"weight":"x"}`:                                "[weight]",
		`{"weight":1.5}`:                                "[weight]",
		`{"deep":{"a":[1,2.5]}}`:                        "[deep.a[1]] must be an integer, not the number 2.5",
		`{"deep":{"a":[1e30]}}`:                         "[deep.a[0]] must be an integer",
		`{"strict":{"in":[{"a":1},{"b":1}]}}`:           "[strict.in[1].b] is unknown",
		`{"name":1,"share":true}`:                       "[name] must be a string, not the number 1; The field [share]",
		strings.Repeat("[", 65):                         "nested deeper than 64 levels",
		"{\"name\":\"\xff\"}":                           "not UTF-8",
		`{"list":[` + repeat(`{"share":""}`, 40) + `]}`: "more mistakes",
	} {
		var d document

		err := web.Unmarshal([]byte(in), 64, &d)
		if err == nil || !strings.Contains(err.Error(), want) || fault.From(err).Code.Status() != 400 {
			t.Errorf("%.60s: %v", in, err)
		}
	}
}

func TestUnmarshalReadsEveryKind(t *testing.T) {
	t.Parallel()

	in := `{"name":"n","NAME":"other","weight":"70","share":0.5,"flag":false,"envs":{"A":"b"},"list":[{"name":"in"}],
		"raw":{"x":[1,"\"]{"]},"any":[1],"deep":{"k":[1.0,2e2]},"unknown":{"x":1}}`

	var d document
	if err := web.Unmarshal([]byte(in), 64, &d); err != nil {
		t.Fatal(err)
	}

	if d.Name != "n" || *d.Weight != 70 || d.Share != 0.5 || *d.Flag || d.Envs["A"] != "b" || d.List[0].Name != "in" ||
		string(d.Raw) != `{"x":[1,"\"]{"]}` || d.Deep["k"][1] != 200 {
		t.Fatalf("got %+v", d)
	}
}

func TestQuery(t *testing.T) {
	t.Parallel()

	var got web.Page

	rt, err := web.New(web.Config{}, &gate{}, slog.New(slog.DiscardHandler), web.Route{
		Method: http.MethodGet, Pattern: "/q", Handle: func(r *web.Request) (any, error) {
			q := r.Query()
			got = q.Page()
			_ = q.Enum("order", "desc", "asc", "desc")
			_ = q.Bool("flag")

			return map[string]any{"s": q.String("s")}, q.Err()
		},
	})
	if err != nil {
		t.Fatal(err)
	}

	if w := call(rt, http.MethodGet, "/q?offset=3&limit=5000&order=asc&flag=True&s=%E4%B8%AD", ""); w.Code != 200 || got != (web.Page{Offset: 3, Limit: 1000}) {
		t.Fatalf("%d %s %+v", w.Code, w.Body, got)
	}

	for query, field := range map[string]string{
		"offset=-1": "offset", "limit=0": "limit", "limit=x": "limit", "order=up": "order", "flag=1": "flag", "s=%00": "s",
		"s=%zz": "query", "offset=99999999999999999999": "offset",
	} {
		if w := call(rt, http.MethodGet, "/q?"+query, ""); w.Code != 400 || !strings.Contains(w.Body.String(), "["+field+"]") {
			t.Errorf("%s: %d %s", query, w.Code, w.Body)
		}
	}
}

func TestCutStaysInside(t *testing.T) {
	t.Parallel()

	items := []int{0, 1, 2, 3}
	for p, n := range map[web.Page]int{{0, 2}: 2, {3, 2}: 1, {4, 2}: 0, {9, 9}: 0, {0, 1000}: 4} {
		if got := web.Cut(p, items); len(got) != n {
			t.Errorf("%+v: %v", p, got)
		}
	}
}

func FuzzUnmarshal(f *testing.F) {
	f.Add([]byte(`{"name":"a","weight":"1","list":[{"deep":{"a":[1]}}]}`))
	f.Add([]byte(`[[[["\\"]]]]`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d document
		if err := web.Unmarshal(data, 16, &d); err == nil && !json.Valid(data) {
			t.Fatalf("took what is no JSON: %q", data)
		} else if err != nil && fault.From(err).Code == fault.Internal {
			t.Fatalf("unclassified error %v", err)
		}
	})
}

func repeat(s string, n int) string {
	return strings.TrimSuffix(strings.Repeat(s+",", n), ",")
}
