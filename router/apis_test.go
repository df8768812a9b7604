package router_test

import (
	"testing"

	"github.com/sluice-gateway/sluice/router"
	"github.com/sluice-gateway/sluice/router/pool"
	"github.com/sluice-gateway/sluice/spec"
)

func TestDeclaredAPIs(t *testing.T) {
	t.Parallel()

	flask := []spec.API{
		{URL: "/", Method: "POST"},
		{URL: "/greet", Method: "post"},
		{URL: "/goodbye", Method: "GET"},
		{URL: "/chat", Method: "POST", Protocol: "ws"},
		{URL: "/v2/*", Method: "POST"},
		{URL: "/v2/*", Method: "GET"},
		{URL: "/items/{id}/parts", Method: "GET"},
		{URL: "/blob/{id}/*", Method: "PUT"},
		{URL: "/grüße", Method: "POST"},
	}

	for _, tc := range []struct {
		name         string
		engine       spec.EngineKind
		apis         []spec.API
		method, path string
		want         router.Declaration
		allow        string
	}{
		{"root", spec.EngineCustom, flask, "POST", "/", router.Declared, ""},
		{"named", spec.EngineCustom, flask, "POST", "/greet", router.Declared, ""},
		{"other method", spec.EngineCustom, flask, "GET", "/greet", router.NoSuchMethod, "POST"},
		{"HEAD comes with GET", spec.EngineCustom, flask, "HEAD", "/goodbye", router.Declared, ""},
		{"trailing slash", spec.EngineCustom, flask, "POST", "/greet/", router.NoSuchPath, ""},
		{"below", spec.EngineCustom, flask, "POST", "/greet/x", router.NoSuchPath, ""},
		{"beginning alike", spec.EngineCustom, flask, "POST", "/greetings", router.NoSuchPath, ""},
		{"escaped letter", spec.EngineCustom, flask, "POST", "/%67reet", router.NoSuchPath, ""},
		{"health is not public", spec.EngineCustom, flask, "GET", "/health", router.NoSuchPath, ""},
		{"handshake", spec.EngineCustom, flask, "GET", "/chat", router.Declared, ""},
		{"below a star", spec.EngineExternal, flask, "POST", "/v2/models/m/infer", router.Declared, ""},
		{"the star's own", spec.EngineExternal, flask, "GET", "/v2", router.Declared, ""},
		{"star ends at a slash", spec.EngineExternal, flask, "GET", "/v22", router.NoSuchPath, ""},
		{"star, other method", spec.EngineExternal, flask, "DELETE", "/v2/x", router.NoSuchMethod, "POST, GET, HEAD"},
		{"parameter", spec.EngineCustom, flask, "GET", "/items/7/parts", router.Declared, ""},
		{"empty parameter", spec.EngineCustom, flask, "GET", "/items//parts", router.NoSuchPath, ""},
		{"parameter is one segment", spec.EngineCustom, flask, "GET", "/items/7/8/parts", router.NoSuchPath, ""},
		{"parameter, too short", spec.EngineCustom, flask, "GET", "/items/7", router.NoSuchPath, ""},
		{"parameter and star", spec.EngineCustom, flask, "PUT", "/blob/7/a/b", router.Declared, ""},
		{"parameter and nothing", spec.EngineCustom, flask, "PUT", "/blob/7", router.Declared, ""},
		{"beyond ASCII", spec.EngineCustom, flask, "POST", "/gr%C3%BC%C3%9Fe", router.Declared, ""},
		{"nothing declared", spec.EngineCustom, nil, "DELETE", "/anything/at/all", router.Declared, ""},
		{"our own runtime knows itself", spec.EngineONNX, flask, "GET", "/elsewhere", router.Declared, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			r, err := router.Compile(&spec.Route{ServiceID: "s", Versions: []spec.Version{{
				ModelID: "m", Weight: 100, Engine: tc.engine, APIs: tc.apis,
			}}}, make([]*pool.Pool, 1), router.NewTurns())
			if err != nil {
				t.Fatal(err)
			}

			v := &r.Versions()[0]

			got, allow := v.Declares([]byte(tc.method), []byte(tc.path))
			if got != tc.want || allow != tc.allow {
				t.Errorf("got %d %q, want %d %q", got, allow, tc.want, tc.allow)
			}
		})
	}
}
