package tunnel

import (
	"io"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

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

var errStalled = &wsframe.Violation{Code: wsframe.CodePolicy, Reason: "a frame was begun and not ended"}

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
