package system_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestWebSocketExamples runs the examples of docs/examples/websocket.
func TestWebSocketExamples(t *testing.T) {
	t.Parallel()

	s := start(t, "", "")
	s.login()

	model, _ := s.model("digits", "1.0.0", digitsDir(t))
	id := s.deploy("ws-examples", model, 1, map[string]any{"additional_properties": map[string]any{"websocket_upgrade": true}})
	s.waitStatus(id, "running", 30*time.Second)

	url := "ws" + strings.TrimPrefix(s.Edge, "http") + "/v1/infers/" + id
	dir := filepath.Join(repoRoot(t), "docs/examples/websocket")

	run := func(t *testing.T, want, env, name string, args ...string) {
		t.Helper()

		cmd := exec.CommandContext(t.Context(), name, append(args, url, s.token)...)
		cmd.Env = append(os.Environ(), env)

		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("%v\n%s", err, out)
		}
	}

	t.Run("go", func(t *testing.T) { run(t, "answers 10", "", build(t, "docs/examples/websocket/wsclient")) })
	t.Run("python", func(t *testing.T) {
		lib := installed(t, "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "websockets>=14", "--target")
		run(t, "answers 21", "PYTHONPATH="+lib, "python3", filepath.Join(dir, "v2.py"))
	})
	t.Run("node", func(t *testing.T) {
		if _, err := exec.LookPath("node"); err != nil {
			t.Skip("node is not on this machine")
		}

		lib := installed(t, "npm", "install", "--silent", "--no-audit", "--no-fund", "ws@8", "--prefix")
		run(t, "answers 21", "NODE_PATH="+filepath.Join(lib, "node_modules"), "node", filepath.Join(dir, "v2.cjs"))
	})
}
