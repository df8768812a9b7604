package wire

import (
	"encoding/binary"
	"math/rand/v2"
)

// Opcodes of WebSocket frames.
const (
	opContinue = 0x0
	opText     = 0x1
	opBinary   = 0x2
	opClose    = 0x8
	opPing     = 0x9
	opPong     = 0xa
)

const (
	finBit   = 0x80
	maskBit  = 0x80
	maxFrame = 10 // bytes of a header without a mask
)

// appendFrame appends a masked frame, as clients must send it.
func appendFrame(dst []byte, op byte, payload []byte, rng *rand.Rand) []byte {
	dst = append(dst, finBit|op)

	switch n := len(payload); {
	case n < 126:
		dst = append(dst, maskBit|byte(n))
	case n < 1<<16:
		dst = append(dst, maskBit|126)
		dst = binary.BigEndian.AppendUint16(dst, uint16(n))
	default:
		dst = append(dst, maskBit|127)
		dst = binary.BigEndian.AppendUint64(dst, uint64(n))
	}

	key := rng.Uint32()
	dst = binary.LittleEndian.AppendUint32(dst, key)
	at := len(dst)
	dst = append(dst, payload...)
	mask(dst[at:], key)

	return dst
}

func mask(b []byte, key uint32) {
	wide := uint64(key) | uint64(key)<<32

	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}

	for i := range b {
		b[i] ^= byte(key >> (8 * (i & 3)))
	}
}

// frames reads WebSocket messages from pieces of any size.
type frames struct {
	head    []byte
	left    int64
	op      byte
	fin     bool
	payload bool // the header is read, left bytes of payload are to come
	bytes   int64
	body    []byte // the beginning of the message, or the payload of a control frame
	started bool   // some of the message has come
}

// What feed found.
type found uint8

const (
	foundNothing found = iota
	foundMessage
	foundPing
	foundClose
)

func (f *frames) reset() {
	f.bytes, f.body, f.started = 0, f.body[:0], false
}

// feed takes bytes until something is complete.
func (f *frames) feed(b []byte) (n int, what found, err error) {
	for n < len(b) || (f.payload && f.left == 0) {
		if !f.payload {
			k, ok, err := f.readHead(b[n:])
			n += k

			if err != nil || !ok {
				return n, foundNothing, err
			}
		}

		piece := b[n:]
		piece = piece[:min(f.left, int64(len(piece)))]
		n += len(piece)
		f.left -= int64(len(piece))
		f.keep(piece)

		if f.left > 0 {
			return n, foundNothing, nil
		}

		f.payload = false

		switch {
		case f.op == opClose:
			return n, foundClose, nil
		case f.op == opPing:
			return n, foundPing, nil
		case f.op == opPong:
		case f.fin:
			return n, foundMessage, nil
		}
	}

	return n, foundNothing, nil
}

func (f *frames) keep(piece []byte) {
	if f.op < opClose {
		f.started = true
		f.bytes += int64(len(piece))
	}

	if room := keepBody - len(f.body); room > 0 {
		f.body = append(f.body, piece[:min(room, len(piece))]...)
	}
}

// readHead collects the header of a frame.
func (f *frames) readHead(b []byte) (n int, ok bool, err error) {
	for n < len(b) {
		f.head = append(f.head, b[n])
		n++

		if len(f.head) < 2 {
			continue
		}

		need := 2

		switch f.head[1] & 0x7f {
		case 126:
			need = 4
		case 127:
			need = maxFrame
		}

		if len(f.head) == need {
			return n, true, f.parseHead()
		}
	}

	return n, false, nil
}

func (f *frames) parseHead() error {
	h := f.head
	f.head = f.head[:0]
	f.op, f.fin = h[0]&0x0f, h[0]&finBit != 0

	if h[0]&0x70 != 0 || h[1]&maskBit != 0 {
		return ErrMalformed // no extension was agreed on; servers do not mask
	}

	switch len(h) {
	case 4:
		f.left = int64(binary.BigEndian.Uint16(h[2:]))
	case maxFrame:
		f.left = int64(binary.BigEndian.Uint64(h[2:]))
	default:
		f.left = int64(h[1])
	}

	const most = 1 << 40
	if f.left < 0 || f.left > most || (f.op >= opClose && (f.left > 125 || !f.fin)) {
		return ErrMalformed
	}

	f.payload = true

	if f.op >= opClose {
		f.body = f.body[:0] // control frames between the fragments of a message: the message is not looked at
	}

	return nil
}
