package system_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// shellBlocks returns the fenced sh blocks of a Markdown file, in order.
func shellBlocks(t *testing.T, path string) []string {
	t.Helper()

	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}

	var blocks []string

	parts := strings.Split(string(data), "```sh\n")
	for _, p := range parts[1:] {
		block, _, _ := strings.Cut(p, "```")
		blocks = append(blocks, block)
	}

	return blocks
}

// TestReadmeCommands runs every command of the README but the first block, which clones and starts.
func TestReadmeCommands(t *testing.T) {
	t.Parallel()

	root := repoRoot(t)

	blocks := shellBlocks(t, filepath.Join(root, "README.md"))
	if len(blocks) < 5 || !strings.Contains(blocks[0], "make run") {
		t.Fatalf("the README has %d blocks", len(blocks))
	}

	s := start(t, "", "deploy:\n- {service: digits, model: digits, source: "+digitsDir(t)+"}\n")

	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}

	// The README speaks from the root of a clone, with the server's data in ./data.
	dir := t.TempDir()
	for name, target := range map[string]string{
		"bin": bin, "data": s.data, "configs": filepath.Join(root, "configs"), "scripts": filepath.Join(root, "scripts"),
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}

	cmd := exec.Command("bash", "-euo", "pipefail", "-c", strings.Join(blocks[1:], "\n"))
	cmd.Dir = dir

	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, out, s.log.tail())
	}

	// The answer as the README shows it, up to where it is cut short.
	readme, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}

	_, answer, _ := strings.Cut(string(readme), "Each answers `")

	answer, _, found := strings.Cut(answer, "…")
	if n := strings.Count(string(out), answer); !found || n != 3 {
		t.Errorf("%d times %q, want 3 (curl over HTTP and HTTPS, client)\n%s", n, answer, out)
	}

	for _, want := range []string{`"predicted_label":"3"`, "Service my-service started", "my-digits"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}
