package system_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestBackupOfAnExternalEtcd backs up what a control process keeps in an etcd beside it, while that runs and
// when it is gone, and serves the same from a data directory of its own.
func TestBackupOfAnExternalEtcd(t *testing.T) {
	t.Parallel()

	member := startEtcd(t)
	endpoint, dir := member.endpoint, t.TempDir()
	keyring, config := filepath.Join(dir, "keyring"), filepath.Join(dir, "control.yaml")

	seed := start(t, filepath.Join(dir, "seed"), quickStop)
	if code := seed.stop(30 * time.Second); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	key, err := os.ReadFile(filepath.Join(seed.data, "keyring"))
	if err != nil {
		t.Fatal(err)
	}

	if err := os.WriteFile(keyring, key, 0o600); err != nil {
		t.Fatal(err)
	}

	shared := fmt.Sprintf("keyring: %s\netcd: {endpoints: [%q], prefix: /elsewhere/}\n", keyring, endpoint)
	control := startAs(t, "control", filepath.Join(dir, "control"), shared+quickStop)
	killWorkersOf(t, dir)
	control.login()

	if err := os.WriteFile(config, []byte(fmt.Sprintf("data_dir: %s\n", control.data)+shared), 0o600); err != nil {
		t.Fatal(err)
	}

	model, status := control.model("digits", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s", status)
	}

	service := control.deploy("digits", model, 1, nil)
	control.waitStatus(service, "running", 30*time.Second)

	online, offline := filepath.Join(dir, "online.tar.gz"), filepath.Join(dir, "offline.tar.gz")
	control.backup(t, config, online)

	gateway := startAs(t, "gateway", filepath.Join(dir, "gateway"), shared+quickStop)

	if code := control.stop(30 * time.Second); code != 0 {
		t.Errorf("control: exit code %d", code)
	}

	control.backup(t, config, offline)

	for name, archive := range map[string]string{"online": online, "offline": offline} {
		data := filepath.Join(dir, "restored", name)

		code, out := tool(t, "restore", "--from", archive, "--data", data, "--keyring", keyring)
		if code != 0 || !strings.Contains(out, "1 models") {
			t.Fatalf("%s: restore: %d %s", name, code, out)
		}

		copyBootstrap(t, control, data)

		again := start(t, data, quickStop)
		again.token = control.token
		again.waitStatus(service, "running", 30*time.Second)

		if label, err := again.predictDigit(again.EdgeTLS, service, 4); err != nil || label != "4" {
			t.Errorf("%s: with the token of before: %q, %v", name, label, err)
		}

		if code := again.stop(30 * time.Second); code != 0 {
			t.Errorf("%s: exit code %d", name, code)
		}
	}

	restoreIntoEtcd(t, member, control, config, offline, keyring, service, gateway)
}

// restoreIntoEtcd loses the etcd, and goes on with an empty one in its place.
func restoreIntoEtcd(t *testing.T, member *etcdMember, was *sluice, config, archive, keyring, service string, gateway *sluice) {
	t.Helper()
	member.stop()

	if err := os.RemoveAll(member.dir); err != nil {
		t.Fatal(err)
	}

	gateway.eventually(20*time.Second, "measure of how far it is behind", func() bool {
		silent, ok := gateway.metric("sluice_plan_source_silent_seconds")

		return ok && silent > 3
	})
	member.start()

	raw, err := os.ReadFile(config)
	if err != nil {
		t.Fatal(err)
	}

	shared := string(raw[bytes.IndexByte(raw, '\n')+1:]) // without the data directory
	data := filepath.Join(t.TempDir(), "control")
	args := []string{"restore", "--from", archive, "--config", config, "--keyring", keyring, "--data"}

	if code, out := tool(t, append(args, data)...); code != 0 || !strings.Contains(out, "the state is in etcd at "+member.endpoint) {
		t.Fatalf("restore: %d %s", code, out)
	}

	copyBootstrap(t, was, data)

	control := startAs(t, "control", data, shared+quickStop)
	killWorkersOf(t, filepath.Dir(data))

	control.token = was.token
	control.waitStatus(service, "running", 30*time.Second)

	// A gateway that knew the etcd that was lost follows the other one.
	gateway.token = was.token
	gateway.eventually(20*time.Second, "prediction of the restored model", func() bool {
		label, err := gateway.predictDigit(gateway.Edge, service, 4)

		return err == nil && label == "4"
	})

	gateway.eventually(10*time.Second, "etcd that answers", func() bool {
		silent, ok := gateway.metric("sluice_plan_source_silent_seconds")

		return ok && silent < 3
	})

	// What is in use is not written over, and the rest of the attempt goes.
	again := filepath.Join(t.TempDir(), "again")
	if code, out := tool(t, append(args, again, "--again")...); code != 1 || !strings.Contains(out, "the state is not empty") {
		t.Errorf("restore over a state in use: %d %s", code, out)
	}

	if _, err := os.Stat(again); !os.IsNotExist(err) {
		t.Errorf("a refused restore left its directory: %v", err)
	}

	if code := control.stop(30 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// backup takes one as an operator does who has the configuration of the control process.
func (s *sluice) backup(t *testing.T, config, output string) {
	t.Helper()

	if code, out := tool(t, "backup", "--config", config, "--output", output); code != 0 || !strings.Contains(out, "1 models") {
		t.Fatalf("backup: %d %s", code, out)
	}
}

// metric is the value of one without labels.
func (s *sluice) metric(name string) (float64, bool) {
	for line := range strings.Lines(string(s.call("GET", s.Ops+"/metrics", nil).Body)) {
		if text, ok := strings.CutPrefix(line, name+" "); ok {
			v, err := strconv.ParseFloat(strings.TrimSpace(text), 64)

			return v, err == nil
		}
	}

	return 0, false
}
