package command_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/sluice-gateway/sluice/loadtest/command"
)

// TestBaselineFindsWhatGotWorse stores a run and holds others against it.
func TestBaselineFindsWhatGotWorse(t *testing.T) {
	t.Parallel()

	var delay atomic.Int64

	delay.Store(int64(50 * time.Millisecond))

	s := server(t, func(http.ResponseWriter, *http.Request) { <-time.After(time.Duration(delay.Load())) })
	file := filepath.Join(t.TempDir(), "stored.json")
	args := []string{"--url", s.URL, "-c", "2", "-d", "500ms", "-q", "--no-preflight"}

	if _, stderr, err := call(t, append(args, "--json", file)...); err != nil {
		t.Fatal(err, stderr)
	}

	against := func(more ...string) (string, error) {
		out, _, err := call(t, append(append(args, "--baseline", file), more...)...)

		return out, err
	}

	if out, err := against("--tolerance", "90%"); err != nil || strings.Contains(out, "WORSE") || !strings.Contains(out, "90 % allowed") {
		t.Errorf("the same again: %v\n%s", err, out)
	}

	delay.Store(int64(250 * time.Millisecond))

	if out, err := against("--tolerance", "0.5"); !errors.Is(err, command.ErrWorse) || strings.Count(out, "WORSE") < 5 {
		t.Errorf("five times as slow: %v\n%s", err, out)
	}

	for name, more := range map[string][]string{
		"another load":  {"-c", "3"},
		"an open loop":  {"--rate", "10"},
		"no tolerance":  {"--tolerance", "lots"},
		"a search":      {"--search", "10:20", "--slo", "p99=1s"},
		"no such file":  {"--baseline", file + "-"},
		"no report":     {"--baseline", "baseline_test.go"},
		"only a switch": {"--baseline", "", "--tolerance", "5%"},
	} {
		var wrong *command.UsageError
		if _, err := against(more...); !errors.As(err, &wrong) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestBaselineMustBeAWholeReport(t *testing.T) {
	t.Parallel()

	for name, text := range map[string]string{
		"empty":         ``,
		"other":         `{"tool":"wrk","schema_version":1,"requests":5,"latency_ms":{"p50":1}}`,
		"no version":    `{"tool":"sluice loadtest","requests":5,"latency_ms":{"p50":1}}`,
		"newer":         `{"tool":"sluice loadtest","schema_version":2,"requests":5,"latency_ms":{"p50":1}}`,
		"interrupted":   `{"tool":"sluice loadtest","schema_version":1,"interrupted":true,"requests":5,"latency_ms":{"p50":1}}`,
		"without a run": `{"tool":"sluice loadtest","schema_version":1}`,
	} {
		file := filepath.Join(t.TempDir(), "stored.json")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}

		var wrong *command.UsageError
		if _, _, err := call(t, "--url", "http://127.0.0.1:1", "--baseline", file); !errors.As(err, &wrong) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// interrupted runs the command and ends it after some requests.
func interrupted(t *testing.T, s *atomic.Int64, after int64, args ...string) (document, string, error) {
	t.Helper()

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()

	go func() {
		for s.Load() < after && ctx.Err() == nil {
			<-time.After(5 * time.Millisecond)
		}

		cancel()
	}()

	out, stderr, err := callWith(ctx, append(args, "--json", "-", "-q")...)

	var d document
	if jerr := json.Unmarshal([]byte(out), &d); jerr != nil {
		t.Fatalf("%v: no report but %q, %v", args, out, err)
	}

	return d, stderr, err
}

func TestInterruptInEveryPhaseLeavesAReport(t *testing.T) {
	t.Parallel()

	var n atomic.Int64

	s := server(t, func(_ http.ResponseWriter, r *http.Request) {
		n.Add(1)

		if strings.HasPrefix(r.URL.Path, "/stuck") {
			<-r.Context().Done()
		}

		<-time.After(2 * time.Millisecond)
	})

	for _, tc := range []struct {
		name   string
		args   []string
		after  int64
		early  bool // before any load
		judged error
	}{
		{"first request", []string{"--url", s.URL + "/stuck"}, 1, true, nil},
		{"warm-up", []string{"--url", s.URL, "--warmup", "1h"}, 20, false, nil},
		{"warm-up with an SLO", []string{"--url", s.URL, "--warmup", "1h", "--slo", "p99=1h"}, 20, false, command.ErrMissed},
		{"run", []string{"--url", s.URL, "-d", "1h", "--slo", "p99=1h"}, 20, false, nil},
		{"run that misses", []string{"--url", s.URL, "-d", "1h", "--slo", "p50=1us"}, 20, false, command.ErrMissed},
		{"first trial", []string{"--url", s.URL, "-d", "1h", "--search", "100", "--slo", "p99=1h"}, 20, false, command.ErrMissed},
		{"second trial", []string{"--url", s.URL, "-d", "300ms", "--search", "100:101", "--slo", "p99=1h"}, 40, false, nil},
		{"comparison", []string{"--url", s.URL, "--compare", s.URL + "/b", "-d", "1h"}, 20, false, nil},
		{"sweep", []string{"--url", s.URL, "--sweep", "1,2", "-d", "1h"}, 20, false, nil},
	} {
		n.Store(0)

		d, _, err := interrupted(t, &n, tc.after, tc.args...)
		if tc.early {
			if err == nil || err.Error() != "interrupted before any load" {
				t.Errorf("%s: %v", tc.name, err)
			}
		} else if !errors.Is(err, tc.judged) || (tc.judged == nil && err != nil) {
			t.Errorf("%s: %v, want %v", tc.name, err, tc.judged)
		}

		if !d.Interrupted || (d.Requests == 0) != (tc.early || strings.HasPrefix(tc.name, "warm-up")) {
			t.Errorf("%s: %+v", tc.name, d)
		}
	}
}

// TestReportsHoldToTheirSchema validates what every mode writes.
func TestReportsHoldToTheirSchema(t *testing.T) {
	t.Parallel()

	schema, err := jsonschema.NewCompiler().Compile("../../docs/loadtest/report.v1.json")
	if err != nil {
		t.Fatal(err)
	}

	var n atomic.Int64

	s := server(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stream" {
			w.Header().Set("Content-Type", "text/event-stream")
			io.WriteString(w, "data: 1\n\ndata: 2\n\n")
		} else if n.Add(1)%5 == 0 {
			w.WriteHeader(http.StatusTooManyRequests)
			io.WriteString(w, `{"error_code":"APIG.0308"}`)
		}
	})
	stored := filepath.Join(t.TempDir(), "stored.json")

	for _, args := range [][]string{
		{"--url", s.URL, "-n", "50", "--json", stored, "-q"},
		{"--url", s.URL, "-n", "50", "--baseline", stored},
		{"--url", s.URL, "--rate", "200", "-d", "300ms", "--slo", "p99=1us,error=0%,rate=1,mean=1s,max=1s"},
		{"--url", s.URL, "--search", "100:200", "-d", "200ms", "--slo", "p50=1s"},
		{"--url", s.URL, "--sweep", "1,2", "-d", "200ms"},
		{"--url", s.URL, "--compare", s.URL + "/b", "-d", "600ms", "--rounds", "3"},
		{"--url", s.URL + "/stream", "--stream", "-n", "20"},
	} {
		if args[len(args)-1] != "-q" {
			args = append(args, "--json", "-", "-q")
		}

		out, stderr, err := call(t, args...)
		if err != nil && !errors.Is(err, command.ErrMissed) && !errors.Is(err, command.ErrWorse) {
			t.Fatal(args, err, stderr)
		}

		if args[len(args)-3] == "--json" && args[len(args)-2] == stored {
			out = read(t, stored)
		}

		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader([]byte(out)))
		if err != nil {
			t.Fatal(args, err)
		}

		if err := schema.Validate(doc); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}
