package system_test

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// gray is a running service with three versions of one model.
type gray struct {
	*sluice

	id     string
	models []string
	body   []byte
	ct     string
}

func newGray(t *testing.T) *gray {
	t.Helper()

	g := &gray{sluice: start(t, "", "")}
	g.login()
	g.body, g.ct = multipartOf(t, "images", sample(t, 7))

	for _, v := range []string{"1.0.0", "2.0.0", "3.0.0"} {
		id, status := g.model("digits", v, digitsDir(t))
		if status != "published" {
			t.Fatalf("model %s is %s", v, status)
		}

		g.models = append(g.models, id)
	}

	a := g.call("POST", g.api("/services"), map[string]any{
		"service_name": "gray", "infer_type": "real-time", "config": g.weights(90, 10, 0),
	})
	if a.Status != http.StatusOK {
		t.Fatalf("create service: %d %s", a.Status, a.Body)
	}

	g.id, _ = a.json(t)["service_id"].(string)
	g.waitStatus(g.id, "running", 60*time.Second)

	return g
}

func (g *gray) weights(ws ...int) []any {
	var out []any

	for i, w := range ws {
		out = append(out, map[string]any{
			"model_id": g.models[i], "weight": strconv.Itoa(w), "specification": "local.cpu", "instance_count": 1,
		})
	}

	return out
}

// change changes the service; it is in force when the call returns.
func (g *gray) change(what map[string]any) {
	g.t.Helper()

	if a := g.call("PUT", g.api("/services/"+g.id), what); a.Status != http.StatusOK {
		g.t.Fatalf("change: %d %s", a.Status, a.Body)
	}
}

// predict tells which version answered, by which rule.
func (g *gray) predict(query string, header ...string) (version, rule string) {
	g.t.Helper()

	a, err := g.try("POST", g.Edge+"/v1/infers/"+g.id+query, g.body, append(header, "Content-Type", g.ct)...)
	if err != nil || a.Status != http.StatusOK {
		g.t.Errorf("predict: %v %d %s", err, a.Status, a.Body)

		return "", ""
	}

	return a.Header.Get("X-Sluice-Model"), a.Header.Get("X-Sluice-Rule")
}

// spread sends n requests from four clients; header makes those of each.
func (g *gray) spread(n int, header func(i int) []string) []string {
	g.t.Helper()

	out := make([]string, n)

	var wg sync.WaitGroup

	for c := range 4 {
		wg.Go(func() {
			for i := c; i < n; i += 4 {
				out[i], _ = g.predict("", header(i)...)
			}
		})
	}

	wg.Wait()

	return out
}

func count(versions []string, version string) int {
	n := 0

	for _, v := range versions {
		if v == "digits/"+version {
			n++
		}
	}

	return n
}

// TestRoutingFromOutside splits, pins and rules requests among versions of a running service.
func TestRoutingFromOutside(t *testing.T) {
	t.Parallel()

	g := newGray(t)

	t.Run("weights", g.weightsHold)
	t.Run("sticky", g.stickyHolds)
	t.Run("rules", g.rulesHold)
	t.Run("mistakes", g.mistakesAreRefused)
}

func (g *gray) weightsHold(t *testing.T) {
	nobody := func(int) []string { return nil }

	for _, w := range [][]int{{90, 10, 0}, {50, 25, 25}, {0, 0, 100}, {1, 99, 0}} {
		g.change(map[string]any{"config": g.weights(w...)})

		got := g.spread(1000, nobody)
		for i, share := range w {
			if n := count(got, strconv.Itoa(i+1)+".0.0"); math.Abs(float64(n-10*share)) > 6 {
				t.Errorf("weights %v: version %d got %d of 1000", w, i+1, n)
			}
		}
	}
}

func (g *gray) stickyHolds(t *testing.T) {
	user := func(i int) []string { return []string{"Cookie", "a=b; sid=user-" + strconv.Itoa(i)} }

	g.change(map[string]any{"config": g.weights(90, 10, 0), "traffic_policy": map[string]any{"sticky": map[string]any{"by": "cookie", "name": "sid"}}})

	first, again := g.spread(1000, user), g.spread(1000, user)
	g.change(map[string]any{"config": g.weights(80, 20, 0)})

	after := g.spread(1000, user)
	moved := 0

	for i := range first {
		if first[i] != again[i] {
			t.Fatalf("user %d went to %s and to %s", i, first[i], again[i])
		}

		if first[i] != after[i] {
			moved++

			if after[i] != "digits/2.0.0" {
				t.Errorf("user %d moved from %s to %s", i, first[i], after[i])
			}
		}
	}

	if moved < 70 || moved > 130 {
		t.Errorf("%d of 1000 users moved, want about 100", moved)
	}
}

func (g *gray) rulesHold(t *testing.T) {
	for name, c := range map[string]struct {
		match  map[string]any
		query  string
		header []string
		want   bool
	}{
		"header":            {map[string]any{"header": map[string]any{"name": "X-Gray", "value": "1"}}, "", []string{"x-gray", "1"}, true},
		"another value":     {map[string]any{"header": map[string]any{"name": "X-Gray", "value": "1"}}, "", []string{"X-Gray", "11"}, false},
		"any value":         {map[string]any{"header": map[string]any{"name": "X-Gray"}}, "", []string{"X-Gray", "what"}, true},
		"cookie":            {map[string]any{"cookie": map[string]any{"name": "g", "value": "1"}}, "", []string{"Cookie", "xg=0; g=1"}, true},
		"another cookie":    {map[string]any{"cookie": map[string]any{"name": "g", "value": "1"}}, "", []string{"Cookie", "xg=1; g=12"}, false},
		"query":             {map[string]any{"query": map[string]any{"name": "g", "value": "a b"}}, "?x=1&g=a%20b", nil, true},
		"principal":         {map[string]any{"principal": g.Boot.User}, "", nil, true},
		"another principal": {map[string]any{"principal": "nobody"}, "", nil, false},
		"address":           {map[string]any{"cidr": "127.0.0.0/8"}, "", nil, true},
		"a claimed address": {
			map[string]any{"cidr": "10.0.0.0/8"}, "",
			[]string{"X-Forwarded-For", "10.1.2.3", "Forwarded", "for=10.1.2.3", "X-Real-Ip", "10.1.2.3"}, false,
		},
		"both": {map[string]any{
			"header": map[string]any{"name": "X-A", "value": "1"}, "query": map[string]any{"name": "b"},
		}, "?b=", []string{"X-A", "1"}, true},
		"one of both": {map[string]any{
			"header": map[string]any{"name": "X-A", "value": "1"}, "query": map[string]any{"name": "b"},
		}, "", []string{"X-A", "1"}, false},
	} {
		// The version has weight 0: a rule is the only way to it. Sticky values yield to it.
		g.change(map[string]any{"config": g.weights(90, 10, 0), "traffic_policy": map[string]any{
			"sticky": map[string]any{"by": "principal"},
			"rules":  []any{map[string]any{"name": "testers", "match": c.match, "model_id": g.models[2]}},
		}})

		version, rule := g.predict(c.query, c.header...)
		if hit := version == "digits/3.0.0" && rule == "testers"; hit != c.want || !hit && (rule != "" || version == "digits/3.0.0") {
			t.Errorf("%s: went to %s by %q", name, version, rule)
		}

		a := g.call("POST", g.Edge+"/v1/infers/"+g.id+c.query, g.body, append([]string{"X-Sluice-Explain", "route"}, c.header...)...)

		want := `rule \"testers\" does not match`
		if c.want {
			want = `rule \"testers\" matches: version digits/3.0.0`
		}

		if a.Status != http.StatusOK || !strings.Contains(string(a.Body), want) {
			t.Errorf("%s: explained as %d %s", name, a.Status, a.Body)
		}
	}
}

func (g *gray) mistakesAreRefused(t *testing.T) {
	rule := func(match any, model string) map[string]any {
		return map[string]any{"rules": []any{map[string]any{"match": match, "model_id": model}}}
	}
	header := map[string]any{"header": map[string]any{"name": "X", "value": "1"}}

	for field, policy := range map[string]any{
		"rules[0].model_id":           rule(header, "nope"),
		"rules[0].match":              rule(map[string]any{}, g.models[0]),
		"rules[0].match.cidr":         rule(map[string]any{"cidr": "10.0.0.0/99"}, g.models[0]),
		"rules[0].match.header.name":  rule(map[string]any{"header": map[string]any{"name": "a b"}}, g.models[0]),
		"rules[0].match.header.value": rule(map[string]any{"header": map[string]any{"name": "X", "value": "1\r\nY: 2"}}, g.models[0]),
		"rules[0].match.bogus":        rule(map[string]any{"bogus": 1}, g.models[0]),
		"rules[0].name": map[string]any{"rules": []any{map[string]any{
			"name": "a\r\nX-Evil: 1", "match": header, "model_id": g.models[0],
		}}},
		"sticky.by":   map[string]any{"sticky": map[string]any{"by": "moon"}},
		"sticky.name": map[string]any{"sticky": map[string]any{"by": "header", "name": "a b"}},
		"stick":       map[string]any{"stick": map[string]any{"by": "app"}},
	} {
		a := g.call("PUT", g.api("/services/"+g.id), map[string]any{"traffic_policy": policy})
		if a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "traffic_policy."+field+"]") {
			t.Errorf("%s: %d %s", field, a.Status, a.Body)
		}
	}

	for _, w := range [][]int{{90, 5, 0}, {101, -1, 0}, {50, 50, 50}} {
		if a := g.call("PUT", g.api("/services/"+g.id), map[string]any{"config": g.weights(w...)}); a.Status != http.StatusBadRequest {
			t.Errorf("weights %s: %d %s", fmt.Sprint(w), a.Status, a.Body)
		}
	}
}
