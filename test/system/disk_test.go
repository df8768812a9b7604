package system_test

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// inNamespace runs script in a mount namespace of its own, with $1 and $2, and then what follows.
func inNamespace(script, one, two string) []string {
	return []string{"unshare", "-m", "--propagation", "private", "sh", "-c", script + ` && shift 2 && exec "$@"`, "sh", one, two}
}

func needNamespaces(t *testing.T) {
	t.Helper()

	if err := exec.Command("unshare", "-m", "true").Run(); err != nil {
		t.Skipf("no mount namespaces here: %v", err)
	}
}

// TestDiskFullOrReadOnly starts on a disk without room and on one that cannot be written.
func TestDiskFullOrReadOnly(t *testing.T) {
	t.Parallel()
	needNamespaces(t)

	origin := start(t, "", quickStop)
	if code := origin.stop(30 * time.Second); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	for _, tc := range []struct {
		name, script, want string
		rounds             int // what meets the end of the disk first is a matter of moments
	}{
		{
			"full", `mount -t tmpfs -o size=200m none "$1/m" && cp -a "$2/." "$1/m" && { cat /dev/zero >"$1/m/fill" 2>/dev/null; true; }`,
			"no space left on device", 6,
		},
		{
			"read-only", `mount -t tmpfs none "$1/m" && cp -a "$2/." "$1/m" && mount -o remount,ro "$1/m"`,
			"read-only file system", 1,
		},
	} {
		t.Run(tc.name, func(t *testing.T) { //nolint:paralleltest // see above
			for range tc.rounds {
				noRoom(t, origin.data, tc.script, tc.want)
			}
		})
	}
}

// noRoom starts on a copy of a data directory that cannot be written, and wants one line.
func noRoom(t *testing.T, origin, script, want string) {
	t.Helper()

	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "m"), 0o700); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	ready, code, log := once(t, filepath.Join(dir, "m"), func() {}, inNamespace(script, dir, origin)...)

	line, lines := verdict(log)
	if ready || code != 1 || lines != 1 || !strings.Contains(line, want) {
		t.Errorf("ready %v, exit code %d, %d lines: %s, want %q\n%s", ready, code, lines, line, want, log[max(0, len(log)-3000):])
	}

	if strings.Contains(log, "panic: ") || strings.Contains(line, "damaged") {
		t.Errorf("a disk is no damage: %s", line)
	}

	if d := time.Since(began); d > 20*time.Second {
		t.Errorf("it took %v to end", d)
	}
}

// TestDiskFillsWhileServing fills the disk of a process that serves: predictions go on, changes
// are refused and not left hanging, and what was acknowledged is there when there is room again.
func TestDiskFillsWhileServing(t *testing.T) {
	t.Parallel()
	needNamespaces(t)

	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "m"), 0o700); err != nil {
		t.Fatal(err)
	}

	saved := filepath.Join(dir, "saved")
	if err := os.Mkdir(saved, 0o700); err != nil {
		t.Fatal(err)
	}

	data := filepath.Join(dir, "m")
	s := startIn(t, inNamespace(`mount -t tmpfs -o size=400m none "$1"`, data, "-"), "serve", data, quickStop)
	s.login()

	model, status := s.model("digits", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s", status)
	}

	service := s.deploy("digits", model, 2, nil)
	s.waitStatus(service, "running", 30*time.Second)

	l := s.keepCalling(service, 2)

	if n := s.fillDisk(); n == 0 {
		t.Fatal("the disk was full already")
	}

	tags := s.writeUntilRefused(service)

	at := l.served.Load()
	s.eventually(20*time.Second, "load with a full disk", func() bool { return l.served.Load() > at+50 })
	l.stop(t, "full disk")

	if code := s.call("GET", s.Ops+"/health", nil).Status; code != http.StatusOK {
		t.Errorf("health with a full disk: %d", code)
	}

	s.emptyDisk()

	// The files go where the next process finds them when the namespace is gone.
	if out, err := exec.Command("cp", "-a", filepath.Join(s.root, data)+"/.", saved).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}

	if code := s.stop(30 * time.Second); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.log.tail())
	}

	again := start(t, saved, quickStop)
	again.token = s.token

	if label, err := again.predictDigit(again.Edge, service, 5); err != nil || label != "5" {
		t.Errorf("with room again: %q, %v", label, err)
	}

	have := string(again.call("GET", again.api("/services/"+service), nil).Body)

	// What was refused last had an unknown outcome: the log may have taken it before the disk was full.
	last, next := fmt.Sprintf("acknowledged %d.", tags), fmt.Sprintf("acknowledged %d.", tags+1)
	if !strings.Contains(have, last) && !strings.Contains(have, next) {
		t.Errorf("lost %q: %s", last, have)
	}
}

// writeUntilRefused changes the description of a service until that is not possible any more, and returns
// the last number that was acknowledged.
func (s *sluice) writeUntilRefused(service string) int {
	s.t.Helper()

	for n := range 5000 {
		began := time.Now()
		a := s.call("PUT", s.api("/services/"+service), map[string]any{"description": fmt.Sprintf("acknowledged %d.", n)})

		if d := time.Since(began); d > 15*time.Second {
			s.t.Errorf("a change took %v", d)
		}

		if a.Status != http.StatusOK {
			if a.Status != http.StatusServiceUnavailable {
				s.t.Errorf("a change on a full disk: %d %s", a.Status, a.Body)
			}

			return n - 1
		}
	}

	s.t.Fatal("a full disk takes everything")

	return 0
}

// fillDisk writes a file into the data directory until nothing fits, and returns its size.
func (s *sluice) fillDisk() int64 {
	s.t.Helper()

	f, err := os.Create(filepath.Join(s.root, s.data, "fill"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer f.Close()

	zero, err := os.Open("/dev/zero")
	if err != nil {
		s.t.Fatal(err)
	}
	defer zero.Close()

	n, err := io.Copy(f, zero)
	if err == nil {
		s.t.Fatal("the disk has no end")
	}

	return n
}

func (s *sluice) emptyDisk() {
	s.t.Helper()

	if err := os.Remove(filepath.Join(s.root, s.data, "fill")); err != nil {
		s.t.Fatal(err)
	}
}
