package upstream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"time"
)

// reader gives the body of the answer piece by piece, as it arrives.
type reader struct {
	length int64 // what is left; or untilClose, chunkedLen
	chunk  int64 // what is left of the present chunk
	state  chunkState
}

type chunkState uint8

const (
	chunkSize chunkState = iota // a size line comes
	chunkData
	chunkEnd  // the CRLF behind the data comes
	chunkTail // trailers, then the end
	chunkDone
)

// buffered reads a body of known length behind the head and returns it.
func (x *conn) buffered(ctx context.Context, length int64, deadline time.Time) ([]byte, error) {
	end := x.r + int(length)
	x.grow(end)

	for x.w < end {
		if err := x.fill(ctx, deadline); err != nil {
			return nil, noEOF(err)
		}
	}

	body := x.rbuf[x.r:end]
	x.r = end

	return body, nil
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}

	return err
}

// next returns the next piece, valid until the next call; io.EOF at the proper end.
func (b *reader) next(ctx context.Context, x *conn, deadline time.Time) ([]byte, error) {
	if b.length == chunkedLen {
		return b.nextChunked(ctx, x, deadline)
	}

	if b.length == 0 {
		return nil, io.EOF
	}

	if err := x.more(ctx, deadline); err != nil {
		if b.length == untilClose && errors.Is(err, io.EOF) {
			return nil, io.EOF
		}

		return nil, noEOF(err)
	}

	if b.length == untilClose {
		return x.take(int64(x.w - x.r)), nil
	}

	piece := x.take(b.length)
	b.length -= int64(len(piece))

	return piece, nil
}

// more makes sure that something is unread.
func (x *conn) more(ctx context.Context, deadline time.Time) error {
	if x.r < x.w {
		return nil
	}

	x.r, x.w = 0, 0

	return x.fill(ctx, deadline)
}

// take returns up to n unread bytes.
func (x *conn) take(n int64) []byte {
	n = min(n, int64(x.w-x.r))
	piece := x.rbuf[x.r : x.r+int(n)]
	x.r += int(n)

	return piece
}

// nextChunked takes chunk framing off. Trailers are dropped.
func (b *reader) nextChunked(ctx context.Context, x *conn, deadline time.Time) ([]byte, error) {
	for {
		switch b.state {
		case chunkData:
			if err := x.more(ctx, deadline); err != nil {
				return nil, noEOF(err)
			}

			piece := x.take(b.chunk)
			if b.chunk -= int64(len(piece)); b.chunk == 0 {
				b.state = chunkEnd
			}

			return piece, nil
		case chunkDone:
			return nil, io.EOF
		case chunkSize, chunkEnd, chunkTail:
		}

		line, err := x.line(ctx, deadline)
		if err != nil {
			return nil, noEOF(err)
		}

		if err := b.framing(line); err != nil {
			return nil, err
		}
	}
}

// framing moves on by one line.
func (b *reader) framing(line []byte) error {
	switch b.state {
	case chunkSize:
		n, err := parseChunkSize(line)
		if err != nil {
			return err
		}

		b.chunk, b.state = n, chunkData
		if n == 0 {
			b.state = chunkTail
		}
	case chunkEnd:
		if len(line) > 0 {
			return errGarbage
		}

		b.state = chunkSize
	case chunkTail:
		if len(line) == 0 {
			b.state = chunkDone
		}
	case chunkData, chunkDone:
	}

	return nil
}

const maxLine = 4 << 10

// line returns the next line without its CRLF.
func (x *conn) line(ctx context.Context, deadline time.Time) ([]byte, error) {
	for scanned := x.r; ; {
		for i := scanned; i < x.w; i++ {
			if x.rbuf[i] != '\n' {
				continue
			}

			if i == x.r || x.rbuf[i-1] != '\r' {
				return nil, errGarbage
			}

			line := x.rbuf[x.r : i-1]
			x.r = i + 1

			return line, nil
		}

		if x.w-x.r > maxLine {
			return nil, errGarbage
		}

		if x.r > 0 { // make room; what was handed out before is not valid any more
			x.w = copy(x.rbuf, x.rbuf[x.r:x.w])
			x.r = 0
		}

		scanned = x.w
		if err := x.fill(ctx, deadline); err != nil {
			return nil, err
		}
	}
}

// parseChunkSize reads hexadecimal digits; an extension may follow.
func parseChunkSize(line []byte) (int64, error) {
	var n int64

	i := 0
	for ; i < len(line); i++ {
		d := hexDigit(line[i])
		if d < 0 {
			break
		}

		if i == 15 {
			return 0, errGarbage
		}

		n = n<<4 | int64(d)
	}

	if i == 0 || i < len(line) && line[i] != ';' && line[i] != ' ' && line[i] != '\t' {
		return 0, errGarbage
	}

	for _, c := range line[i:] {
		if c < ' ' && c != '\t' || c == 0x7f {
			return 0, errGarbage
		}
	}

	return n, nil
}

func hexDigit(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	default:
		return -1
	}
}

// unchunk turns a chunked body that has already arrived as a whole into one of known length.
func (x *conn) unchunk() {
	end := wholeChunked(x.rbuf[x.r:x.w])
	if end < 0 {
		return
	}

	in := x.rbuf[x.r : x.r+end]
	out := in[:0]

	for {
		line, rest, _ := bytes.Cut(in, []byte("\r\n"))

		n, err := parseChunkSize(line)
		if err != nil || n == 0 {
			break
		}

		out = append(out, rest[:n]...)
		in = rest[n+2:]
	}

	x.resp.length = int64(len(out))
	x.w = x.r + len(out) + copy(x.rbuf[x.r+len(out):], x.rbuf[x.r+end:x.w])
}

// wholeChunked returns how long a complete chunked body at the start of b is, -1 if b does
// not hold all of it or is not well formed.
func wholeChunked(b []byte) int {
	for pos := 0; ; {
		i := bytes.Index(b[pos:], []byte("\r\n"))
		if i < 0 {
			return -1
		}

		n, err := parseChunkSize(b[pos : pos+i])
		if err != nil {
			return -1
		}

		pos += i + 2

		if n == 0 {
			// Without trailers the end follows; with trailers the slow way takes it.
			if len(b)-pos >= 2 && string(b[pos:pos+2]) == "\r\n" {
				return pos + 2
			}

			return -1
		}

		if n > int64(len(b)-pos)-2 || string(b[pos+int(n):pos+int(n)+2]) != "\r\n" {
			return -1
		}

		pos += int(n) + 2
	}
}
