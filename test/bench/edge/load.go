package main

import (
	"context"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"
)

// script makes wrk send the request, and print exact numbers in the end.
const script = `wrk.method = "POST"
wrk.body = %q
wrk.headers["Content-Type"] = "application/json"
wrk.headers["X-Auth-Token"] = %q
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("RESULT %%d %%d %%d %%d %%d\n", summary.requests, summary.duration,
    latency:percentile(50), latency:percentile(99), e.connect + e.read + e.write + e.status + e.timeout))
end
`

// load is what one run of wrk saw.
type load struct {
	requests, failed int
	took             time.Duration
	p50, p99         time.Duration
}

func (l load) rate() float64 { return float64(l.requests) / l.took.Seconds() }

// drive runs wrk on one thread, so that the load costs the same everywhere.
func drive(ctx context.Context, script, url string, conns int, length time.Duration) (load, error) {
	out, err := exec.CommandContext(ctx, "wrk", "-t1", "-c"+strconv.Itoa(conns), //nolint:gosec // our own arguments
		"-d"+strconv.Itoa(max(1, int(length.Seconds())))+"s", "--timeout", "10s", "-s", script, url).CombinedOutput()
	if err != nil {
		return load{}, fmt.Errorf("wrk: %w: %s", err, out)
	}

	return parseLoad(string(out))
}

func parseLoad(out string) (load, error) {
	for line := range strings.Lines(out) {
		var l load

		var took, p50, p99 int64

		n, err := fmt.Sscanf(line, "RESULT %d %d %d %d %d", &l.requests, &took, &p50, &p99, &l.failed)
		if err != nil || n != 5 {
			continue
		}

		if l.requests == 0 || took == 0 {
			return load{}, fmt.Errorf("wrk got no answer: %s", out)
		}

		l.took, l.p50, l.p99 = time.Duration(took)*time.Microsecond, time.Duration(p50)*time.Microsecond, time.Duration(p99)*time.Microsecond

		return l, nil
	}

	return load{}, fmt.Errorf("wrk printed no result: %s", out)
}
