package api_test

import (
	"strings"
	"testing"

	"github.com/sluice-gateway/sluice/internal/direct"
)

// testDirectChannel turns the channel of a service with a ready instance on and off.
func testDirectChannel(t *testing.T, p *platform, id, model string) {
	t.Helper()

	look := "/services/" + id + "/predict/endpoints?type=host_endpoints"

	if a := p.want(p.call("GET", look, nil), 403); a.get("error_code") != "APIG.0302" {
		t.Errorf("the channel is off, and the answer is %s", a.Body)
	}

	turn := func(channel map[string]any, status int) {
		t.Helper()
		p.want(p.call("PUT", "/services/"+id, map[string]any{"direct_channel": channel}), status)
	}

	for _, wrong := range []map[string]any{
		{"enabled": true, "allow": []string{"10.0.0.0/99"}},
		{"enabled": true, "key": "short"},
		{"enabled": true, "other": 1},
		{"enabled": true, "key": "has a space in its middle"},
		{"enabled": "yes"},
	} {
		turn(wrong, 400)
	}

	before := p.want(p.call("GET", "/services/"+id, nil), 200).get("generation")

	turn(map[string]any{"enabled": true, "allow": []string{"10.0.0.0/8"}, "key": "a key that is long"}, 400)
	turn(map[string]any{"enabled": true, "allow": []string{"10.0.0.0/8"}, "key": "a-key-that-is-long"}, 200)

	a := p.want(p.call("GET", "/services/"+id, nil), 200)
	if a.get("direct_channel.enabled") != "true" || a.get("direct_channel.has_key") != "true" || a.get("generation") == before {
		t.Errorf("got %s", a.Body)
	}

	if strings.Contains(a.Body.String(), "a-key-that-is-long") {
		t.Error("the key is shown")
	}

	it, err := p.st.Services.Get(t.Context(), id)
	must(t, err)

	if d := it.Value.Entries[0].Direct; d == nil || d.KeyHash != direct.HashKey("a-key-that-is-long") || d.Allow[0] != "10.0.0.0/8" {
		t.Errorf("the entry has %+v", d)
	}

	a = p.want(p.call("GET", look, nil), 200)
	for path, want := range map[string]string{
		"service_id": id, "endpoints.0.model_id": model, "endpoints.0.schema": "http", "endpoints.0.ip": "10.0.0.1",
		"endpoints.0.port": "31997", "endpoints.0.grpc_port": "31998", "endpoints.0.weight": "100", "endpoints.0.status": "ready",
	} {
		if got := a.get(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}

	p.want(p.call("GET", "/services/"+id+"/predict/endpoints?type=other", nil), 400)
}
