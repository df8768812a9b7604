package launch_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-gateway/sluice/control/launch"
)

// logOf reads a log that is not followed.
func logOf(t *testing.T, l *launch.Local, id string, tail int) string {
	t.Helper()

	var b strings.Builder

	err := l.CopyLog(t.Context(), "svc", id, launch.LogOptions{Tail: tail}, func(p []byte) error {
		b.Write(p)

		return nil
	})
	if err != nil {
		t.Fatal(err)
	}

	return b.String()
}

func TestLogTailAcrossRotation(t *testing.T) {
	t.Parallel()

	dir := t.TempDir()
	l := newLocal(t, func(c *launch.Config) { c.LogDir = dir })

	if err := os.MkdirAll(filepath.Join(dir, "svc"), 0o750); err != nil {
		t.Fatal(err)
	}

	lines := func(from, to int) string {
		var b strings.Builder
		for i := from; i < to; i++ {
			fmt.Fprintf(&b, "line %d %s\n", i, strings.Repeat("x", 50))
		}

		return b.String()
	}

	for name, text := range map[string]string{"a.log.1": lines(0, 1000), "a.log": lines(1000, 1500), "empty.log": "", "cut.log": "one\ntwo"} {
		if err := os.WriteFile(filepath.Join(dir, "svc", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}

	for _, tc := range []struct {
		id   string
		tail int
		want string
	}{
		{"a", 0, ""},
		{"a", 1, lines(1499, 1500)},
		{"a", 499, lines(1001, 1500)},
		{"a", 500, lines(1000, 1500)},
		{"a", 501, lines(999, 1500)},
		{"a", 1499, lines(1, 1500)},
		{"a", 9999, lines(0, 1500)},
		{"a", -1, lines(0, 1500)},
		{"empty", 10, ""},
		{"cut", 1, "two"},
		{"cut", 2, "one\ntwo"},
	} {
		if got := logOf(t, l, tc.id, tc.tail); got != tc.want {
			t.Errorf("%s, last %d: %d bytes, want %d", tc.id, tc.tail, len(got), len(tc.want))
		}
	}
}

func TestLogsOfNobody(t *testing.T) {
	t.Parallel()

	l := newLocal(t, nil)

	for _, at := range [][2]string{{"svc", "nobody"}, {"..", "x"}, {"svc", "../svc/x"}, {"svc", ""}, {"", "x"}, {"svc", "."}, {"svc", "/etc/passwd"}} {
		err := l.CopyLog(t.Context(), at[0], at[1], launch.LogOptions{}, func([]byte) error { return nil })
		if !errors.Is(err, launch.ErrNoLog) {
			t.Errorf("%q: %v", at, err)
		}
	}
}

func TestLogIsFollowedAcrossRotationUntilTheEnd(t *testing.T) {
	t.Parallel()

	l := newLocal(t, func(c *launch.Config) { c.MaxLogBytes = 2000 })
	script := "i=0; while [ $i -lt 200 ]; do echo \"line $i of many that fill the file\"; i=$((i+1)); sleep 0.005; done; echo last"
	m := customModel(t.TempDir())
	m.Config.Command = []string{"/bin/sh", "-c", script}
	ch := start(t, l, "a", m)
	next(t, ch, launch.PhaseListening)

	var (
		mu sync.Mutex
		b  strings.Builder
	)

	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()

	waitForLog(t, l, "a")

	// It ends by itself, with the instance.
	err := l.CopyLog(ctx, "svc", "a", launch.LogOptions{Tail: -1, Follow: true}, func(p []byte) error {
		mu.Lock()
		defer mu.Unlock()

		b.Write(p)

		return nil
	})
	if err != nil || ctx.Err() != nil {
		t.Fatal(err, ctx.Err())
	}

	got := strings.Split(strings.TrimSpace(b.String()), "\n")
	if len(got) == 0 || got[len(got)-1] != "last" {
		t.Fatalf("%d lines, the last is %q", len(got), got[len(got)-1])
	}

	// In order and none twice; the first may be gone with the oldest file.
	at := -1

	for _, line := range got[:len(got)-1] {
		var n int
		if _, err := fmt.Sscanf(line, "line %d of", &n); err != nil || n != at+1 && at >= 0 {
			t.Fatalf("%q after line %d", line, at)
		}

		at = n
	}

	next(t, ch, launch.PhaseEnded)
}

// waitForLog waits until the instance has a log file.
func waitForLog(t *testing.T, l *launch.Local, id string) {
	t.Helper()

	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		if _, err := os.Stat(l.LogFile("svc", id)); err == nil {
			return
		}
	}

	t.Fatal("no log file")
}
