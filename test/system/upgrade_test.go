package system_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// load is clients that predict without a pause and count what goes wrong.
type load struct {
	served, wrong atomic.Int64
	first         atomic.Value
	done          atomic.Bool
	wg            sync.WaitGroup
	byModel       sync.Map // X-Sluice-Model -> *atomic.Int64
}

// keepCalling starts n clients that call a digit's picture and check the answer.
func (s *sluice) keepCalling(service string, n int) *load {
	l := &load{}
	body, ct := multipartOf(s.t, "images", sample(s.t, 7))

	for range n {
		l.wg.Go(func() {
			for !l.done.Load() {
				a, err := s.try("POST", s.Edge+"/v1/infers/"+service, body, "Content-Type", ct)

				switch {
				case err != nil:
					l.fail(err.Error())
				case a.Status != http.StatusOK || !strings.Contains(string(a.Body), `"predicted_label":"7"`):
					l.fail(fmt.Sprintf("%d %s", a.Status, a.Body))
				default:
					c, _ := l.byModel.LoadOrStore(a.Header.Get("X-Sluice-Model"), new(atomic.Int64))
					c.(*atomic.Int64).Add(1)
				}

				l.served.Add(1)
			}
		})
	}

	return l
}

func (l *load) fail(what string) {
	l.wrong.Add(1)
	l.first.CompareAndSwap(nil, what)
}

func (l *load) stop(t *testing.T, what string) {
	t.Helper()
	l.done.Store(true)
	l.wg.Wait()

	if l.wrong.Load() > 0 {
		t.Errorf("%s: %d of %d requests failed; the first: %v", what, l.wrong.Load(), l.served.Load(), l.first.Load())
	}
}

// entry is one element of a service's config.
func entry(model string, weight, instances int, additional map[string]any) map[string]any {
	return map[string]any{
		"model_id": model, "weight": weight, "specification": "local.cpu", "instance_count": instances,
		"additional_properties": additional,
	}
}

// modelsOf counts which version answers n requests.
func (s *sluice) modelsOf(service string, n int, header ...string) map[string]int {
	s.t.Helper()

	body, ct := multipartOf(s.t, "images", sample(s.t, 7))
	out := map[string]int{}

	for range n {
		a := s.call("POST", s.Edge+"/v1/infers/"+service, body, append([]string{"Content-Type", ct}, header...)...)
		if a.Status != http.StatusOK {
			s.t.Fatalf("%d %s", a.Status, a.Body)
		}

		out[a.Header.Get("X-Sluice-Model")]++
	}

	return out
}

// TestUpgradesLoseNothing upgrades a service in the three modes under load.
func TestUpgradesLoseNothing(t *testing.T) {
	t.Parallel()

	s := start(t, "", "runtime: {drain_delay: 300ms, grace: 20s}\n")
	s.login()

	var models []string

	for v := range 4 {
		id, status := s.model("digits", fmt.Sprintf("1.0.%d", v), digitsDir(t))
		if status != "published" {
			t.Fatalf("version %d is %s", v, status)
		}

		models = append(models, id)
	}

	service := s.deploy("digits", models[0], 2, nil)
	s.waitStatus(service, "running", 30*time.Second)

	for i, mode := range []struct {
		name       string
		additional map[string]any
	}{
		{"full", map[string]any{"max_surge": 2, "max_unavailable": 0}},
		{"expand", map[string]any{"max_surge": 1, "max_unavailable": 0}},
		{"shrink", map[string]any{"max_surge": 0, "max_unavailable": 1}},
	} {
		l := s.keepCalling(service, 4)
		s.eventually(20*time.Second, "load", func() bool { return l.served.Load() > 20 })

		a := s.call("PUT", s.api("/services/"+service), map[string]any{
			"config": []any{entry(models[i+1], 100, 2, mode.additional)},
		})
		if a.Status != http.StatusOK {
			t.Fatalf("%s: update: %d %s", mode.name, a.Status, a.Body)
		}

		want := fmt.Sprintf("digits/1.0.%d", i+1)

		s.eventually(60*time.Second, mode.name+" upgrade", func() bool {
			state := s.call("GET", s.api("/services/"+service), nil).json(t)
			seen := s.modelsOf(service, 6)

			return state["status"] == "running" && seen[want] == 6
		})
		l.stop(t, mode.name)
	}

	logs := string(s.call("GET", s.api("/services/"+service+"/logs"), nil).Body)
	if strings.Count(logs, "SUCCESS") < 3 {
		t.Errorf("update logs: %s", logs)
	}
}

// TestFailedUpgradeRollsBack upgrades to a model that cannot start; the old one never stops serving.
func TestFailedUpgradeRollsBack(t *testing.T) {
	t.Parallel()

	s := start(t, "", "runtime: {drain_delay: 300ms, grace: 20s}\n")
	s.login()

	good, _ := s.model("digits", "1.0.0", digitsDir(t))
	service := s.deploy("digits", good, 1, nil)
	s.waitStatus(service, "running", 30*time.Second)

	bad, status := s.model("broken", "1.0.0", brokenPackage(t))
	if status != "published" {
		t.Skip("the broken package is refused before it can be deployed")
	}

	l := s.keepCalling(service, 2)

	a := s.call("PUT", s.api("/services/"+service), map[string]any{"config": []any{entry(bad, 100, 1, nil)}})
	if a.Status != http.StatusOK {
		t.Fatalf("update: %d %s", a.Status, a.Body)
	}

	s.eventually(60*time.Second, "rollback", func() bool {
		logs := string(s.call("GET", s.api("/services/"+service+"/logs"), nil).Body)
		state := s.call("GET", s.api("/services/"+service), nil).json(t)

		return strings.Contains(logs, "FAIL") && state["status"] == "running"
	})
	l.stop(t, "rollback")

	if seen := s.modelsOf(service, 5); seen["digits/1.0.0"] != 5 {
		t.Errorf("after the rollback: %v", seen)
	}
}

// TestGrayRelease splits traffic by weight, changes the weights, and sends testers by rule.
func TestGrayRelease(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	old, _ := s.model("digits", "1.0.0", digitsDir(t))
	next, _ := s.model("digits", "2.0.0", digitsDir(t))

	a := s.call("POST", s.api("/services"), map[string]any{
		"service_name": "gray", "infer_type": "real-time",
		"config": []any{entry(old, 90, 1, nil), entry(next, 10, 1, nil)},
		"traffic_policy": map[string]any{"rules": []any{map[string]any{
			"name": "testers", "model_id": next, "match": map[string]any{"header": map[string]any{"name": "X-Group", "value": "test"}},
		}}},
	})
	if a.Status != http.StatusOK {
		t.Fatalf("create: %d %s", a.Status, a.Body)
	}

	service, _ := a.json(t)["service_id"].(string)
	s.waitStatus(service, "running", 30*time.Second)

	if seen := s.modelsOf(service, 500); seen["digits/2.0.0"] < 25 || seen["digits/2.0.0"] > 80 {
		t.Errorf("90/10 gave %v", seen)
	}

	if seen := s.modelsOf(service, 20, "X-Group", "test"); seen["digits/2.0.0"] != 20 {
		t.Errorf("testers got %v", seen)
	}

	workers := s.workers()

	a = s.call("PUT", s.api("/services/"+service), map[string]any{"config": []any{entry(old, 0, 1, nil), entry(next, 100, 1, nil)}})
	if a.Status != http.StatusOK {
		t.Fatalf("change weights: %d %s", a.Status, a.Body)
	}

	began := time.Now()

	s.eventually(5*time.Second, "new weights", func() bool { return s.modelsOf(service, 10)["digits/2.0.0"] == 10 })

	if d := time.Since(began); d > time.Second && !raceEnabled {
		t.Errorf("new weights took %v", d)
	}

	if now := s.workers(); len(now) != len(workers) || !contains(now, workers[0]) {
		t.Errorf("a change of weights changed the workers: %v, before %v", now, workers)
	}
}
