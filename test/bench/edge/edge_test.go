package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	t.Parallel()

	s, err := parseStat("42 (a ) b) S 7 42 42 0 -1 4194560 1 0 0 0 150 50 9 9 20 0 1 0 1 1 1")
	if err != nil || s != (stat{pid: 42, parent: 7, name: "a ) b", cpu: 2 * time.Second}) {
		t.Errorf("%+v, %v", s, err)
	}

	for _, bad := range []string{"", "42", "42 (x", "42 (x) S 1", "x (x) S 7 42 42 0 -1 4194560 1 0 0 0 150 50"} {
		if _, err := parseStat(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestFamilyHoldsItself(t *testing.T) {
	t.Parallel()

	members, err := family(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}

	for _, s := range members {
		if s.pid == os.Getpid() && s.parent == os.Getppid() {
			return
		}
	}

	t.Errorf("this process is not in %+v", members)
}

func TestParseLoad(t *testing.T) {
	t.Parallel()

	l, err := parseLoad("Running 1s test\nRESULT 1000 2000000 150 900 3\n")
	if err != nil || l != (load{requests: 1000, failed: 3, took: 2 * time.Second, p50: 150 * time.Microsecond, p99: 900 * time.Microsecond}) {
		t.Errorf("%+v, %v", l, err)
	}

	if l.rate() != 500 {
		t.Errorf("rate %v", l.rate())
	}

	for _, bad := range []string{"", "RESULT 1 2", "RESULT 0 2000000 0 0 9"} {
		if _, err := parseLoad(bad); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

// TestReport holds made-up rounds against the targets: the medians count, and the worst is named.
func TestReport(t *testing.T) {
	t.Parallel()

	of := func(name string, rate int, proxy, engine time.Duration) *candidate {
		c := &candidate{name: name}
		for _, f := range []int{1, 2, 30} { // the median is twice the first
			n := time.Duration(f) // a factor, not a duration
			c.rounds = append(c.rounds, round{load{requests: rate * f, took: time.Second, p50: time.Duration(f*20) * time.Microsecond}, proxy * n, engine * n})
		}

		return c
	}

	us := time.Microsecond
	r := &results{
		linked: of("linked", 1000, 5*us, 4*us), foreign: of("foreign", 1, 14*us, us), nginx: of("nginx", 1, 10*us, 2*us),
		haproxy: of("haproxy", 500, us, us), direct: of("direct", 1, us, us), single: of("single", 1, us, us),
		half:       &open{name: "half", rate: 900, rounds: []opened{{50 * us, 300 * us, us}, {60 * us, 9000 * us, 2 * us}, {70 * us, 400 * us, 3 * us}}},
		halfDirect: &open{name: "half direct", rate: 900, rounds: []opened{{20 * us, 100 * us, us}}},
	}

	text := r.markdown(&options{bin: t.TempDir(), rounds: 3, conns: 8, length: time.Second})

	for _, want := range []string{
		"| linked | 2000 | 40 | 0 | 10.0 | 8.0 | 18.0 |",
		"gateway over link / nginx as a proxy | 0.50 | ≤ 0.75 | met |",
		"gateway + worker / nginx + nginx upstream | 0.75 | ≤ 1 | met |",
		"gateway over HTTP/1.1 / nginx as a proxy | 1.40 | ≤ 1.25 | missed |",
		"Sluice / HAProxy | 2.00 | ≥ 1.2 | met |",
		"concurrency 1 | 0.00 µs | ≤ 100 µs | met |",
		"| half | 60 | 400 | 2 |",
		"p99 below half load | 400.00 µs | ≤ 500 µs | met |",
		"The weakest number is *CPU per request: gateway over HTTP/1.1 / nginx as a proxy*: 1.40, where 1.25 is the bound. It misses its target by 12 %.",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
}

// TestNothingIsLeftBehind ends and kills a process that has started one with children of its own, which would
// not end by themselves.
func TestNothingIsLeftBehind(t *testing.T) {
	if os.Getenv(reexec) != "" {
		runtime.LockOSThread()

		ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
		defer stop()

		// Like nginx: its child ends when it is told to, and only then.
		p, err := spawn(ctx, os.Stdout, "sh", "-c", `sleep 600 & trap 'kill $!; exit' TERM; echo $! $$; wait`)
		if err != nil {
			t.Fatal(err)
		}

		<-p.done

		return
	}

	t.Parallel()

	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestNothingIsLeftBehind$")
		cmd.Env = append(os.Environ(), reexec+"=1")

		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}

		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}

		var pids [2]int
		if _, err := fmt.Fscan(out, &pids[0], &pids[1]); err != nil {
			t.Fatal(err)
		}

		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}

		cmd.Wait()

		for _, pid := range pids {
			for end := time.Now().Add(10 * time.Second); syscall.Kill(pid, 0) == nil && !zombie(pid); {
				if time.Now().After(end) {
					t.Errorf("after %v process %d is there still", sig, pid)
					syscall.Kill(pid, syscall.SIGKILL)

					break
				}

				<-time.After(10 * time.Millisecond)
			}
		}
	}
}

const reexec = "SLUICE_BENCH_REEXEC"

// zombie tells whether a process has ended and nobody has asked for its status yet.
func zombie(pid int) bool {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")

	return err != nil || strings.Contains(string(data), ") Z ")
}
