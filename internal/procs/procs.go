package procs

import (
	"context"
	"math"
	"os"
	"runtime"
	"runtime/metrics"
	"time"
)

// Config of a Governor. Zero values take the defaults in the comments.
type Config struct {
	// Most is the largest number of slots; default what the runtime starts with.
	Most int
	// Every is how often the load is looked at; default 100 ms.
	Every time.Duration
	// Calm is how long less must have been enough before there are fewer slots; default 400 ms.
	Calm time.Duration
	// Least, when set, tells before each look how many slots there have to be at least.
	Least func() int
}

// Governor follows the load. There is one in a process.
type Governor struct {
	cfg   Config
	use   usage
	calm  time.Duration // for how long fewer slots would have done
	peak  int           // most slots that were wanted meanwhile
	slots int

	set func(n int)
	see func() sample
}

// sample is what was seen since the start of the process.
type sample struct {
	at  time.Time
	cpu time.Duration // of the whole process
	// Times that the system took a processor away.
	robbed uint64
	// Goroutines that waited for a slot: all, and those that waited long.
	waits, late uint64
}

// New returns a Governor; Run starts it.
func New(cfg Config) *Governor {
	if cfg.Most <= 0 {
		cfg.Most = runtime.GOMAXPROCS(0)
	}

	if cfg.Every <= 0 {
		cfg.Every = 100 * time.Millisecond
	}

	if cfg.Calm <= 0 {
		cfg.Calm = 400 * time.Millisecond
	}

	if cfg.Least == nil {
		cfg.Least = func() int { return 1 }
	}

	return &Governor{cfg: cfg, set: func(n int) { runtime.GOMAXPROCS(n) }, see: newMeter().sample}
}

// Wakeful is what the environment of a process of ours has to hold for Go's monitor thread to stay awake.
// It goes to sleep when the process has nothing to do, and every system call that may block, as all calls of
// C are for Go, has to wake it again: for a model of a few microseconds that is more work than the model, and
// it disturbs the other processors. The scheduler's trace, asked for once in 24 days, keeps it awake; it then
// looks every 10 ms whether a call blocks a slot that others need. See docs/adr/0034-monitor-thread.md.
const Wakeful = "GODEBUG=schedtrace=2147483647"

// Chosen reports that the number of slots was chosen by hand, in GOMAXPROCS.
func Chosen() bool { return os.Getenv("GOMAXPROCS") != "" }

// Run governs until ctx ends and leaves the largest number of slots behind.
func (g *Governor) Run(ctx context.Context) error {
	tick := time.NewTicker(g.cfg.Every)
	defer tick.Stop()

	g.slots = g.cfg.Most
	g.set(g.slots)

	defer func() { g.set(g.cfg.Most) }()

	g.use.last = g.see()

	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			g.step()
		}
	}
}

// step looks once and acts.
func (g *Governor) step() {
	load, late, span := g.use.since(g.see())

	want := min(max(wanted(load, g.slots), g.cfg.Least()), g.cfg.Most)
	if late {
		want = min(max(want, g.slots+1), g.cfg.Most)
	}

	if want >= g.slots {
		g.calm, g.peak = 0, 0

		if want > g.slots {
			g.slots = want
			g.set(want)
		}

		return
	}

	g.calm += span
	g.peak = max(g.peak, want)

	if g.calm >= g.cfg.Calm {
		g.slots, g.calm, g.peak = g.peak, 0, 0
		g.set(g.slots)
	}
}

const (
	// fullAlone is the load, in processors, up to which one slot does. The same requests load several
	// slots more than one: fullTogether is what that limit looks like from there.
	fullAlone    = 0.95
	fullTogether = 1.05
	// filled is how much of several slots is to be used.
	filled = 0.75
)

// wanted is how many slots a load needs that was seen with so many of them.
func wanted(load float64, slots int) int {
	alone := fullAlone
	if slots > 1 {
		alone = fullTogether
	}

	if load <= alone {
		return 1
	}

	return max(2, int(math.Ceil(load/filled)))
}

// usage turns samples into a load.
type usage struct{ last sample }

const (
	// shareLate of the waits, and leastLate in number, have to be long before that counts.
	shareLate = 50
	leastLate = 5
	// crowded is how often in a second the system takes a processor away, because others want it, for
	// waits to be long for that reason: slots do not help then. From there on shareLateCrowded counts.
	crowded          = 100
	shareLateCrowded = 5
)

// since tells what happened between the last sample and this one.
func (u *usage) since(s sample) (load float64, late bool, span time.Duration) {
	span = s.at.Sub(u.last.at)
	cpu, robbed := s.cpu-u.last.cpu, s.robbed-u.last.robbed
	waits, long := s.waits-u.last.waits, s.late-u.last.late
	u.last = s

	if span <= 0 {
		return 0, false, 0
	}

	share := uint64(shareLate)
	if float64(robbed) > crowded*span.Seconds() {
		share = shareLateCrowded
	}

	return float64(cpu) / float64(span), long >= leastLate && long*share >= waits, span
}

// lateAfter is a long wait for a slot.
const lateAfter = 2e-3

// meter reads what the system and the runtime know of the process.
type meter struct{ waits []metrics.Sample }

func newMeter() *meter {
	return &meter{waits: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
}

func (m *meter) sample() sample {
	s := sample{at: time.Now()}
	s.cpu, s.robbed = spent()

	metrics.Read(m.waits)

	if m.waits[0].Value.Kind() != metrics.KindFloat64Histogram {
		return s
	}

	h := m.waits[0].Value.Float64Histogram()
	for i, n := range h.Counts {
		s.waits += n

		if h.Buckets[i] >= lateAfter {
			s.late += n
		}
	}

	return s
}
