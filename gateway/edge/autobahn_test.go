package edge_test

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestAutobahn runs the fuzzing client of Autobahn against a relay, if SLUICE_AUTOBAHN names its program:
// SLUICE_AUTOBAHN=/path/to/wstest [SLUICE_AUTOBAHN_CASES=1.*,2.*] go test -run TestAutobahn ./gateway/edge.
func TestAutobahn(t *testing.T) {
	program := os.Getenv("SLUICE_AUTOBAHN")
	if program == "" {
		t.Skip("SLUICE_AUTOBAHN does not name Autobahn's wstest")
	}

	cases := []string{"*"}
	if list := os.Getenv("SLUICE_AUTOBAHN_CASES"); list != "" {
		cases = strings.Split(list, ",")
	}

	k := withEngine(t, echoEngine(t))
	dir := t.TempDir()
	spec := filepath.Join(dir, "spec.json")

	raw, err := json.Marshal(map[string]any{
		"outdir": dir, "servers": []map[string]any{{"agent": "sluice", "url": k.url("/echo")}}, "cases": cases,
	})
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(spec, raw, 0o600); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(t.Context(), program, "-m", "fuzzingclient", "-s", spec)
	cmd.Dir = dir

	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	raw, err = os.ReadFile(filepath.Join(dir, "index.json"))
	if err != nil {
		t.Fatal(err)
	}

	var report map[string]map[string]struct{ Behavior, BehaviorClose string }
	if err := json.Unmarshal(raw, &report); err != nil {
		t.Fatal(err)
	}

	count := map[string]int{}

	for id, r := range report["sluice"] {
		count[r.Behavior]++

		if r.Behavior == "FAILED" || r.BehaviorClose == "FAILED" || r.BehaviorClose == "WRONG CODE" || r.BehaviorClose == "UNCLEAN" {
			t.Errorf("case %s: %s, close %s", id, r.Behavior, r.BehaviorClose)
		} else if r.Behavior == "NON-STRICT" {
			t.Logf("case %s: %s, close %s", id, r.Behavior, r.BehaviorClose)
		}
	}

	if len(report["sluice"]) == 0 {
		t.Error("no case was run")
	}

	t.Log(count)
}
