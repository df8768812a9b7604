package system_test

import (
	"bytes"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// once starts the binary on data with the configuration of start, and waits for either
// "sluice ready" or its end.
func once(t *testing.T, data string, check func(), prefix ...string) (ready bool, code int, log string) {
	t.Helper()

	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}

	file := filepath.Join(t.TempDir(), "sluice.yaml")
	if err := os.WriteFile(file, []byte(quickStop), 0o600); err != nil {
		t.Fatal(err)
	}

	args := append(append([]string{}, prefix...), filepath.Join(bin, "sluice"), "serve", "--config", file, "--data", data,
		"--edge-http", "127.0.0.1:0", "--edge-https", "127.0.0.1:0", "--control", "127.0.0.1:0", "--ops", "127.0.0.1:0")

	out := &syncBuffer{}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "SLUICE_RUNTIME="+filepath.Join(bin, "sluice-runtime"))
	cmd.Stdout, cmd.Stderr = out, out

	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}

	done := make(chan struct{})

	go func() {
		defer close(done)

		cmd.Wait()
	}()

	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()

	for limit := time.After(60 * time.Second); ; {
		select {
		case <-done:
			return false, cmd.ProcessState.ExitCode(), out.String()
		case <-limit:
			cmd.Process.Kill()
			<-done
			t.Fatalf("neither ready nor at its end\n%s", out.tail())
		case <-tick.C:
			if strings.Contains(out.String(), "sluice ready\n") {
				check()
				cmd.Process.Kill()
				<-done

				return true, 0, out.String()
			}
		}
	}
}

// verdict is the one line that a start ends with.
func verdict(log string) (line string, lines int) {
	for l := range strings.Lines(log) {
		if strings.HasPrefix(l, "sluice: ") {
			line, lines = strings.TrimSpace(l), lines+1
		}
	}

	return line, lines
}

func copyTree(t *testing.T, from, to string) {
	t.Helper()

	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}

		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}

		info, err := d.Info()
		if err != nil {
			return err
		}

		target := filepath.Join(to, rel)

		switch {
		case d.IsDir():
			return os.MkdirAll(target, 0o700)
		case !info.Mode().IsRegular():
			return nil
		}

		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}

		return os.WriteFile(target, raw, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// the only file that a pattern finds below data.
func the(t *testing.T, data, pattern string) string {
	t.Helper()

	found, err := filepath.Glob(filepath.Join(data, pattern))
	if err != nil || len(found) == 0 {
		t.Fatalf("%s: %v, %v", pattern, found, err)
	}

	return found[0]
}

// spoil changes a file, whatever its mode.
func spoil(t *testing.T, path string, change func([]byte) []byte) {
	t.Helper()

	raw, err := os.ReadFile(path)
	if err == nil {
		err = os.Remove(path)
	}

	if err == nil {
		err = os.WriteFile(path, change(raw), 0o600)
	}

	if err != nil {
		t.Fatal(err)
	}
}

func garbage(raw []byte) []byte  { return bytes.Repeat([]byte("garbage\xff\x00"), len(raw)/9+1) }
func half(raw []byte) []byte     { return raw[:len(raw)/2] }
func flip(raw []byte) []byte     { raw[len(raw)/2] ^= 0x40; return raw } //nolint:nlreturn // a line each
func nothing([]byte) []byte      { return nil }
func tailGone(raw []byte) []byte { return raw[:len(raw)-4096] }

// flipState changes one letter of a document that the state holds, wherever it stands.
func flipState(raw []byte) []byte {
	return bytes.ReplaceAll(raw, []byte(`"digits"`), []byte(`"digitz"`))
}

func middle(raw []byte) []byte {
	copy(raw[len(raw)/4:len(raw)*3/4], garbage(raw[len(raw)/2:]))

	return raw
}

// TestDamageAtStart spoils one file of a data directory at a time: the start serves what was
// acknowledged, or says in one line what is wrong.
func TestDamageAtStart(t *testing.T) {
	t.Parallel()

	origin := start(t, "", quickStop)
	origin.login()

	model, status := origin.model("digits", "1.0.0", digitsDir(t))
	if status != "published" {
		t.Fatalf("model is %s", status)
	}

	service := origin.deploy("digits", model, 1, nil)
	origin.waitStatus(service, "running", 30*time.Second)

	if code := origin.stop(30 * time.Second); code != 0 {
		t.Fatalf("exit code %d", code)
	}

	const (
		db  = "etcd/member/member/snap/db"
		wal = "etcd/member/member/wal/*.wal"
		pkg = "packages/sha256/*/model.onnx"
	)

	for _, tc := range []struct {
		name, file string
		change     func([]byte) []byte // nil removes the file
		want       string              // in the line; "" means that it serves
		either     bool                // serving is as good
	}{
		{name: "database garbage", file: db, change: garbage, want: "snap/db"},
		{name: "database half", file: db, change: half, want: "snap/db", either: true},
		{name: "database empty", file: db, change: nothing, want: "damaged"},
		{name: "database without its end", file: db, change: tailGone, want: "snap/db", either: true},
		{name: "database overwritten in the middle", file: db, change: middle, want: "damaged", either: true},
		{name: "database missing", file: db, want: "damaged", either: true},
		{name: "letters of a document", file: db, change: flipState, want: "its checksum is another"},
		{name: "state missing", file: "etcd", want: "is gone"},
		{name: "log garbage", file: wal, change: garbage, want: "damaged"},
		{name: "log missing", file: wal, want: "damaged"},
		{name: "keyring half", file: "keyring", change: half, want: "keyring"},
		{name: "keyring empty", file: "keyring", change: nothing, want: "keyring"},
		{name: "keyring missing", file: "keyring", want: "keyring"},
		{name: "package changed", file: pkg, change: flip, want: "model.onnx"},
		{name: "package half", file: pkg, change: half, want: "model.onnx"},
		{name: "package missing", file: pkg, want: "model.onnx"},
		{name: "last good garbage", file: "gateway/last-good.json", change: garbage},
		{name: "endpoints garbage", file: "endpoints.json", change: garbage},
		{name: "bootstrap empty", file: "bootstrap.json", change: func([]byte) []byte { return []byte("{}") }},
		{name: "bootstrap missing", file: "bootstrap.json"},
		{name: "certificate garbage", file: "tls/*", change: garbage, want: "tls/", either: true},
	} {
		t.Run(tc.name, func(t *testing.T) { //nolint:paralleltest // the machine would have twenty at once
			data := filepath.Join(t.TempDir(), "data")
			copyTree(t, origin.data, data)

			path := the(t, data, tc.file)
			if tc.change == nil {
				if err := os.RemoveAll(path); err != nil {
					t.Fatal(err)
				}
			} else {
				spoil(t, path, tc.change)
			}

			ready, code, log := once(t, data, func() {
				now := &sluice{t: t, data: data, log: &syncBuffer{}, token: origin.token}
				now.readFiles("control")

				if label, err := now.predictDigit(now.Edge, service, 6); err != nil || label != "6" {
					t.Errorf("it is ready and does not serve: %q, %v", label, err)
				}
			})
			judge(t, ready, code, log, tc.want, tc.either)
		})
	}
}

func judge(t *testing.T, ready bool, code int, log, want string, either bool) {
	t.Helper()

	line, lines := verdict(log)

	for _, bad := range []string{"panic: ", "fatal error: ", "goroutine 1 ["} {
		if strings.Contains(log, bad) {
			t.Errorf("it broke down: %s", bad)
		}
	}

	switch {
	case ready && (want == "" || either):
		return
	case ready:
		t.Error("it serves")
	case want == "":
		t.Errorf("it ended with %d: %s", code, line)
	case code != 1 || lines != 1 || !strings.Contains(line, want):
		t.Errorf("exit code %d, %d lines: %s, want one with %q", code, lines, line, want)
	case !strings.Contains(line, "sluice restore") && !strings.Contains(line, "tls/"):
		t.Errorf("no way to restore: %s", line)
	}

	if t.Failed() {
		t.Log(log[max(0, len(log)-3000):])
	} else {
		t.Log(line)
	}
}
