package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unsafe"
)

// Bounds of a frame.
const (
	// MaxBody is the largest body of a frame, in bytes. A longer body does not fit a call; a longer
	// answer comes in several frames, between which those of other calls may stand.
	MaxBody = 64 << 10
	// MaxHead bounds method, path and headers of a frame together, in bytes.
	MaxHead = 32 << 10
	// maxPayload is the largest length that a peer may announce.
	maxPayload = MaxBody + MaxHead + 64
	// Version of the protocol that this package speaks.
	Version = 1
)

type frameType uint8

const (
	frameCall frameType = iota + 1
	frameAnswer
	frameCancel
	frameDrain
	framePing
	framePong
	frameMore // a piece of a long answer's body, before its answer frame
)

const (
	lengthSize     = 4
	typeSize       = 1
	callFixed      = 8 + 4 + 1 + 2 + 2 + 4 + 4 // id, timeout, method, path, headers, header bytes, body
	answerFixed    = 8 + 2 + 2 + 4 + 4         // id, status, headers, header bytes, body
	headerOverhead = 4                         // two lengths
)

// ErrFrame tells of a frame that does not parse; the connection it came on is closed.
var ErrFrame = errors.New("link: malformed frame")

// Header is a list of name and value pairs in its wire form. The zero value is empty.
type Header struct {
	buf []byte
	n   int
}

// Reset empties the list and keeps its memory.
func (h *Header) Reset() { h.buf, h.n = h.buf[:0], 0 }

// Len is the number of pairs.
func (h *Header) Len() int { return h.n }

// Add appends a pair; both are copied. A pair that cannot be carried is dropped, false is returned.
func (h *Header) Add(name string, value []byte) bool {
	if !h.room(len(name), len(value)) {
		return false
	}

	h.buf = binary.LittleEndian.AppendUint16(h.buf, uint16(len(name)))
	h.buf = binary.LittleEndian.AppendUint16(h.buf, uint16(len(value)))
	h.buf = append(h.buf, name...)
	h.buf = append(h.buf, value...)
	h.n++

	return true
}

// AddBytes is Add for a name that is a byte slice.
func (h *Header) AddBytes(name, value []byte) bool {
	if !h.room(len(name), len(value)) {
		return false
	}

	h.buf = binary.LittleEndian.AppendUint16(h.buf, uint16(len(name)))
	h.buf = binary.LittleEndian.AppendUint16(h.buf, uint16(len(value)))
	h.buf = append(h.buf, name...)
	h.buf = append(h.buf, value...)
	h.n++

	return true
}

func (h *Header) room(name, value int) bool {
	return name > 0 && len(h.buf)+headerOverhead+name+value <= MaxHead && h.n < 1<<16-1
}

// Each calls f for every pair until it returns false.
func (h *Header) Each(f func(name, value []byte) bool) {
	b := h.buf
	for range h.n {
		name, value, rest, ok := cutPair(b)
		if !ok || !f(name, value) {
			return
		}

		b = rest
	}
}

// Get returns the first value whose name equals name exactly, nil if there is none.
func (h *Header) Get(name string) []byte {
	b := h.buf
	for range h.n {
		n, v, rest, ok := cutPair(b)
		if !ok {
			return nil
		}

		if string(n) == name {
			return v
		}

		b = rest
	}

	return nil
}

func cutPair(b []byte) (name, value, rest []byte, ok bool) { //nolint:revive // three cuts and whether there were any
	if len(b) < headerOverhead {
		return nil, nil, nil, false
	}

	n := int(binary.LittleEndian.Uint16(b))
	v := int(binary.LittleEndian.Uint16(b[2:]))

	if n == 0 || len(b) < headerOverhead+n+v {
		return nil, nil, nil, false
	}

	b = b[headerOverhead:]

	return b[:n], b[n : n+v], b[n+v:], true
}

// GetFold is Get without regard to the case of ASCII letters.
func (h *Header) GetFold(name string) []byte {
	b := h.buf
	for range h.n {
		n, v, rest, ok := cutPair(b)
		if !ok {
			return nil
		}

		if len(n) == len(name) && strings.EqualFold(unsafe.String(&n[0], len(n)), name) {
			return v
		}

		b = rest
	}

	return nil
}

// check reports whether the block is exactly n well-formed pairs.
func (h *Header) check() bool {
	b := h.buf
	for range h.n {
		_, _, rest, ok := cutPair(b)
		if !ok {
			return false
		}

		b = rest
	}

	return len(b) == 0
}

// callHead is the decoded form of a call frame; slices alias the frame.
type callHead struct {
	id           uint64
	timeoutMs    uint32
	method, path []byte
	header       Header
	body         []byte
}

func appendLength(b []byte, payload int, t frameType) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(payload+typeSize))

	return append(b, byte(t))
}

func callFits(method, path []byte, h *Header, body []byte) error {
	if len(method) > 255 || len(path) > 1<<16-1 || len(method)+len(path)+len(h.buf) > MaxHead {
		return fmt.Errorf("link: head of %d bytes is over the limit", len(method)+len(path)+len(h.buf))
	}

	if len(body) > MaxBody {
		return fmt.Errorf("link: body of %d bytes is over the limit", len(body))
	}

	return nil
}

// appendCall appends a call frame; the caller has checked callFits.
func appendCall(b []byte, c *callHead) []byte {
	b = appendLength(b, callFixed+len(c.method)+len(c.path)+len(c.header.buf)+len(c.body), frameCall)
	b = binary.LittleEndian.AppendUint64(b, c.id)
	b = binary.LittleEndian.AppendUint32(b, c.timeoutMs)
	b = append(b, byte(len(c.method)))
	b = binary.LittleEndian.AppendUint16(b, uint16(len(c.path)))
	b = binary.LittleEndian.AppendUint16(b, uint16(c.header.n))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.header.buf)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(c.body)))
	b = append(b, c.method...)
	b = append(b, c.path...)
	b = append(b, c.header.buf...)

	return append(b, c.body...)
}

func parseCall(p []byte, c *callHead) error {
	if len(p) < callFixed {
		return fmt.Errorf("%w: call of %d bytes", ErrFrame, len(p))
	}

	c.id = binary.LittleEndian.Uint64(p)
	c.timeoutMs = binary.LittleEndian.Uint32(p[8:])
	method := int(p[12])
	path := int(binary.LittleEndian.Uint16(p[13:]))
	c.header.n = int(binary.LittleEndian.Uint16(p[15:]))
	headers := int(binary.LittleEndian.Uint32(p[17:]))
	body := int(binary.LittleEndian.Uint32(p[21:]))
	p = p[callFixed:]

	if method+path+headers > MaxHead || body > MaxBody || len(p) != method+path+headers+body {
		return fmt.Errorf("%w: lengths of a call", ErrFrame)
	}

	c.method, p = p[:method:method], p[method:]
	c.path, p = p[:path:path], p[path:]
	c.header.buf, c.body = p[:headers:headers], p[headers:]

	if !c.header.check() {
		return fmt.Errorf("%w: headers of a call", ErrFrame)
	}

	return nil
}

// answerHead is the decoded form of an answer frame; slices alias the frame.
type answerHead struct {
	id     uint64
	status int
	header Header
	body   []byte
}

func appendAnswer(b []byte, a *answerHead) []byte {
	b = appendLength(b, answerFixed+len(a.header.buf)+len(a.body), frameAnswer)
	b = binary.LittleEndian.AppendUint64(b, a.id)
	b = binary.LittleEndian.AppendUint16(b, uint16(a.status))
	b = binary.LittleEndian.AppendUint16(b, uint16(a.header.n))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(a.header.buf)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(a.body)))
	b = append(b, a.header.buf...)

	return append(b, a.body...)
}

func parseAnswer(p []byte, a *answerHead) error {
	if len(p) < answerFixed {
		return fmt.Errorf("%w: answer of %d bytes", ErrFrame, len(p))
	}

	a.id = binary.LittleEndian.Uint64(p)
	a.status = int(binary.LittleEndian.Uint16(p[8:]))
	a.header.n = int(binary.LittleEndian.Uint16(p[10:]))
	headers := int(binary.LittleEndian.Uint32(p[12:]))
	body := int(binary.LittleEndian.Uint32(p[16:]))
	p = p[answerFixed:]

	if headers > MaxHead || body > MaxBody || len(p) != headers+body || a.status < 100 || a.status > 599 {
		return fmt.Errorf("%w: lengths or status of an answer", ErrFrame)
	}

	a.header.buf, a.body = p[:headers:headers], p[headers:]

	if !a.header.check() {
		return fmt.Errorf("%w: headers of an answer", ErrFrame)
	}

	return nil
}

// appendID appends a cancel, ping or pong frame, whose payload is one number.
func appendID(b []byte, t frameType, id uint64) []byte {
	return binary.LittleEndian.AppendUint64(appendLength(b, 8, t), id)
}

func parseID(p []byte) (uint64, error) {
	if len(p) != 8 {
		return 0, fmt.Errorf("%w: %d bytes where 8 belong", ErrFrame, len(p))
	}

	return binary.LittleEndian.Uint64(p), nil
}

// appendMore appends a piece of an answer's body.
func appendMore(b []byte, id uint64, piece []byte) []byte {
	b = appendLength(b, 8+len(piece), frameMore)
	b = binary.LittleEndian.AppendUint64(b, id)

	return append(b, piece...)
}

func parseMore(p []byte) (id uint64, piece []byte, err error) {
	if len(p) < 8 || len(p) > 8+MaxBody {
		return 0, nil, fmt.Errorf("%w: piece of %d bytes", ErrFrame, len(p))
	}

	return binary.LittleEndian.Uint64(p), p[8:], nil
}
