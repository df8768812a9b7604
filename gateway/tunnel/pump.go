package tunnel

import (
	"bytes"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// bufferSize is what a pump reads at a time. A frame that fits is sent on as a whole.
const bufferSize = 16 << 10

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

	messages, bytes atomic.Int64

	// kept is what was read and not used when the buffer was given back.
	kept []byte
	// direct reads from the socket itself, with a buffer only when there is something to read; nil for TLS,
	// which has bytes that the socket has no more. got and failed are what it found.
	direct func(fd uintptr) bool
	got    int
	failed error
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
		p.lend()

		return p.from.conn.Read(p.buf[p.end:]) //nolint:wrapcheck // told as the reason
	}

	p.got, p.failed = 0, nil

	if err := p.from.raw.Read(p.direct); err != nil {
		return 0, err //nolint:wrapcheck // told as the reason
	}

	return p.got, p.failed
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

// header judges the head at next, and a control frame as a whole.
func (p *pump) header() error {
	h, ok, v := wsframe.ParseHeader(p.buf[p.next:p.end])
	if v != nil {
		return v
	}

	if !ok {
		return nil
	}

	if h.Op.Control() && p.end-p.next < h.Size+int(h.Length) {
		return nil
	}

	if v := p.check.Frame(&h); v != nil {
		return v
	}

	if h.Op.Control() {
		return p.control(&h)
	}

	p.frames.take()

	p.head, p.within, p.at = h, true, 0
	p.whole = int64(h.Size)+h.Length <= bufferSize
	p.next += h.Size

	return p.payload()
}

// payload judges what is there of a data frame.
func (p *pump) payload() error {
	n := int(min(p.head.Length-p.at, int64(p.end-p.next)))
	piece := p.buf[p.next : p.next+n]

	if v := p.judge(piece); v != nil {
		return v
	}

	p.next += n
	p.at += int64(n)

	if !p.whole {
		p.judged = p.next
	}

	if p.at < p.head.Length {
		return nil
	}

	return p.endFrame()
}

func (p *pump) judge(piece []byte) error {
	if len(piece) == 0 {
		return nil
	}

	if !p.check.Packed() {
		if v := p.check.Payload(piece, p.head.Key, p.at); v != nil {
			return v
		}

		return nil
	}

	if !p.head.Masked {
		if v := p.inflate.Write(piece); v != nil {
			return v
		}

		return nil
	}

	// The bytes that travel on keep their mask.
	var room [1024]byte

	for done := 0; done < len(piece); {
		n := copy(room[:], piece[done:])
		wsframe.Mask(room[:n], p.head.Key, p.at+int64(done))

		if v := p.inflate.Write(room[:n]); v != nil {
			return v
		}

		done += n
	}

	return nil
}

func (p *pump) endFrame() error {
	packed := p.check.Packed()

	if p.head.Fin && packed {
		if v := p.inflate.End(); v != nil {
			return v
		}
	}

	done, v := p.check.End(&p.head)
	if v != nil {
		return v
	}

	p.within, p.judged = false, p.next

	if done {
		p.wholes.take()
		p.messages.Add(1)
		p.tunnel.message.Store(p.tunnel.now())
	}

	return nil
}

var errFlood = &wsframe.Violation{Code: wsframe.CodePolicy, Reason: "too many control frames"} //nolint:gochecknoglobals // constant

// control sends a control frame on, or keeps it if it is an answer to a question of ours.
func (p *pump) control(h *wsframe.Header) error {
	if !p.controls.take() {
		return errFlood
	}

	at := p.next
	payload := p.buf[at+h.Size : at+h.Size+int(h.Length)]

	switch h.Op { //nolint:exhaustive // the others are data
	case wsframe.OpClose:
		return p.farewell(h, payload)
	case wsframe.OpPong:
		if p.ours(h, payload) {
			err := p.flush()
			p.next += h.Size + int(h.Length)
			p.start, p.judged = p.next, p.next

			return err
		}
	}

	p.next += h.Size + int(h.Length)
	p.judged = p.next

	return nil
}

// ours reports whether a pong answers a ping of the relay itself.
func (p *pump) ours(h *wsframe.Header, payload []byte) bool {
	ping := p.tunnel.set.pingBody
	if len(payload) != len(ping) {
		return false
	}

	var clear [8]byte

	copy(clear[:], payload)

	if h.Masked {
		wsframe.Mask(clear[:], h.Key, 0)
	}

	return bytes.Equal(clear[:], ping[:])
}

func (p *pump) farewell(h *wsframe.Header, payload []byte) error {
	var clear [wsframe.MaxControl]byte

	n := copy(clear[:], payload)
	if h.Masked {
		wsframe.Mask(clear[:n], h.Key, 0)
	}

	code, reason, v := wsframe.ParseClose(clear[:n])
	if v != nil {
		return v
	}

	if err := p.flush(); err != nil {
		return err
	}

	p.tunnel.bow(p.from.side, farewell{code, string(reason)})

	return errBowed
}

// flush sends what was judged.
func (p *pump) flush() error {
	if p.start == p.judged {
		return nil
	}

	mid := p.within && !p.whole
	// A whole frame that waits for its rest has begun its message without the receiver knowing.
	open := p.check.Open() && (!p.within || mid || p.head.Op == wsframe.OpContinuation)

	err := p.to.write(p.buf[p.start:p.judged], mid, open)
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

// rest is called when nothing came for a while: the pump parks. A part of a frame is kept aside,
// but a frame has to be complete some day.
func (p *pump) rest() (parked bool, err error) {
	if p.tunnel.over.Load() {
		return false, errOver
	}

	if p.buf != nil && p.end > 0 || p.within {
		return p.restWithin()
	}

	p.late = time.Time{}
	p.release()

	return p.park()
}

var errStalled = &wsframe.Violation{Code: wsframe.CodePolicy, Reason: "a frame was begun and not ended"} //nolint:gochecknoglobals // constant

// restWithin waits for the rest of a frame, with the buffer at hand, as long as a slow end may take.
func (p *pump) restWithin() (bool, error) {
	now := time.Now()
	if p.late.IsZero() {
		p.late = now
	}

	t := p.tunnel
	if seen := t.began.Add(time.Duration(t.seen[p.from.side].Load()) * time.Millisecond); seen.After(p.late) {
		p.late = seen
	}

	if now.Sub(p.late) > t.set.cfg.Write {
		return false, errStalled
	}

	return false, nil
}

// park gives the goroutine back until bytes arrive. Without a poller it waits itself.
func (p *pump) park() (bool, error) {
	p.state.Store(pumpParked)

	if p.tunnel.set.await(p) {
		// Somebody may have ended the tunnel before the pump counted as parked.
		if p.tunnel.over.Load() && p.state.CompareAndSwap(pumpParked, pumpRunning) {
			return false, errOver
		}

		return true, nil
	}

	if !p.state.CompareAndSwap(pumpParked, pumpRunning) {
		return true, nil // ended meanwhile
	}

	return false, p.single()
}

// single waits for one byte without a buffer.
func (p *pump) single() error {
	if err := p.from.conn.SetReadDeadline(time.Time{}); err != nil {
		return err //nolint:wrapcheck // told as the reason
	}

	if p.tunnel.over.Load() {
		return errOver
	}

	one := make([]byte, 1)

	n, err := p.from.conn.Read(one)
	if n == 0 && err == nil {
		err = io.ErrNoProgress
	}

	if n == 0 {
		if isTimeout(err) {
			return nil
		}

		return err //nolint:wrapcheck // told as the reason
	}

	p.kept = one

	return nil
}
