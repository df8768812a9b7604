package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestRatiosOfRounds(t *testing.T) {
	t.Parallel()

	for _, tc := range []struct {
		of, to []float64
		want   string
	}{
		{[]float64{100, 400}, []float64{100, 100}, "2.00 (1.00–4.00)"},
		{[]float64{50}, []float64{100}, "0.50 (0.50–0.50)"},
		{[]float64{0, 1}, []float64{1, 1}, "–"},
		{nil, nil, "–"},
	} {
		if got := ratio(tc.of, tc.to); got != tc.want {
			t.Errorf("%v to %v: %s, want %s", tc.of, tc.to, got, tc.want)
		}
	}
}

func TestProcessorTimeOfATree(t *testing.T) {
	t.Parallel()

	// A shell that leaves the work to a child.
	p, err := start(t.Context(), filepath.Join(t.TempDir(), "out"), "sh", "-c", `sh -c 'while :; do :; done' & wait`)
	if err != nil {
		t.Fatal(err)
	}

	deadline := time.Now().Add(20 * time.Second)
	for p.cpu() < 50*time.Millisecond && time.Now().Before(deadline) {
		<-time.After(10 * time.Millisecond)
	}

	tree := p.tree()
	if len(tree) < 2 || p.cpu() < 50*time.Millisecond {
		t.Errorf("%d processes used %v", len(tree), p.cpu())
	}

	for _, pid := range tree[1:] {
		if proc, err := os.FindProcess(pid); err == nil {
			proc.Kill()
		}
	}

	p.close()

	if p.cpu() != 0 {
		t.Error("a process that has ended uses the processor")
	}
}

func TestPartsThatFailStandInTheReport(t *testing.T) {
	t.Parallel()

	b := &bench{log: &strings.Builder{}, report: &report{}}
	b.one(part{name: "one", title: "One", run: func(*bench) error { return skip("there is no %s", "tool") }})
	b.one(part{name: "two", title: "Two", run: func(*bench) error { return errors.New("broken") }})
	b.one(part{name: "three", title: "Three", run: func(b *bench) error {
		b.comparison([]measured{{name: "x", rates: []float64{10}, cpus: []float64{1}, p50: []float64{5}, p99: []float64{6}}})

		return nil
	}})

	out := filepath.Join(t.TempDir(), "docs", "r.md")
	if err := b.report.write(out, []string{"-only", "x"}); err != nil {
		t.Fatal(err)
	}

	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}

	for _, want := range []string{"## One\n\n`make bench BENCHFLAGS='-only one'`\n\nSkipped: there is no tool.", "**Failed:** broken", "| x | 10 | 1.00 (1.00–1.00) | 5 µs | 6 µs |", "-only x", "processors"} {
		if !strings.Contains(string(data), want) {
			t.Errorf("the report lacks %q:\n%s", want, data)
		}
	}
}

func TestFlagsThatMakeNoSense(t *testing.T) {
	t.Parallel()

	out := filepath.Join(t.TempDir(), "r.md")

	for _, args := range [][]string{{"-only", "edge,nothing"}, {"-duration", "0s"}, {"-rounds", "0"}, {"all"}, {"-loud"}, {"-provider", "abacus"}, {"-batch", "4", "-rows", "8"}, {"-device", "-1"}} {
		if err := run(t.Context(), append([]string{"-out", out}, args...), io.Discard); err == nil {
			t.Errorf("%v was taken", args)
		}
	}

	if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a report without a measurement: %v", err)
	}
}

// What the load tools print is read, and something else is not taken for a figure.
func TestGeneratorsAreRead(t *testing.T) {
	t.Parallel()

	said := map[string]string{
		"wrk":    "  50%  103.00us\n  99%    5.70ms\n  717297 requests in 3.00s, 110MB read\nRequests/sec: 239099.12\n",
		"h2load": "finished in 2.00s, 272966.50 req/s, 44MB/s\nrequests: 545933 total, 545997 started, 545933 done, 545930 succeeded, 3 failed, 3 errored, 0 timeout\n",
		"hey":    "  Requests/sec:\t881.0789\n  50%% in 0.0044 secs\n  99%% in 0.0080 secs\n  [200]\t886 responses\n",
		"k6":     "http_req_duration..............: med=512.5µs  p(99)=4.76ms\nhttp_req_failed................: 0.50%  9 out of 1834\nhttp_reqs......................: 1834   1826.58/s\n",
	}
	want := map[string][5]float64{ // rate, p50 and p99 in µs, done, failed
		"wrk": {239099.12, 103, 5700, 717297, 0}, "h2load": {272966.5, 0, 0, 545933, 3}, "hey": {881.0789, 4400, 8000, 886, 0}, "k6": {1826.58, 512.5, 4760, 1834, 9},
	}

	for _, g := range generators() {
		f, err := g.read([]byte(said[g.command]))
		if err != nil {
			t.Error(err)

			continue
		}

		if got := [5]float64{f[g.rate], f[g.p50], f[g.p99], f[g.done], f[g.failed]}; got != want[g.command] {
			t.Errorf("%s: %v, want %v", g.command, got, want[g.command])
		}

		if _, err := g.read([]byte("connection refused")); err == nil {
			t.Errorf("%s: no figures are read as figures", g.command)
		}
	}
}

// The last section names the number that is off by most, whichever way its bound goes.
func TestVerdictNamesTheWeakest(t *testing.T) {
	t.Parallel()

	doors := "| ratio | measured | target | |\n|---|--:|--:|---|\n" +
		"| CPU per request: a / b | 0.99 | ≤ 0.75 | missed |\n| requests/s: Sluice / HAProxy | 0.71 | ≥ 1.2 | missed |\n| added p50 | 112.00 µs | ≤ 100 µs | missed |\n"

	for _, tc := range []struct {
		name  string
		extra func(*report)
		want  string
	}{
		{"as told", func(*report) {}, "The weakest is *requests/s: Sluice / HAProxy*: 0.71. It is 1.69 times off."},
		{"another", func(r *report) { r.hold("lost", 10, 5, false) }, "The weakest is *lost*: 10.00. It is 2.00 times off."},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()

			r := &report{}
			if err := r.holdDoors([]byte(doors)); err != nil {
				t.Fatal(err)
			}

			tc.extra(r)
			r.verdict()

			for _, want := range []string{tc.want, "| added p50 | 112.00 | ≤ 100 | missed |", "| CPU per request: a / b | 0.99 | ≤ 0.75 | missed |"} {
				if !strings.Contains(r.body.String(), want) {
					t.Errorf("%q is missing in\n%s", want, r.body.String())
				}
			}
		})
	}

	held := &report{}
	held.hold("x", 2, 1, true)
	held.verdict()

	if text := held.body.String(); !strings.Contains(text, "| x | 2.00 | ≥ 1 | held |") || !strings.Contains(text, "holds it") {
		t.Error(text)
	}

	if err := held.holdDoors([]byte("nothing")); err == nil {
		t.Error("a report without targets is taken for one")
	}
}
