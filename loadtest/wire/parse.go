package wire

import (
	"bytes"
	"errors"
)

// What an answer may be, and how much is kept of its body.
const (
	maxHead  = 64 << 10
	keepBody = 4 << 10
)

// Errors of answers that are not HTTP/1.1.
var (
	ErrMalformed = errors.New("malformed answer")
	ErrTooLong   = errors.New("head of the answer is too long")
)

type state uint8

const (
	inHead state = iota
	inBody       // of known length
	untilClose
	inChunkSize
	inChunk
	afterChunk
	inTrailer
)

// parser reads one HTTP answer after the other from pieces of any size.
type parser struct {
	state  state
	status int
	left   int64 // bytes of the body or the chunk that are still to come
	bytes  int64 // of the body so far
	carry  []byte
	body   []byte // its beginning
	events *events
	onBody func([]byte)

	headOnly bool // answers to HEAD have no body
	sse      bool // the answer is a stream of events
	close    bool // the connection ends with this answer
	chunked  bool
	length   int64 // -1 if not told
}

func (p *parser) reset() {
	p.state, p.status, p.left, p.bytes = inHead, 0, 0, 0
	p.carry, p.body = p.carry[:0], p.body[:0]
	p.sse, p.close = false, false
}

// feed takes what was read; n is how much of b belongs to this answer, done tells that it is complete.
func (p *parser) feed(b []byte) (n int, done bool, err error) {
	for {
		k, more, err := p.step(b[n:])
		n += k

		if err != nil {
			return n, false, err
		}

		if !more {
			return n, false, nil
		}

		if p.state == inHead {
			return n, true, nil
		}
	}
}

// step takes one unit. more is false when it needs more bytes; when an answer is complete, state is inHead.
func (p *parser) step(b []byte) (n int, more bool, err error) {
	switch p.state {
	case inHead:
		return p.stepHead(b)
	case inBody, inChunk:
		return p.stepBody(b)
	case untilClose:
		p.take(b)

		return len(b), false, nil
	case inChunkSize, afterChunk, inTrailer:
		return p.stepLine(b)
	}

	panic("BUG: a parser without a state")
}

func (p *parser) stepHead(b []byte) (n int, more bool, err error) {
	for {
		head, k, err := p.untilBlankLine(b[n:])
		n += k

		if err != nil || head == nil {
			return n, false, err
		}

		if err := p.readHead(head); err != nil {
			return n, false, err
		}

		p.carry = p.carry[:0]

		if p.status >= 200 || p.status == 101 {
			break
		}
	}

	switch {
	case p.headOnly || p.status == 101 || p.status == 204 || p.status == 304:
	case p.chunked:
		p.state = inChunkSize
	case p.length > 0:
		p.state, p.left = inBody, p.length
	case p.length < 0:
		p.state, p.close = untilClose, true
	}

	return n, true, nil
}

// untilBlankLine returns the head once it is there as a whole.
func (p *parser) untilBlankLine(b []byte) (head []byte, n int, err error) {
	if len(p.carry) == 0 {
		if i := bytes.Index(b, []byte("\r\n\r\n")); i >= 0 {
			return b[:i+4], i + 4, nil
		}
	}

	from := max(0, len(p.carry)-3)
	had := len(p.carry)
	p.carry = append(p.carry, b...)

	i := bytes.Index(p.carry[from:], []byte("\r\n\r\n"))
	if i < 0 {
		if len(p.carry) > maxHead {
			return nil, len(b), ErrTooLong
		}

		return nil, len(b), nil
	}

	end := from + i + 4

	return p.carry[:end], end - had, nil
}

func (p *parser) readHead(head []byte) error {
	if len(head) < 13 || string(head[:7]) != "HTTP/1." || head[8] != ' ' {
		return ErrMalformed
	}

	p.status = 0

	for _, d := range head[9:12] {
		if d < '0' || d > '9' {
			return ErrMalformed
		}

		p.status = p.status*10 + int(d-'0')
	}

	p.close = head[7] == '0'
	p.length, p.chunked, p.sse = -1, false, false

	i := bytes.IndexByte(head, '\n') + 1
	for i < len(head)-2 {
		k := bytes.IndexByte(head[i:], '\n')
		if err := p.field(head[i : i+k]); err != nil {
			return err
		}

		i += k + 1
	}

	return nil
}

// field looks at the few fields that matter. Their lengths differ, so that most lines cost one comparison.
func (p *parser) field(line []byte) error {
	colon := bytes.IndexByte(line, ':')

	switch {
	case colon < 1:
		return ErrMalformed
	case colon == 14 && bytes.EqualFold(line[:14], []byte("content-length")):
		return p.setLength(bytes.TrimSpace(line[15:]))
	case colon == 17 && bytes.EqualFold(line[:17], []byte("transfer-encoding")):
		p.chunked = true
	case colon == 10 && bytes.EqualFold(line[:10], []byte("connection")):
		value := bytes.TrimSpace(line[11:])
		p.close = !bytes.EqualFold(value, []byte("keep-alive")) && (p.close || bytes.EqualFold(value, []byte("close")))
	case colon == 12 && bytes.EqualFold(line[:12], []byte("content-type")):
		p.sse = p.events != nil && bytes.HasPrefix(bytes.TrimSpace(line[13:]), []byte("text/event-stream"))
	}

	return nil
}

func (p *parser) setLength(value []byte) error {
	const most = int64(1) << 50

	if len(value) == 0 {
		return ErrMalformed
	}

	n := int64(0)

	for _, d := range value {
		if d < '0' || d > '9' || n > most {
			return ErrMalformed
		}

		n = n*10 + int64(d-'0')
	}

	p.length = n

	return nil
}

func (p *parser) stepBody(b []byte) (n int, more bool, err error) {
	piece := b[:min(p.left, int64(len(b)))]
	p.take(piece)
	p.left -= int64(len(piece))

	if p.left > 0 {
		return len(piece), false, nil
	}

	if p.state == inChunk {
		p.state = afterChunk
	} else {
		p.state = inHead
	}

	return len(piece), true, nil
}

// take counts a piece of the body. Only the beginning is kept, and only of answers that are looked at.
func (p *parser) take(piece []byte) {
	p.bytes += int64(len(piece))

	if room := keepBody - len(p.body); room > 0 && p.status >= 300 {
		p.body = append(p.body, piece[:min(room, len(piece))]...)
	}

	if p.sse && len(piece) > 0 {
		p.events.feed(piece)
	}

	if p.onBody != nil {
		p.onBody(piece)
	}
}

// stepLine takes one line of the chunked coding.
func (p *parser) stepLine(b []byte) (n int, more bool, err error) {
	const longest = 4 << 10

	i := bytes.IndexByte(b, '\n')
	if i < 0 {
		if p.carry = append(p.carry, b...); len(p.carry) > longest {
			return len(b), false, ErrMalformed
		}

		return len(b), false, nil
	}

	line := b[:i+1]

	if len(p.carry) > 0 {
		p.carry = append(p.carry, line...)
		line = p.carry
	}

	err = p.line(bytes.TrimRight(line, "\r\n"))
	p.carry = p.carry[:0]

	return i + 1, true, err
}

func (p *parser) line(line []byte) error {
	switch p.state {
	case afterChunk:
		if len(line) > 0 {
			return ErrMalformed
		}

		p.state = inChunkSize
	case inChunkSize:
		size, err := chunkSize(line)
		if err != nil {
			return err
		}

		if p.state, p.left = inChunk, size; size == 0 {
			p.state = inTrailer
		}
	case inTrailer:
		if len(line) == 0 {
			p.state = inHead
		}
	case inHead, inBody, untilClose, inChunk:
		panic("BUG: no line is expected here")
	}

	return nil
}

func chunkSize(line []byte) (int64, error) {
	const most = int64(1) << 50

	line, _, _ = bytes.Cut(line, []byte{';'})
	line = bytes.TrimSpace(line)

	if len(line) == 0 {
		return 0, ErrMalformed
	}

	n := int64(0)

	for _, c := range line {
		var d byte

		switch {
		case c >= '0' && c <= '9':
			d = c - '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			d = c | 0x20 - 'a' + 10
		default:
			return 0, ErrMalformed
		}

		if n = n<<4 | int64(d); n > most {
			return 0, ErrMalformed
		}
	}

	return n, nil
}

// eof tells whether the end of the connection completes the answer.
func (p *parser) eof() bool { return p.state == untilClose }
