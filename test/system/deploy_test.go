package system_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"
)

// TestAlertsNameMetricsThatExist holds the shipped rules against a running system.
func TestAlertsNameMetricsThatExist(t *testing.T) {
	t.Parallel()

	data, err := os.ReadFile(filepath.Join(repoRoot(t), "deploy/prometheus/alerts.yaml"))
	if err != nil {
		t.Fatal(err)
	}

	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert, Expr string
				Annotations map[string]string
			}
		}
	}
	if err := yaml.Unmarshal(data, &rules); err != nil {
		t.Fatal(err)
	}

	s := start(t, "", "")
	metrics := string(s.call("GET", s.Ops+"/metrics", nil).Body)
	name := regexp.MustCompile(`sluice_[a-z_]+`)
	seen := 0

	for _, g := range rules.Groups {
		for _, r := range g.Rules {
			if r.Annotations["summary"] == "" {
				t.Errorf("%s has no summary", r.Alert)
			}

			for _, m := range name.FindAllString(r.Expr, -1) {
				seen++

				// A vector without a series yet has no line; its name is then in the source alone.
				if !strings.Contains(metrics, "# TYPE "+m+" ") && !inSource(t, m) {
					t.Errorf("%s: there is no metric %s", r.Alert, m)
				}
			}
		}
	}

	if seen < 9 {
		t.Errorf("only %d metrics in the rules", seen)
	}
}

// inSource reports whether a metric of this name is registered by the gateway's or control's telemetry.
func inSource(t *testing.T, metric string) bool {
	t.Helper()

	files, err := filepath.Glob(filepath.Join(repoRoot(t), "internal/telemetry/*/*.go"))
	if err != nil {
		t.Fatal(err)
	}

	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}

		if strings.Contains(string(data), `"`+metric+`"`) {
			return true
		}
	}

	return false
}

// TestUnitsCallCommandsThatExist runs the commands of the systemd units with --check.
func TestUnitsCallCommandsThatExist(t *testing.T) {
	t.Parallel()

	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}

	units, err := filepath.Glob(filepath.Join(repoRoot(t), "deploy/systemd/*.service"))
	if err != nil || len(units) != 3 {
		t.Fatalf("%v, %v", units, err)
	}

	config := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(config, []byte(minimalConfig), 0o600); err != nil {
		t.Fatal(err)
	}

	start := regexp.MustCompile(`(?m)^ExecStart=/usr/local/bin/sluice (.*)$`)

	for _, u := range units {
		data, err := os.ReadFile(u)
		if err != nil {
			t.Fatal(err)
		}

		m := start.FindSubmatch(data)
		if m == nil {
			t.Fatalf("%s: no ExecStart", u)
		}

		args := strings.Fields(string(m[1]))
		for i, a := range args {
			if strings.HasPrefix(a, "/etc/sluice/") {
				args[i] = config
			}
		}

		runCheck(t, filepath.Join(bin, "sluice"), append(args, "--check"))
	}
}

func runCheck(t *testing.T, command string, args []string) {
	t.Helper()

	if out, err := exec.Command(command, args...).CombinedOutput(); err != nil || !strings.Contains(string(out), "the configuration is good") {
		t.Errorf("%s: %v %s", strings.Join(args, " "), err, out)
	}
}
