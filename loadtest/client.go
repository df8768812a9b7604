package loadtest

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/wire"
)

// Client is what the tool itself needed.
type Client struct {
	Threads     int
	CPU         time.Duration // of the process, warm-up included
	Waiting     time.Duration // part of CPU that was spent on waiting for the next start without sleep
	PerRequest  time.Duration // processor time for one request, without Waiting
	Busy        float64       // share of the wall time that the busiest sending thread worked
	GCs         int64
	GCPause     time.Duration
	Connections int
	Dials       int64
	DialErrors  int64
	Starved     int64 // requests that found no free connection
	Cut         int64 // requests still under way when the run was over
	Warnings    []string
}

type usage struct {
	cpu time.Duration
	gc  debug.GCStats
}

func takeUsage() usage {
	var (
		u  usage
		ru syscall.Rusage
	)

	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) == nil {
		u.cpu = time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}

	debug.ReadGCStats(&u.gc)

	return u
}

// When the tool itself is suspected.
const (
	busyThread  = 0.90
	lateMinimum = time.Millisecond
	gcShare     = 0.01
)

func (r *runner) client(before, after usage) Client {
	c := Client{
		Threads: len(r.loops), CPU: after.cpu - before.cpu,
		GCs: after.gc.NumGC - before.gc.NumGC, GCPause: after.gc.PauseTotal - before.gc.PauseTotal,
	}

	var wall time.Duration

	all := int64(0)

	for _, l := range r.loops {
		s := l.Stats()
		c.add(&s)
		wall = max(wall, s.Wall)
	}

	t, rows := r.collector.Result()
	for _, row := range rows {
		all += row.Warm + row.Requests
	}

	if all > 0 {
		c.PerRequest = max(c.CPU-c.Waiting, 0) / time.Duration(all)
	}

	late := t.Schedule.Quantile(0.99)
	typical := t.Total.OK.Quantile(0.5)

	if c.Busy > busyThread {
		c.warn("a sending thread was busy for %.0f %% of the time: the client may be the bottleneck", 100*c.Busy)
	}

	if r.plan.Rate > 0 && late > max(lateMinimum, typical/10) {
		c.warn("requests started up to %v late (p99) although connections were free: this machine is too busy to hold the schedule", late.Round(time.Microsecond))
	}

	if wall > 0 && float64(c.GCPause) > gcShare*float64(wall) {
		c.warn("garbage collection paused this tool for %v", c.GCPause)
	}

	if cores := float64(runtime.NumCPU()); wall > 0 && float64(c.CPU-c.Waiting) > busyThread*cores*float64(wall) {
		c.warn("this tool used %.0f %% of all processors", 100*float64(c.CPU-c.Waiting)/float64(wall)/cores)
	}

	if c.Starved > 0 && c.Connections >= r.plan.Concurrency {
		c.warn("%d requests waited for one of %d connections: allow more, or the server does not keep up", c.Starved, c.Connections)
	}

	return c
}

func (c *Client) add(s *wire.Stats) {
	c.Connections += s.Connections
	c.Dials += s.Dials
	c.DialErrors += s.DialErrors
	c.Starved += s.Starved
	c.Cut += s.Cut

	c.Waiting += s.Spun

	if s.Wall > 0 {
		c.Busy = max(c.Busy, float64(s.CPU-s.Spun)/float64(s.Wall))
	}
}

func (c *Client) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

// Calm keeps the garbage collector of this process from running during a measurement, as long as there is
// memory. The function that it returns sets everything back. The hot path allocates nothing, so that it costs little.
func Calm() (restore func()) {
	const most = 1 << 30

	runtime.GC()
	percent := debug.SetGCPercent(-1)
	limit := debug.SetMemoryLimit(-1)
	debug.SetMemoryLimit(min(limit, most))

	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}
