package tunnel

import (
	"bytes"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

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

var errFlood = &wsframe.Violation{Code: wsframe.CodePolicy, Reason: "too many control frames"}

// control sends a control frame on, or keeps it if it is an answer to a question of ours.
func (p *pump) control(h *wsframe.Header) error {
	if !p.mayControl(h.Op) {
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

// mayControl counts a control frame. Pongs that answer pings of the other end are not the sender's choice.
func (p *pump) mayControl(op wsframe.Opcode) bool {
	switch op { //nolint:exhaustive // the others are data
	case wsframe.OpClose:
		return true
	case wsframe.OpPong:
		if p.owed.Add(-1) >= 0 {
			return true
		}

		p.owed.Add(1)
	}

	if !p.controls.take() {
		return false
	}

	if op == wsframe.OpPing {
		p.tunnel.pumps[1-p.from.side].owed.Add(1)
	}

	return true
}

// ours reports whether a pong answers a ping of the relay itself.
func (p *pump) ours(h *wsframe.Header, payload []byte) bool {
	ping := p.tunnel.set.pingBody
	if len(payload) != len(ping) {
		return false
	}

	var plain [8]byte

	copy(plain[:], payload)

	if h.Masked {
		wsframe.Mask(plain[:], h.Key, 0)
	}

	return bytes.Equal(plain[:], ping[:])
}

func (p *pump) farewell(h *wsframe.Header, payload []byte) error {
	var plain [wsframe.MaxControl]byte

	n := copy(plain[:], payload)
	if h.Masked {
		wsframe.Mask(plain[:n], h.Key, 0)
	}

	code, reason, v := wsframe.ParseClose(plain[:n])
	if v != nil {
		return v
	}

	if err := p.flush(); err != nil {
		return err
	}

	p.tunnel.bow(p.from.side, farewell{code, string(reason)})

	return errBowed
}
