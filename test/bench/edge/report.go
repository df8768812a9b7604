package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"
)

// target is a ratio that is promised.
type target struct {
	what   string
	got    float64
	bound  float64
	atMost bool
	unit   string
}

func (t target) met() bool { return t.atMost == (t.got <= t.bound) || t.got == t.bound }

// miss is how far off the bound is, above 1 if it is not kept.
func (t target) miss() float64 {
	if t.atMost {
		return t.got / t.bound
	}

	return t.bound / t.got
}

// The promises.
const (
	maxGateway = 0.75 // CPU of the gateway, of nginx as a proxy
	maxWhole   = 1.0  // CPU of gateway and worker, of nginx and an nginx that answers
	minRate    = 1.2  // requests per second, of HAProxy
	maxForeign = 1.25 // CPU of the gateway over HTTP/1.1, of nginx
	maxAdded   = 100  // microseconds
	maxHalf    = 500  // microseconds
)

func (r *results) targets() []target {
	var out []target

	linked := r.linked.summary()

	if r.nginx != nil {
		n := r.nginx.summary()
		out = append(out,
			target{"CPU per request: gateway over link / nginx as a proxy", linked.proxy / n.proxy, maxGateway, true, ""},
			target{"CPU per request: gateway + worker / nginx + nginx upstream", linked.whole / n.whole, maxWhole, true, ""},
			target{"CPU per request: gateway over HTTP/1.1 / nginx as a proxy", r.foreign.summary().proxy / n.proxy, maxForeign, true, ""},
		)
	}

	if r.haproxy != nil {
		out = append(out, target{"requests/s: Sluice / HAProxy", linked.rate / r.haproxy.summary().rate, minRate, false, ""})
	}

	added := r.single.summary().p50 - r.direct.summary().p50

	return append(out, target{"added p50 at concurrency 1", added, maxAdded, true, " µs"},
		target{"p99 below half load", r.half.p99(), maxHalf, true, " µs"})
}

func (r *results) markdown(o *options) string {
	var b strings.Builder

	fmt.Fprintf(&b, "# The edge beside nginx and HAProxy\n\n")
	fmt.Fprintf(&b, "Written by `make bench-edge` on %s.\n\n", time.Now().UTC().Format("2006-01-02 15:04 MST"))
	fmt.Fprintf(&b, "- Machine: %s; load average before the end: %s.\n", machine(), loadAverage())
	fmt.Fprintf(&b, "- Versions: %s, %s, %s, %s.\n", tool(filepath.Join(o.bin, "sluice"), "--version"), tool("nginx", "-v"), tool("haproxy", "-v"), runtime.Version())
	fmt.Fprintf(&b, "- Each checks the same token (%s), applies a rate limit that is never reached, and splits 90 to 10 over two versions; access logs %s.\n",
		"one of Sluice's own", o.logging())
	fmt.Fprintf(&b, "- Load: `wrk -t1 -c%d` over loopback for %v, a V2 JSON request of %d bytes, %d rounds in turn; medians. CPU time is from `/proc/PID/stat`, of all processes of a candidate.\n\n",
		o.conns, o.length, len(request), o.rounds)

	fmt.Fprintf(&b, "## At saturation\n\n| way | requests/s | p50 µs | p99 µs | CPU of the proxy, µs/request | CPU of the engine | both |\n|---|--:|--:|--:|--:|--:|--:|\n")

	for _, c := range []*candidate{r.linked, r.nginx, r.haproxy, r.foreign} {
		if c != nil {
			s := c.summary()
			fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f | %.1f | %.1f | %.1f |\n", c.name, s.rate, s.p50, s.p99, s.proxy, s.engine, s.whole)
		}
	}

	d, s := r.direct.summary(), r.single.summary()
	fmt.Fprintf(&b, "\n## One connection\n\n| way | p50 µs | p99 µs |\n|---|--:|--:|\n| %s | %.0f | %.0f |\n| through the gateway | %.0f | %.0f |\n",
		r.direct.name, d.p50, d.p99, s.p50, s.p99)

	fmt.Fprintf(&b, "\n## Below half load\n\nAn open loop: %.0f requests/s, %.0f %% of the rate at saturation, come with the gaps of a Poisson process; latency counts from when a\n"+
		"request was due. It is that of everything on the way, with the worker and with how late the generator, on the same processors, was itself.\n\n",
		r.half.rate, 100*belowHalf)
	fmt.Fprintf(&b, "| way | p50 µs | p99 µs | p99 of the generator's own delay, µs |\n|---|--:|--:|--:|\n")

	for _, w := range []*open{r.halfDirect, r.half, r.halfNginx} {
		if w == nil {
			continue
		}

		fmt.Fprintf(&b, "| %s | %.0f | %.0f | %.0f |\n", w.name, w.p50(), w.p99(), w.late())
	}

	r.verdict(&b)

	return b.String()
}

// verdict holds the numbers against what was promised.
func (r *results) verdict(b *strings.Builder) {
	fmt.Fprintf(b, "\n## Against the targets\n\n| ratio | measured | target | |\n|---|--:|--:|---|\n")

	var worst target

	for _, t := range r.targets() {
		sign, verdict := "≥", "missed"
		if t.atMost {
			sign = "≤"
		}

		if t.met() {
			verdict = "met"
		}

		fmt.Fprintf(b, "| %s | %.2f%s | %s %g%s | %s |\n", t.what, t.got, t.unit, sign, t.bound, t.unit, verdict)

		if worst.what == "" || t.miss() > worst.miss() {
			worst = t
		}
	}

	kept := "It keeps its target"
	if !worst.met() {
		kept = fmt.Sprintf("It misses its target by %.0f %%", 100*(worst.miss()-1))
	}

	fmt.Fprintf(b, "\nThe weakest number is *%s*: %.2f%s, where %g%s is the bound. %s.\n", worst.what, worst.got, worst.unit, worst.bound, worst.unit, kept)
	fmt.Fprintf(b, "The load generator runs on the same processors, and whatever else runs there disturbs rates and latencies more than CPU times.\n")
}

func (o *options) logging() string {
	if o.logs {
		return "on"
	}

	return "off"
}

// tool is the first line of what a program says about its version.
func tool(name, flag string) string {
	out, err := exec.Command(name, flag).CombinedOutput() //nolint:noctx // our own arguments, no service
	if err != nil {
		return name + " (none)"
	}

	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	line, _, _ = strings.Cut(line, " - ")

	return line
}

func machine() string {
	model := runtime.GOARCH

	if data, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(data)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				model = strings.TrimSpace(value)

				break
			}
		}
	}

	return fmt.Sprintf("%d × %s, %s", runtime.NumCPU(), model, runtime.GOOS)
}

func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}

	f := strings.Fields(string(data))

	return strings.Join(f[:min(3, len(f))], " ")
}
