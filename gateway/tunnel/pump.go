package tunnel

import (
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// bufferSize is what a pump reads at a time. A frame that fits is sent on as a whole.
const bufferSize = 16 << 10

// smallSize is what a pump reads where it waits without a buffer: most control frames, and the start of others.
const smallSize = 64

// States of a pump.
const (
	pumpRunning int32 = iota
	pumpParked
	pumpEnded
)

// pump carries one direction. Its goroutine owns everything that is not atomic; while it is
// parked nobody does.
type pump struct {
	tunnel   *Tunnel
	from, to *end
	state    atomic.Int32
	slot     int // in the poller; -1 if it has none

	check    wsframe.Checker
	inflate  *inflater // nil without compression
	frames   bucket
	wholes   bucket
	controls bucket
	owed     atomic.Int64 // pings that went to this end and may be answered

	messages, bytes atomic.Int64

	// kept is what was read and not used when the buffer was given back.
	kept []byte
	// direct reads from the socket itself, with a buffer only when there is something to read; nil for TLS,
	// which has bytes that the socket has no more. got and failed are what it found.
	direct func(fd uintptr) bool
	got    int
	failed error
	// first receives what direct cannot wait for; more tells that it was filled.
	first []byte
	more  bool
	// buf[start:judged] is to be sent, buf[judged:next] was judged but belongs to a frame that is
	// sent as a whole, buf[next:end] was not looked at.
	buf                      *[bufferSize]byte
	start, judged, next, end int

	head   wsframe.Header // of the frame under way
	within bool           // such a frame is under way
	whole  bool           // it is sent as a whole
	at     int64          // how much of its payload was judged
	late   time.Time      // since when a part of a frame waits for the rest
}

var (
	errBowed = errors.New("tunnel: a close frame ended the direction")
	errOver  = errors.New("tunnel: over")
)

// run pumps until the direction ends or is parked.
func (p *pump) run() {
	defer p.tunnel.set.running.Done()
	defer p.guard()

	for {
		parked, err := p.step()
		if parked {
			return
		}

		if err != nil {
			p.conclude(err)
			p.leave()

			return
		}
	}
}

// guard ends the pump if it panicked.
func (p *pump) guard() {
	v := recover()
	if v == nil {
		return
	}

	p.tunnel.rescue(v)

	if p.state.Load() != pumpEnded {
		p.leave()
	}
}

// leave ends the pump for good.
func (p *pump) leave() {
	p.state.Store(pumpEnded)
	p.release()

	if p.inflate != nil {
		p.inflate.Close()
	}

	p.ended()
}

// ended counts the pump out. The last one ends the tunnel.
func (p *pump) ended() {
	p.tunnel.set.unpoll(p)

	if p.tunnel.alive.Add(-1) == 0 {
		p.tunnel.ended()
	}
}

// conclude tells the tunnel why the direction ended.
func (p *pump) conclude(err error) {
	var v *wsframe.Violation

	switch t := p.tunnel; {
	case errors.Is(err, errBowed), errors.Is(err, errOver) || t.over.Load():
	case errors.As(err, &v):
		t.broke(p.from.side, v)
	default:
		t.lost(p.from.side, err)
	}
}

// step reads once and sends on what came.
func (p *pump) step() (parked bool, err error) {
	t := p.tunnel

	if err := p.patience(); err != nil {
		return false, err
	}

	if p.kept != nil {
		if err := p.takeKept(); err != nil {
			return false, err
		}
	}

	if err := p.from.conn.SetReadDeadline(time.Now().Add(t.set.cfg.ParkAfter)); err != nil {
		return false, err //nolint:wrapcheck // told as the reason
	}

	if t.over.Load() {
		return false, errOver
	}

	n, err := p.read()
	if n > 0 {
		return false, p.took(n)
	}

	if isTimeout(err) {
		return p.rest()
	}

	if err == nil {
		err = io.ErrNoProgress
	}

	return false, err //nolint:wrapcheck // told as the reason
}

// read waits for bytes. Where that is possible it holds no buffer meanwhile.
func (p *pump) read() (int, error) {
	if p.direct == nil {
		return p.readSmall()
	}

	p.got, p.failed = 0, nil

	if err := p.from.raw.Read(p.direct); err != nil {
		return 0, err //nolint:wrapcheck // told as the reason
	}

	return p.got, p.failed
}

// readSmall is read for TLS, which does not tell when it has something: a few bytes are waited for without a
// buffer. Where more came with them, the next read finds it at once.
func (p *pump) readSmall() (int, error) {
	if p.more || p.buf != nil && p.end > 0 {
		p.more = false
		p.lend()

		return p.from.conn.Read(p.buf[p.end:]) //nolint:wrapcheck // told as the reason
	}

	p.release()

	if p.first == nil {
		p.first = make([]byte, smallSize)
	}

	n, err := p.from.conn.Read(p.first)
	if n > 0 {
		p.lend()
		copy(p.buf[:], p.first[:n])
		p.more = n == len(p.first)
	}

	return n, err //nolint:wrapcheck // as above
}

// lend gets a buffer if there is none.
func (p *pump) lend() {
	if p.buf == nil {
		p.buf = p.tunnel.set.buffer()
		p.start, p.judged, p.next, p.end = 0, 0, 0, 0
	}
}

// took accounts for n bytes behind what was there.
func (p *pump) took(n int) error {
	p.end += n
	p.bytes.Add(int64(n))
	p.tunnel.seen[p.from.side].Store(p.tunnel.now())

	return p.consume()
}

// takeKept uses what was read before there was a buffer.
func (p *pump) takeKept() error {
	p.lend()

	for len(p.kept) > 0 {
		n := copy(p.buf[p.end:], p.kept)
		p.kept = p.kept[n:]

		if err := p.took(n); err != nil {
			return err
		}
	}

	p.kept = nil

	return nil
}

// patience waits while the sender is over its rate.
func (p *pump) patience() error {
	now := time.Now()
	p.frames.refill(now)
	p.wholes.refill(now)
	p.controls.refill(now)

	wait := max(p.frames.debt(), p.wholes.debt())
	for wait > 0 {
		if p.tunnel.over.Load() {
			return errOver
		}

		pause := min(wait, 50*time.Millisecond)
		timer := time.NewTimer(pause)
		<-timer.C

		wait -= pause
	}

	return nil
}

// consume judges what has arrived and sends on what may be.
func (p *pump) consume() error {
	for p.next < p.end {
		var err error

		before := p.next
		if p.within {
			err = p.payload()
		} else {
			err = p.header()
		}

		if err != nil {
			// What came before is still good. If it cannot be sent, that matters no more.
			_ = p.flush()

			return err
		}

		if p.next == before { // the rest of a head or of a control frame is to come
			break
		}
	}

	if err := p.flush(); err != nil {
		return err
	}

	p.compact()

	return nil
}

// flush sends what was judged.
func (p *pump) flush() error {
	if p.start == p.judged {
		return nil
	}

	mid := p.within && !p.whole
	// A whole frame that waits for its rest has begun its message without the receiver knowing.
	open := p.check.Open() && (!p.within || mid || p.head.Op == wsframe.OpContinuation)

	err := p.to.write(p.buf[p.start:p.judged], cut{mid, open})
	p.start = p.judged

	switch {
	case err == nil || p.tunnel.over.Load():
		return nil
	case isTimeout(err):
		p.tunnel.slow(p.to.side)

		return errOver
	default:
		// The other direction finds out why, and may still have something to say: a close frame
		// that came before the connection broke.
		p.tunnel.stranded()

		return nil
	}
}

// compact moves what was not sent to the front.
func (p *pump) compact() {
	if p.start == 0 {
		return
	}

	n := copy(p.buf[:], p.buf[p.start:p.end])
	p.judged -= p.start
	p.next -= p.start
	p.start, p.end = 0, n
}

func (p *pump) release() {
	if p.buf != nil {
		p.tunnel.set.unbuffer(p.buf)
		p.buf = nil
	}
}
