package launch

import (
	"os"
	"strings"
	"testing"
	"time"
)

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 0 7 7 0 -1 4 0 0 0 0 150 50 0 0 20 0 1 0 5 9 3 18"))
	f.Add([]byte(") )"))

	f.Fuzz(func(t *testing.T, stat []byte) {
		_, use, ok := parseStat(stat)
		if !ok && use != (Usage{}) {
			t.Errorf("%+v of what is no stat", use)
		}
	})
}

func TestParseStat(t *testing.T) {
	t.Parallel()

	group, use, ok := parseStat([]byte("1 (a) b) S 0 7 7 0 -1 4 0 0 0 0 150 50 0 0 20 0 1 0 5 9 3 18"))
	if want := (Usage{CPU: 2 * time.Second, MemoryBytes: 3 * int64(os.Getpagesize())}); !ok || group != 7 || use != want {
		t.Errorf("group %d, %+v, %v", group, use, ok)
	}
}

func FuzzReadReady(f *testing.F) {
	f.Add([]byte("{\"http\":\"127.0.0.1:1\",\"link\":\"unix:/x\"}\n"))
	f.Add([]byte("{\"http\":\"\"}\n"))
	f.Add([]byte("\n\n"))

	f.Fuzz(func(t *testing.T, line []byte) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = r.Close() }()

		// A pipe holds 64 KiB: more than the longest line that is read.
		if len(line) > 2*maxReadyLine {
			line = line[:2*maxReadyLine]
		}

		if _, err := w.Write(line); err != nil {
			t.Fatal(err)
		}

		_ = w.Close()

		if st, err := readReady(r, time.Second); err == nil && st.Address == "" {
			t.Errorf("no address and no error from %q", line)
		}
	})
}

func FuzzReason(f *testing.F) {
	f.Add("panic: boom\ngoroutine 1")
	f.Add(`{"msg":"load","error":"no file"}`)
	f.Add(strings.Repeat("é", maxReason))

	f.Fuzz(func(t *testing.T, text string) {
		var tl tail
		for line := range strings.SplitSeq(text, "\n") {
			tl.add(line)
		}

		if got := tl.reason(); len(got) > maxReason+len("…") {
			t.Errorf("%d bytes", len(got))
		}
	})
}
