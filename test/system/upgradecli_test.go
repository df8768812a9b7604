package system_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestUpgradeIsPausedResumedAborted steers upgrades from the command line, under load.
func TestUpgradeIsPausedResumedAborted(t *testing.T) {
	t.Parallel()

	s := start(t, "", quickStop)
	s.login()

	var models []string

	for v := range 2 {
		id, status := s.model("digits", fmt.Sprintf("1.0.%d", v), digitsDir(t))
		if status != "published" {
			t.Fatalf("version %d is %s", v, status)
		}

		models = append(models, id)
	}

	const instances = 4

	service := s.deploy("digits", models[0], instances, nil)
	s.waitStatus(service, "running", 30*time.Second)

	l := s.keepCalling(service, 2)

	do := func(verb, want string) {
		t.Helper()

		if code, out := tool(t, "service", verb, "digits", "--data", s.data); code != 0 || !strings.Contains(out, want) {
			t.Fatalf("%s: %d %s", verb, code, out)
		}
	}
	upgrade := func(model string) {
		t.Helper()

		a := s.call("PUT", s.api("/services/"+service), map[string]any{
			"config": []any{entry(model, 100, instances, map[string]any{"max_surge": 1, "max_unavailable": 0})},
		})
		if a.Status != http.StatusOK {
			t.Fatalf("update: %d %s", a.Status, a.Body)
		}
	}

	upgrade(models[1])
	do("pause", "paused")

	// What has begun may get ready; then nothing moves.
	var still any

	s.eventually(20*time.Second, "standstill", func() bool {
		before := s.call("GET", s.api("/services/"+service), nil).json(t)
		timer := time.NewTimer(1500 * time.Millisecond)
		<-timer.C

		after := s.call("GET", s.api("/services/"+service), nil).json(t)
		still = after["progress"]

		return after["status"] == "deploying" && before["progress"] == after["progress"]
	})

	if p, ok := still.(float64); !ok || p >= 100 {
		t.Errorf("paused at %v %%", still)
	}

	do("resume", "goes on")
	s.waitStatus(service, "running", 60*time.Second)

	if seen := s.modelsOf(service, 12); seen["digits/1.0.1"] != 12 {
		t.Errorf("after resume: %v", seen)
	}

	upgrade(models[0])
	do("pause", "paused")
	do("abort", "undone")
	s.waitStatus(service, "running", 60*time.Second)

	if seen := s.modelsOf(service, 12); seen["digits/1.0.1"] != 12 {
		t.Errorf("after abort: %v", seen)
	}

	l.stop(t, "pause, resume, abort")
	do("updates", "aborted by the user")
	do("updates", "SUCCESS")
}

// TestScheduledStop stops a service when its time has come, and starts it again with a new one.
func TestScheduledStop(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a minute is the shortest time that can be asked for")
	}

	t.Parallel()

	s := start(t, "", quickStop)
	s.login()

	model, status := s.model("digits", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s", status)
	}

	began := time.Now()
	service := s.deploy("digits", model, 1, map[string]any{
		"schedule": []any{map[string]any{"type": "stop", "time_unit": "MINUTES", "duration": 1}},
	})
	s.waitStatus(service, "running", 30*time.Second)

	l := s.keepCalling(service, 1)
	timer := time.NewTimer(time.Until(began.Add(57 * time.Second)))
	<-timer.C
	l.stop(t, "before the time")

	// A restart in between forgets nothing.
	s.kill()

	again := start(t, s.data, quickStop)
	again.token, again.Boot = s.token, s.Boot

	again.waitStatus(service, "stopped", 30*time.Second)

	if d := time.Since(began); d < time.Minute {
		t.Errorf("stopped after %v", d)
	}

	if left := again.workers(); len(left) > 0 {
		t.Errorf("workers %v", left)
	}

	if a := again.call("PUT", again.api("/services/"+service), map[string]any{"status": "running"}); a.Status != http.StatusOK {
		t.Fatalf("start: %d %s", a.Status, a.Body)
	}

	again.waitStatus(service, "running", 30*time.Second)

	if label, err := again.predictDigit(again.Edge, service, 3); err != nil || label != "3" {
		t.Errorf("started again: %q, %v", label, err)
	}
}
