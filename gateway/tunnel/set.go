package tunnel

import (
	"context"
	"crypto/rand"
	"fmt"
	"log/slog"
	mrand "math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// Set owns tunnels. It is safe for concurrent use.
type Set struct {
	cfg   Config
	hooks Hooks
	log   *slog.Logger

	pingBody [8]byte // tells pongs for us from pongs for the other end
	buffers  sync.Pool
	poll     atomic.Pointer[poller] // nil unless Run runs
	trim     trim

	mu      sync.Mutex // guards all, closed
	all     map[*Tunnel]struct{}
	closed  bool
	leaving bool // tunnels that still come are to leave as well
	count   atomic.Int64
	running sync.WaitGroup // pumps that run, and helpers
}

// Spec is a WebSocket whose handshakes are done.
type Spec struct {
	Client, Engine End
	// Deflate is what was negotiated for compression.
	Deflate wsframe.Deflate
	// MaxMessage overrides that of the Config if it is lower and not 0.
	MaxMessage int64
	// Done is called once, on a goroutine of the Set, when the tunnel is over. The engine's connection
	// is closed by then; the client's is the caller's again.
	Done func(Result)
}

// End is a connection of a tunnel.
type End struct {
	Conn net.Conn
	// Socket is the connection below TLS, for the poller.
	Socket net.Conn
	// Early bytes were read behind the handshake.
	Early []byte
}

// New returns a Set without tunnels. Run must be called for anything to be closed in time.
func New(cfg Config, hooks Hooks, log *slog.Logger) (*Set, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("tunnel: %w", err)
	}

	s := &Set{cfg: cfg.Defaults(), hooks: hooks, log: log, all: make(map[*Tunnel]struct{}), trim: trim{spare: spare}}
	s.buffers.New = func() any { return new([bufferSize]byte) }

	_, _ = rand.Read(s.pingBody[:]) // never fails

	return s, nil
}

// Count is the number of open tunnels.
func (s *Set) Count() int { return int(s.count.Load()) }

// Open starts a tunnel. It returns false, and owns nothing, when the Set is closed.
func (s *Set) Open(spec *Spec) bool {
	t := &Tunnel{set: s, began: time.Now(), done: spec.Done}
	t.alive.Store(2)

	most := s.cfg.MaxMessage
	if spec.MaxMessage > 0 && (most <= 0 || spec.MaxMessage < most) {
		most = spec.MaxMessage
	}

	for i, e := range []End{spec.Client, spec.Engine} {
		t.ends[i].tunnel, t.ends[i].side, t.ends[i].conn = t, Side(i), e.Conn
		if sc, ok := e.Socket.(syscall.Conn); ok {
			if raw, err := sc.SyscallConn(); err == nil {
				t.ends[i].raw = raw
			}
		}

		p := &t.pumps[i]
		*p = pump{
			tunnel: t, from: &t.ends[i], to: &t.ends[1-i], slot: -1, kept: e.Early,
			check:    wsframe.Checker{Masked: Side(i) == Client, Deflate: spec.Deflate.On, MaxMessage: most},
			frames:   newBucket(s.cfg.FramesPerSecond, 2, t.began),
			wholes:   newBucket(s.cfg.MessagesPerSecond, 2, t.began),
			controls: newBucket(s.cfg.ControlsPerSecond, 10, t.began),
		}

		if e.Conn == e.Socket && t.ends[i].raw != nil {
			p.direct = p.reader()
		}

		if spec.Deflate.On {
			reset := spec.Deflate.ClientReset
			if Side(i) == Engine {
				reset = spec.Deflate.ServerReset
			}

			p.inflate = &inflater{check: &p.check, max: most, reset: reset}
		}
	}

	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()

		return false
	}

	if s.leaving {
		t.drainAt = t.began
	}

	s.all[t] = struct{}{}
	s.running.Add(2)
	s.mu.Unlock()
	s.count.Add(1)
	s.trim.opened.Add(1)

	go t.pumps[0].run()
	go t.pumps[1].run()

	return true
}

func (s *Set) forget(t *Tunnel) {
	s.mu.Lock()
	delete(s.all, t)
	s.mu.Unlock()
	s.count.Add(-1)
}

// sweepEvery is how often tunnels are looked at.
const sweepEvery = 100 * time.Millisecond

// Run sweeps until ctx ends, then ends what is left and returns when nothing runs any more.
func (s *Set) Run(ctx context.Context) error {
	poll, err := newPoller()
	if err != nil {
		return fmt.Errorf("tunnel: %w", err)
	}

	s.poll.Store(poll)

	polled := make(chan error, 1)
	go func() { polled <- poll.run(s) }()

	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()

	for done := false; !done; {
		select {
		case now := <-tick.C:
			s.sweep(now)
		case <-ctx.Done():
			done = true
		}
	}

	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.Cut()
	// From here on nothing is parked, so that the poller starts nothing any more.
	poll.stop()

	err = <-polled

	s.running.Wait()

	return err
}

// cut ends a tunnel at once.
func (t *Tunnel) cut() {
	t.mu.Lock()
	t.decide(Result{Code: wsframe.CodeGoingAway, Local: true, Broken: true, Reason: "cut"})
	t.mu.Unlock()
	t.finish()
}

// Cut ends every tunnel at once, without good-byes, and returns how many there were.
func (s *Set) Cut() int {
	s.mu.Lock()

	left := make([]*Tunnel, 0, len(s.all))
	for t := range s.all {
		left = append(left, t)
	}

	s.mu.Unlock()

	for _, t := range left {
		t.cut()
	}

	return len(left)
}

// Drain says good-bye (1001) to every tunnel at a time of its own within spread, so that clients
// do not come back all at once. It returns at once; Count tells the progress.
func (s *Set) Drain(spread time.Duration) {
	now := time.Now()

	s.mu.Lock()
	defer s.mu.Unlock()

	s.leaving = true

	for t := range s.all {
		t.mu.Lock()
		t.drainAt = now.Add(time.Duration(mrand.Int64N(max(int64(spread), 1)))) //nolint:gosec // spreads load
		t.mu.Unlock()
	}
}

// sweep looks for what is due. What has to be written is written elsewhere: an end may be stuck.
func (s *Set) sweep(now time.Time) {
	if s.trim.due(now, s.count.Load()) {
		s.running.Go(debug.FreeOSMemory)
	}

	if s.count.Load() == 0 {
		return
	}

	s.mu.Lock()
	defer s.mu.Unlock()

	for t := range s.all {
		if do := t.due(now); do != nil {
			s.running.Go(do)
		}
	}
}

// quiet is how long nothing may have moved for a drain to find a tunnel between two messages, and
// quietWait how long it waits for that.
const (
	quiet     = 200 * time.Millisecond
	quietWait = 2 * time.Second
)

// due says what is to be done for a tunnel now, nil for nothing.
func (t *Tunnel) due(now time.Time) func() {
	c := &t.set.cfg
	age := now.Sub(t.began)
	client := age - time.Duration(t.seen[Client].Load())*time.Millisecond
	engine := age - time.Duration(t.seen[Engine].Load())*time.Millisecond
	message := age - time.Duration(t.message.Load())*time.Millisecond

	t.mu.Lock()
	closing, closeBy, drainAt := t.decided, t.closeBy, t.drainAt
	t.mu.Unlock()

	switch {
	case t.over.Load():
		return nil
	case !closeBy.IsZero():
		if now.After(closeBy) {
			return t.expire
		}

		return nil
	case closing:
		return nil
	case !drainAt.IsZero() && now.After(drainAt) && (min(client, engine) > quiet || now.Sub(drainAt) > quietWait):
		return func() { t.leave(wsframe.CodeGoingAway, "the gateway is going away") }
	case c.Life > 0 && age > c.Life:
		return func() { t.leave(wsframe.CodeGoingAway, "the connection has lived long enough") }
	case c.Idle > 0 && message > c.Idle:
		return func() { t.leave(wsframe.CodeGoingAway, "no message for too long") }
	case c.Pong > 0 && client > c.Pong:
		return func() { t.silent() }
	case c.Ping > 0 && client > c.Ping && age-time.Duration(t.pinged.Load())*time.Millisecond > c.Ping:
		t.pinged.Store(age.Milliseconds())

		return func() { t.ends[Client].ping(t.set.pingBody[:]) }
	}

	return nil
}

// silent ends a tunnel whose client answers nothing.
func (t *Tunnel) silent() {
	t.mu.Lock()
	t.decide(Result{Code: wsframe.CodeLost, By: Client, Broken: true, Reason: "the client does not answer pings"})
	t.mu.Unlock()

	t.ends[Engine].bye(farewell{wsframe.CodeGoingAway, "the client does not answer pings"}, false)
	t.ends[Client].bye(farewell{wsframe.CodeGoingAway, "no answer to pings"}, false)
	t.finish()
}

// stranded bounds the rest of a tunnel one end of which takes nothing any more.
func (t *Tunnel) stranded() {
	t.mu.Lock()
	t.limit(t.set.cfg.CloseWait)
	t.mu.Unlock()
}

func (s *Set) buffer() *[bufferSize]byte {
	b, ok := s.buffers.Get().(*[bufferSize]byte)
	if !ok {
		panic("BUG: the pool of buffers holds something else")
	}

	return b
}

func (s *Set) unbuffer(b *[bufferSize]byte) { s.buffers.Put(b) }

// await has the pump started again when bytes arrive; false if that is not possible.
func (s *Set) await(p *pump) bool {
	poll := s.poll.Load()

	return poll != nil && p.from.raw != nil && poll.arm(p)
}

// unpoll forgets a pump.
func (s *Set) unpoll(p *pump) {
	if poll := s.poll.Load(); poll != nil {
		poll.remove(p)
	}
}
