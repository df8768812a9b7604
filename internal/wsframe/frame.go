package wsframe

import (
	"encoding/binary"
	"fmt"
)

// Opcode is the kind of a frame.
type Opcode byte

// Opcodes. Those from OpClose on are control frames.
const (
	OpContinuation Opcode = 0x0
	OpText         Opcode = 0x1
	OpBinary       Opcode = 0x2
	OpClose        Opcode = 0x8
	OpPing         Opcode = 0x9
	OpPong         Opcode = 0xa
)

// Control reports whether frames of this kind may stand between the fragments of a message.
func (o Opcode) Control() bool { return o&0x8 != 0 }

func (o Opcode) known() bool { return o <= OpBinary || o >= OpClose && o <= OpPong }

const (
	// MaxHeader is the length of the longest head of a frame.
	MaxHeader = 14
	// MaxControl is the longest payload of a control frame.
	MaxControl = 125
	// RSV1 is the reserved bit that permessage-deflate uses.
	RSV1 byte = 0x40

	finBit   = 0x80
	rsvBits  = 0x70
	maskBit  = 0x80
	length16 = 126
	length64 = 127
)

// Header is the head of a frame.
type Header struct {
	Op     Opcode
	Fin    bool
	RSV    byte // the reserved bits in place
	Masked bool
	Key    [4]byte
	Length int64 // of the payload
	Size   int   // of the head itself
}

// Violation is a breach of the protocol; Code is the close code that tells it.
type Violation struct { //nolint:errname // the protocol speaks of violations
	Code   Code
	Reason string
}

// Error implements error.
func (v *Violation) Error() string {
	return fmt.Sprintf("websocket: %s (close code %d)", v.Reason, v.Code)
}

var (
	errLength  = &Violation{CodeProtocol, "the length of a frame is not encoded in the shortest form"}
	errHuge    = &Violation{CodeProtocol, "the length of a frame has its highest bit set"}
	errOpcode  = &Violation{CodeProtocol, "a frame has a reserved opcode"}
	errRSV     = &Violation{CodeProtocol, "a frame has a reserved bit set"}
	errMasked  = &Violation{CodeProtocol, "a frame of the server is masked"}
	errClear   = &Violation{CodeProtocol, "a frame of the client is not masked"}
	errControl = &Violation{CodeProtocol, "a control frame is fragmented"}
	errLong    = &Violation{CodeProtocol, "a control frame is longer than 125 bytes"}
	errNoStart = &Violation{CodeProtocol, "a continuation frame continues nothing"}
	errStarted = &Violation{CodeProtocol, "a message begins before the last one has ended"}
	errClose   = &Violation{CodeProtocol, "a close frame has a payload of one byte"}
	errCode    = &Violation{CodeProtocol, "a close frame has a code that must not be sent"}
	errUTF8    = &Violation{CodeNotUTF8, "text is not valid UTF-8"}
	errTooBig  = &Violation{CodeTooBig, "the message is too big"}
)

// ParseHeader reads the head of a frame from the start of b. ok is false if b does not hold
// all of it yet; what can be judged by then is judged, so that garbage is not waited for.
func ParseHeader(b []byte) (h Header, ok bool, err *Violation) {
	if len(b) == 0 {
		return h, false, nil
	}

	h.Op, h.Fin, h.RSV = Opcode(b[0]&0xf), b[0]&finBit != 0, b[0]&rsvBits

	switch {
	case !h.Op.known():
		return h, false, errOpcode
	case h.Op.Control() && !h.Fin:
		return h, false, errControl
	case len(b) < 2:
		return h, false, nil
	}

	h.Masked = b[1]&maskBit != 0
	h.Length, h.Size = int64(b[1]&^maskBit), 2

	if h.Op.Control() && h.Length > MaxControl {
		return h, false, errLong
	}

	if ok, err := h.longLength(b); !ok || err != nil {
		return h, false, err
	}

	if !h.Masked {
		return h, true, nil
	}

	if len(b) < h.Size+4 {
		return h, false, nil
	}

	h.Key = [4]byte(b[h.Size:])
	h.Size += 4

	return h, true, nil
}

// longLength reads a length that does not fit the second byte.
func (h *Header) longLength(b []byte) (ok bool, err *Violation) {
	switch h.Length {
	case length16:
		if len(b) < 4 {
			return false, nil
		}

		h.Length, h.Size = int64(binary.BigEndian.Uint16(b[2:])), 4
		if h.Length < length16 {
			return false, errLength
		}
	case length64:
		if len(b) < 10 {
			return false, nil
		}

		h.Length, h.Size = int64(binary.BigEndian.Uint64(b[2:])), 10

		switch {
		case h.Length < 0:
			return false, errHuge
		case h.Length <= 0xffff:
			return false, errLength
		}
	}

	return true, nil
}

// Append appends the head of a frame to b; Size is not used.
func (h *Header) Append(b []byte) []byte {
	first := byte(h.Op) | h.RSV
	if h.Fin {
		first |= finBit
	}

	mask := byte(0)
	if h.Masked {
		mask = maskBit
	}

	switch {
	case h.Length < length16:
		b = append(b, first, mask|byte(h.Length))
	case h.Length <= 0xffff:
		b = append(b, first, mask|length16)
		b = binary.BigEndian.AppendUint16(b, uint16(h.Length))
	default:
		b = append(b, first, mask|length64)
		b = binary.BigEndian.AppendUint64(b, uint64(h.Length))
	}

	if h.Masked {
		b = append(b, h.Key[:]...)
	}

	return b
}

// AppendFrame appends a whole unfragmented frame to b, masked with key unless it is nil.
func AppendFrame(b []byte, op Opcode, payload []byte, key *[4]byte) []byte {
	h := Header{Op: op, Fin: true, Length: int64(len(payload)), Masked: key != nil}
	if key != nil {
		h.Key = *key
	}

	b = h.Append(b)
	at := len(b)
	b = append(b, payload...)

	if key != nil {
		Mask(b[at:], *key, 0)
	}

	return b
}

// Mask masks or unmasks b in place; b starts at offset in the payload.
func Mask(b []byte, key [4]byte, offset int64) {
	wide := wideKey(key, offset)

	for len(b) >= 8 {
		binary.LittleEndian.PutUint64(b, binary.LittleEndian.Uint64(b)^wide)
		b = b[8:]
	}

	for i := range b {
		b[i] ^= byte(wide >> (8 * i))
	}
}

// wideKey is the key repeated to eight bytes, as it falls on a payload from offset on.
func wideKey(key [4]byte, offset int64) uint64 {
	var wide [8]byte
	for i := range wide {
		wide[i] = key[(int64(i)+offset)&3]
	}

	return binary.LittleEndian.Uint64(wide[:])
}
