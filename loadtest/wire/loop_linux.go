package wire

import (
	"context"
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// Loop sends and receives on one thread.
type Loop struct {
	cfg    Config
	shared *Shared
	source Source
	rec    *measure.Worker
	stats  Stats
	poll   *poller
	rng    *rand.Rand

	conns    []*conn // by file descriptor
	open     int
	busy     int // requests under way
	free     []*conn
	goal     int // how many connections there should be
	scratch  []byte
	frame    []byte
	rbuf     []byte
	sample   measure.Sample
	pending  int64 // next moment of the schedule
	over     bool  // nothing more will start
	starved  bool
	dialing  int
	dialed   int64
	redialAt int64
	backoff  int64
	nextScan int64
	paceAt   int64

	ready struct {
		sync.Mutex // guards list
		list       []dialed
	}
	wg sync.WaitGroup
}

// dialed is the outcome of making a connection.
type dialed struct {
	link  *link
	err   error
	began int64
}

const readSize = 64 << 10

// New returns a Loop that records into rec.
func New(cfg Config, shared *Shared, source Source, rec *measure.Worker) (*Loop, error) {
	if cfg.InFlight == 0 {
		cfg.InFlight = 1
	}

	if cfg.Connections < 1 || cfg.Timeout <= 0 || len(cfg.Endpoint.Addresses) == 0 {
		return nil, errors.New("load loop: connections, time-out and an address are needed")
	}

	p, err := newPoller()
	if err != nil {
		return nil, err
	}

	return &Loop{
		cfg: cfg, shared: shared, source: source, rec: rec, poll: p, rbuf: make([]byte, readSize),
		rng: rand.New(rand.NewPCG(cfg.Seed, 0x5b)), //nolint:gosec // masks of a load generator hide nothing
	}, nil
}

// Prepare makes the first connections. It fails if there is none.
func (l *Loop) Prepare(ctx context.Context) error {
	l.goal = l.cfg.Connections
	if l.cfg.Schedule != nil {
		l.goal = min(max(l.cfg.Initial, 1), l.cfg.Connections)
	}

	const atATime = 64

	var (
		mu    sync.Mutex
		links []*link
		first error
		wg    sync.WaitGroup
	)

	slots := make(chan struct{}, atATime)

	for i := range l.goal {
		slots <- struct{}{}

		wg.Go(func() {
			defer func() { <-slots }()

			k, err := l.cfg.Endpoint.dial(ctx, int64(i))

			mu.Lock()
			defer mu.Unlock()

			if err != nil {
				first = err

				return
			}

			links = append(links, k)
		})
	}

	wg.Wait()

	l.stats.Dials += int64(l.goal)
	l.dialed = int64(l.goal)
	l.stats.DialErrors += int64(l.goal - len(links))

	for _, k := range links {
		l.adopt(k)
	}

	if l.open == 0 {
		return first
	}

	return nil
}

// Stats tells what the Loop did. It may be called when Run has returned.
func (l *Loop) Stats() Stats { return l.stats }

// Close gives back what New took, for a Loop that does not run.
func (l *Loop) Close() {
	for _, c := range l.conns {
		if c != nil {
			l.drop(c)
		}
	}

	l.poll.close()
}

func (l *Loop) now() int64 { return int64(time.Since(l.shared.base)) }

// Run sends until the run is over and everything is answered, or ctx ends. It takes its thread for itself.
func (l *Loop) Run(ctx context.Context) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer l.rec.Close()

	// Dials must end when the loop does.
	dialCtx, cancel := context.WithCancel(ctx)

	defer func() {
		cancel()
		l.wg.Wait()
		l.discard()
		l.Close()
	}()

	if err := sharpTimers(); err != nil {
		return err
	}

	if l.cfg.Schedule != nil {
		shortSlice()
	}

	stopWaking := context.AfterFunc(ctx, l.poll.wakeUp)
	defer stopWaking()

	cpu, wall := threadCPU(), time.Now()

	defer func() { l.stats.CPU, l.stats.Wall, l.stats.Spun = threadCPU()-cpu, time.Since(wall), l.poll.spun }()

	if l.cfg.Schedule != nil {
		l.draw()
	}

	l.nextScan = int64(l.scanEvery())

	return l.turn(ctx, dialCtx)
}

// turn is the loop itself.
func (l *Loop) turn(ctx, dialCtx context.Context) error {
	for {
		now := l.now()
		now = l.dispatch(now)
		l.rec.Advance(now)

		if now >= l.nextScan {
			l.scan(now)
		}

		if l.finished(ctx, now) {
			l.finish(now)

			return nil
		}

		l.topUp(dialCtx, now)

		events, err := l.poll.wait(time.Duration(l.wakeAt(now)-now), l.spin())
		if err != nil {
			return err
		}

		if len(events) == 0 {
			l.starve()
		}

		woken := false

		for i := range events {
			if int(events[i].Fd) == l.poll.wake {
				woken = true

				continue
			}

			l.handle(int(events[i].Fd), events[i].Events)
		}

		// New connections come last: their descriptors may be those of connections that ended in this batch.
		if woken {
			l.poll.drainWake()
			l.welcome()
		}
	}
}

// dispatch starts what is due, as long as connections are free.
func (l *Loop) dispatch(now int64) int64 {
	for !l.over {
		intended, due := l.due(now)
		if !due {
			break
		}

		c := l.pop()
		if c == nil {
			break
		}

		if !l.shared.claim() {
			l.over = true
			l.free = append(l.free, c)

			break
		}

		now = l.send(c, intended)
		l.advance(now)
	}

	return now
}

// starve notes that a request is due, that all answers that had come were read, and that no connection is free
// nevertheless: from now on it is not this loop that keeps the request waiting.
func (l *Loop) starve() {
	if l.cfg.Schedule == nil || l.starved || len(l.free) > 0 {
		return
	}

	if _, due := l.due(l.now()); due {
		l.starved = true
		l.grow()
	}
}

// spin is how long not to sleep before the next moment.
func (l *Loop) spin() time.Duration {
	if l.cfg.Schedule == nil || l.over || l.starved {
		return 0
	}

	return l.cfg.Spin
}

// due tells whether a request should start now, and when it was meant to.
func (l *Loop) due(now int64) (int64, bool) {
	stop := l.shared.stop.Load()

	if l.cfg.Schedule != nil {
		if l.pending > stop {
			l.over = true
		}

		return l.pending, !l.over && l.pending <= now
	}

	if now >= stop {
		l.over = true
	}

	return now, !l.over && now >= l.paceAt
}

// advance goes on to the next moment of the schedule.
func (l *Loop) advance(now int64) {
	if l.cfg.Schedule != nil {
		l.draw()

		if l.pending > now {
			l.starved = false
		}

		return
	}

	if l.cfg.Pace > 0 {
		l.paceAt = max(l.paceAt+int64(l.cfg.Pace), now-int64(10*l.cfg.Pace))
	}
}

func (l *Loop) draw() {
	at, ok := l.cfg.Schedule.Next()
	l.pending = int64(at)

	if !ok {
		l.over = true
	}
}

// pop takes a free connection; those that have ended meanwhile are passed over.
func (l *Loop) pop() *conn {
	for n := len(l.free); n > 0; n = len(l.free) {
		c := l.free[n-1]
		l.free = l.free[:n-1]

		if !c.ended {
			return c
		}
	}

	return nil
}

// wakeAt is when the loop has something to do without an event.
func (l *Loop) wakeAt(now int64) int64 {
	at := min(l.rec.Next(), l.nextScan)

	switch {
	case l.over:
		at = min(at, l.shared.stop.Load()+l.shared.grace.Load())
	case l.cfg.Schedule != nil:
		if !l.starved {
			at = min(at, l.pending)
		}
	default:
		at = min(at, l.shared.stop.Load())
		if l.cfg.Pace > 0 && len(l.free) > 0 {
			at = min(at, l.paceAt)
		}
	}

	if l.short() && l.redialAt > now {
		at = min(at, l.redialAt)
	}

	return at
}

func (l *Loop) finished(ctx context.Context, now int64) bool {
	if ctx.Err() != nil {
		return true
	}

	if l.over && l.busy == 0 {
		return true
	}

	return now >= l.shared.stop.Load()+l.shared.grace.Load()
}

// finish counts what will not be answered any more.
func (l *Loop) finish(now int64) {
	for _, c := range l.conns {
		if c == nil {
			continue
		}

		for c.inFlight() > 0 {
			l.stats.Cut++
			l.settle(c, now, 0, measure.Timeout)
		}
	}

	if l.cfg.Schedule == nil || l.over {
		return
	}

	for stop := l.shared.stop.Load(); !l.over && l.pending <= min(stop, now) && l.shared.claim(); l.draw() {
		l.fail(l.pending, now, &DialError{Class: measure.Unsent})
	}
}

// fail counts a request that never was on a connection.
func (l *Loop) fail(intended, now int64, err error) {
	s := &l.sample
	*s = measure.Sample{Intended: intended, Started: now, End: now, Failure: measure.Other}

	var de *DialError
	if errors.As(err, &de) {
		s.Failure, s.Status, s.Body = de.Class, de.Status, de.Body
	}

	l.rec.Record(s)
}

// send starts a request on a free connection and returns the time at which it did.
func (l *Loop) send(c *conn, intended int64) int64 {
	raw, target := l.source.Append(l.scratch[:0], l.now())
	if cap(raw) > cap(l.scratch) {
		l.scratch = make([]byte, 0, 2*cap(raw))
	}

	if l.cfg.Endpoint.Upgrade != nil {
		op := byte(opText)
		if l.cfg.Binary {
			op = opBinary
		}

		l.frame = appendFrame(l.frame[:0], op, raw, l.rng)
		raw = l.frame
	}

	// What the request took to make is late in an open loop, and nobody's business in a closed one.
	started := l.now()
	if l.cfg.Schedule == nil {
		intended = started
	}

	if l.starved {
		l.stats.Starved++
	}

	c.push(flight{intended: intended, started: started, target: target, waited: l.starved})
	l.busy++

	if err := c.write(l, raw); err != nil {
		l.broken(c, l.now(), classify(err))
	} else if c.inFlight() < l.cfg.InFlight {
		l.free = append(l.free, c)
	}

	return started
}
