package system_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestVendorSigners lets the platform's own SDKs sign requests to a running gateway. They are
// fetched for it, so it runs only when SLUICE_VENDOR_SDKS is set; SLUICE_PYTHON may name an
// interpreter that has huaweicloudsdkcore.
func TestVendorSigners(t *testing.T) {
	t.Parallel()

	if os.Getenv("SLUICE_VENDOR_SDKS") == "" {
		t.Skip("SLUICE_VENDOR_SDKS is not set: the SDKs of the platform are not fetched")
	}

	s := start(t, "", "auth: {lock: {after: 1000}}\ndeploy:\n- {service: digits, model: digits, source: "+digitsDir(t)+"}\n")
	s.login()

	list := s.call("GET", s.api("/services?service_name=digits"), nil).json(t)
	service, _ := list["services"].([]any)[0].(map[string]any)["service_id"].(string)
	args := []string{s.Edge, service, s.Boot.AccessKey, s.Boot.SecretKey}

	source, err := filepath.Abs("testdata/vendor")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("Go", func(t *testing.T) {
		dir := t.TempDir()

		program, err := os.ReadFile(filepath.Join(source, "main.go"))
		if err != nil {
			t.Fatal(err)
		}

		for name, text := range map[string]string{"main.go": string(program), "go.mod": "module vendor\n\ngo 1.24\n"} {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}

		get := exec.CommandContext(t.Context(), "go", "get", "github.com/huaweicloud/huaweicloud-sdk-go-v3/core/...@v0.1.207")
		get.Dir = dir

		if out, err := get.CombinedOutput(); err != nil {
			t.Fatalf("fetch the SDK: %v\n%s", err, out)
		}

		cmd := exec.CommandContext(t.Context(), "go", append([]string{"run", "."}, args...)...)
		cmd.Dir = dir
		checkVendor(t, cmd, 18)
	})

	t.Run("Python", func(t *testing.T) {
		python := os.Getenv("SLUICE_PYTHON")
		if python == "" {
			python = "python3"
		}

		if err := exec.CommandContext(t.Context(), python, "-c", "import huaweicloudsdkcore").Run(); err != nil {
			t.Skipf("%s has no huaweicloudsdkcore: %v", python, err)
		}

		checkVendor(t, exec.CommandContext(t.Context(), python, append([]string{filepath.Join(source, "vendor.py")}, args...)...), 24)
	})
}

// checkVendor holds every line against its status: good secrets come in, wrong ones do not.
func checkVendor(t *testing.T, cmd *exec.Cmd, lines int) {
	t.Helper()

	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}

	n := 0

	for line := range strings.Lines(string(out)) {
		n++

		if refused := strings.Contains(line, " 401 "); refused != strings.Contains(line, " false ") || strings.Contains(line, " 50") {
			t.Error(line)
		}
	}

	if n != lines {
		t.Errorf("%d answers, want %d:\n%s", n, lines, out)
	}
}
