package system_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// quickStop ends within moments.
const quickStop = "runtime: {drain_delay: 200ms, grace: 10s}\nedge: {drain: {delay: 100ms, deadline: 5s, ws_spread: 100ms}}\n"

// tool runs the binary once and returns its exit code and both outputs.
func tool(tb testing.TB, args ...string) (code int, out string) {
	tb.Helper()

	bin, err := binaries()
	if err != nil {
		tb.Fatal(err)
	}

	var buf bytes.Buffer

	cmd := exec.Command(filepath.Join(bin, "sluice"), args...)
	cmd.Stdout, cmd.Stderr = &buf, &buf

	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		tb.Fatal(err)
	}

	return cmd.ProcessState.ExitCode(), buf.String()
}

// TestBackupAndRestore backs up under load, loses everything, and goes on elsewhere.
func TestBackupAndRestore(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	s := start(t, filepath.Join(dir, "first"), quickStop)
	s.login()

	model, status := s.model("digits", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s", status)
	}

	service := s.deploy("digits", model, 1, nil)
	s.waitStatus(service, "running", 30*time.Second)

	full, bare := filepath.Join(dir, "full.tar.gz"), filepath.Join(dir, "bare.tar.gz")
	l := s.keepCalling(service, 2)

	if code, out := tool(t, "backup", "--data", s.data, "--output", full, "--with-keyring"); code != 0 {
		t.Fatalf("backup: %d %s", code, out)
	}

	if code, out := tool(t, "backup", "--data", s.data, "--output", full); code != 1 || !strings.Contains(out, "exists already") {
		t.Errorf("over a file that is there: %d %s", code, out)
	}

	l.stop(t, "backup under load")
	s.kill()

	// Nobody runs: the files themselves are read.
	code, out := tool(t, "backup", "--data", s.data, "--output", bare)
	if code != 0 || !strings.Contains(out, "key ring is not in it") {
		t.Fatalf("backup of what does not run: %d %s", code, out)
	}

	key, err := os.ReadFile(filepath.Join(s.data, "keyring"))
	if err != nil {
		t.Fatal(err)
	}

	keyring := filepath.Join(dir, "key")
	if err := os.WriteFile(keyring, key, 0o600); err != nil {
		t.Fatal(err)
	}

	if err := os.RemoveAll(s.data); err != nil {
		t.Fatal(err)
	}

	for name, args := range map[string][]string{"full": {"--from", full}, "bare": {"--from", bare, "--keyring", keyring}} {
		data := filepath.Join(dir, "restored", name)

		if code, out := tool(t, append([]string{"restore", "--data", data}, args...)...); code != 0 || !strings.Contains(out, "1 models") {
			t.Fatalf("%s: restore: %d %s", name, code, out)
		}

		if code, out := tool(t, append([]string{"restore", "--data", data}, args...)...); code != 1 || !strings.Contains(out, "not empty") {
			t.Errorf("%s: restore over it: %d %s", name, code, out)
		}

		// The first administrator is not made again: the state has one.
		if name == "bare" {
			copyBootstrap(t, s, data)
		}

		again := start(t, data, quickStop)
		again.token = s.token

		if label, err := again.predictDigit(again.EdgeTLS, service, 4); err != nil || label != "4" {
			t.Errorf("%s: with the token of before: %q, %v", name, label, err)
		}

		if again.Boot != s.Boot {
			t.Errorf("%s: other credentials", name)
		}

		again.login()

		if code := again.stop(30 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}
}

// copyBootstrap stands for the operator who kept the credentials.
func copyBootstrap(t *testing.T, s *sluice, data string) {
	t.Helper()

	raw, err := jsonOf(s.Boot)
	if err == nil {
		err = os.WriteFile(filepath.Join(data, "bootstrap.json"), raw, 0o600)
	}

	if err != nil {
		t.Fatal(err)
	}
}

func jsonOf(v any) ([]byte, error) { return json.Marshal(v) }
