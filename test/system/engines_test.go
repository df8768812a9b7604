package system_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// tools are programs of this repository that tests run inside packages, built once each.
var tools = struct {
	sync.Mutex
	built map[string]string
}{built: map[string]string{}}

// build compiles a main package and returns the path of the binary.
func build(t testing.TB, pkg string) string {
	t.Helper()

	tools.Lock()
	defer tools.Unlock()

	if path := tools.built[pkg]; path != "" {
		return path
	}

	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}

	path := filepath.Join(bin, filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, "./"+pkg)
	cmd.Dir = repoRoot(t)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")

	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}

	tools.built[pkg] = path

	return path
}

// engineDir is a package directory with the binary of a main package and a config.json.
func engineDir(t testing.TB, pkg string, config map[string]any) string {
	t.Helper()

	dir := t.TempDir()
	link(t, build(t, pkg), filepath.Join(dir, filepath.Base(pkg)))

	if config == nil {
		link(t, filepath.Join(repoRoot(t), pkg, "config.json"), filepath.Join(dir, "config.json"))

		return dir
	}

	data, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(filepath.Join(dir, "config.json"), data, 0o600); err != nil {
		t.Fatal(err)
	}

	return dir
}

// link puts a copy of a file at another place, mode included.
func link(t testing.TB, from, to string) {
	t.Helper()

	if err := os.Link(from, to); err == nil {
		return
	}

	data, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}

	info, err := os.Stat(from)
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(to, data, info.Mode().Perm()); err != nil {
		t.Fatal(err)
	}
}

// publish publishes a package of any type and wants it published.
func (s *sluice) publish(name, modelType, dir string) string {
	s.t.Helper()

	a := s.call("POST", s.api("/models"), map[string]any{
		"model_name": name, "model_version": "1.0.0", "model_type": modelType, "source_location": dir,
	})
	if a.Status != http.StatusOK {
		s.t.Fatalf("create model: %d %s", a.Status, a.Body)
	}

	id, _ := a.json(s.t)["model_id"].(string)

	var last map[string]any

	s.eventually(20*time.Second, "published model "+name, func() bool {
		last = s.call("GET", s.api("/models/"+id), nil).json(s.t)
		if last["model_status"] == "failed" {
			s.t.Fatalf("model %s: %v", name, last)
		}

		return last["model_status"] == "published"
	})

	return id
}

// engine deploys the test's own engine and returns the address of the service at the edge.
func (s *sluice) engine(name string, instances int, config, extra map[string]any) (url, id string) {
	s.t.Helper()

	return s.custom(name, engineDir(s.t, "test/system/engine", engineConfig(config)), instances, extra)
}

// custom deploys a package of type Custom.
func (s *sluice) custom(name, dir string, instances int, extra map[string]any) (url, id string) {
	s.t.Helper()

	id = s.deploy(name, s.publish(name, "Custom", dir), instances, extra)
	s.waitStatus(id, "running", 30*time.Second)

	return s.Edge + "/v1/infers/" + id, id
}

func engineConfig(more map[string]any) map[string]any {
	c := map[string]any{
		"model_type": "Custom", "command": []string{"./engine"},
		"health": map[string]any{"url": "/health", "period_seconds": 1, "timeout_seconds": "2", "failure_threshold": "2"},
	}
	maps.Copy(c, more)

	return c
}

// pythonWith skips unless there is a Python that has the module.
func pythonWith(t testing.TB, module string) {
	t.Helper()

	if err := exec.Command("python3", "-c", "import "+module).Run(); err != nil {
		t.Skipf("python3 with the module %s is not on this machine (apt install python3-%s): %v", module, module, err)
	}
}
