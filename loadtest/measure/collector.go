package measure

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Config of a Collector.
type Config struct {
	Workers int
	Targets int
	Warmup  time.Duration
	// Duration is the measured time behind the warm-up.
	Duration time.Duration
	// OnRow, if given, is called for each second when it is complete, in order.
	OnRow func(Row)
}

// Row is one second of the timeline.
type Row struct {
	Second   int
	Warm     int64 // requests of the warm-up that ended in this second
	Requests int64 // measured requests that ended in this second
	Failed   int64
	Bytes    int64
	Mean     time.Duration
	P50      time.Duration
	P90      time.Duration
	P99      time.Duration
	Max      time.Duration
	// MaxWait is the longest that a request had to wait for a free connection.
	MaxWait time.Duration
}

// Collector merges what the workers count.
type Collector struct {
	cfg     Config
	ticks   chan *Tick
	workers []*Worker
	end     atomic.Int64 // of the measured time

	codes struct {
		sync.RWMutex // guards known
		known        map[string]string
	}

	// Owned by Run; Result reads it afterwards.
	total  *Tick
	rows   []Row
	open   map[int]*Tick
	seen   []int // last second that each worker has handed over
	free   []*Tick
	closed int
}

// spares is how many seconds the collector may be behind before the timeline gets coarser.
const spares = 2

// NewCollector returns a Collector with its workers.
func NewCollector(cfg Config) *Collector {
	c := &Collector{
		cfg: cfg, ticks: make(chan *Tick, (spares+1)*cfg.Workers), total: newTick(cfg.Targets),
		open: make(map[int]*Tick), seen: make([]int, cfg.Workers),
	}
	c.codes.known = make(map[string]string)
	c.end.Store(int64(cfg.Warmup + cfg.Duration))

	for i := range cfg.Workers {
		w := &Worker{c: c, id: i, tick: newTick(cfg.Targets), spare: make(chan *Tick, spares)}
		w.tick.Worker = i

		for range spares {
			next := newTick(cfg.Targets)
			next.Worker = i
			w.spare <- next
		}

		c.seen[i] = -1
		c.workers = append(c.workers, w)
	}

	return c
}

// Worker returns one of the workers.
func (c *Collector) Worker(i int) *Worker { return c.workers[i] }

// SetEnd moves the end of the measured time, for runs that are interrupted or stop early.
func (c *Collector) SetEnd(at time.Duration) { c.end.Store(int64(at)) }

// End is the end of the measured time.
func (c *Collector) End() time.Duration { return time.Duration(c.end.Load()) }

// maxCodes bounds the number of different error codes; the rest counts as "other".
const maxCodes = 256

// intern returns the one string for an error code.
func (c *Collector) intern(code []byte) string {
	if len(code) == 0 {
		return ""
	}

	c.codes.RLock()
	s, ok := c.codes.known[string(code)]
	n := len(c.codes.known)
	c.codes.RUnlock()

	if ok {
		return s
	}

	if n >= maxCodes {
		return "other"
	}

	s = string(code)

	c.codes.Lock()
	c.codes.known[s] = s
	c.codes.Unlock()

	return s
}

// Run merges until every worker has closed.
func (c *Collector) Run() {
	for c.closed < c.cfg.Workers {
		c.take(<-c.ticks)
	}

	for _, second := range c.openSeconds() {
		c.finish(second)
	}
}

func (c *Collector) openSeconds() []int {
	list := make([]int, 0, len(c.open))
	for s := range c.open {
		list = append(list, s)
	}

	slices.Sort(list)

	return list
}

func (c *Collector) take(t *Tick) {
	row := c.open[t.Second]
	if row == nil {
		row = c.empty()
		row.Second = t.Second
		c.open[t.Second] = row
	}

	row.merge(t)

	w := c.workers[t.Worker]
	c.seen[t.Worker] = t.Second

	if t.Last {
		c.closed++
		c.seen[t.Worker] = int(^uint(0) >> 1)
	} else {
		t.reset()
		w.spare <- t
	}

	complete := slices.Min(c.seen)

	for _, second := range c.openSeconds() {
		if second > complete || c.closed == c.cfg.Workers {
			break
		}

		c.finish(second)
	}
}

func (c *Collector) empty() *Tick {
	if n := len(c.free); n > 0 {
		t := c.free[n-1]
		c.free = c.free[:n-1]

		return t
	}

	return newTick(c.cfg.Targets)
}

func (c *Collector) finish(second int) {
	t := c.open[second]
	delete(c.open, second)

	all := t.Total.All()
	q := all.Quantiles([]float64{0.5, 0.9, 0.99})
	row := Row{
		Second: second, Warm: t.Warm, Requests: t.Total.Requests, Failed: t.Total.Failed, Bytes: t.Total.Bytes,
		Mean: all.Mean(), P50: q[0], P90: q[1], P99: q[2], Max: all.Max(), MaxWait: t.Wait.Max(),
	}
	c.rows = append(c.rows, row)
	c.total.merge(t)
	t.reset()
	c.free = append(c.free, t)

	if c.cfg.OnRow != nil {
		c.cfg.OnRow(row)
	}
}

// Result returns the sum and the timeline. It may be called when Run has returned.
func (c *Collector) Result() (*Tick, []Row) { return c.total, c.rows }
