package edge

import (
	"errors"
	"io"
	"os"
	"time"

	"github.com/sluice-gateway/sluice/gateway/edge/wire"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// body reads the body of one request from its connection. It implements gateway.Body.
type body struct {
	x      *exchange
	length int64 // as declared; wire.Chunked
	left   int64 // of a declared length
	chunks wire.ChunkReader
	limit  int64
	got    int64
	begun  time.Time
	until  time.Time // of who wants the body; zero: none

	err   *fault.Error // sticky
	whole []byte       // what Bytes returned
	taken bool         // Bytes was called
	pool  *[]byte      // behind whole
	spill *[]byte      // input of a chunked body, beside the buffer that holds the head
	r, w  int          // spill[r:w] has arrived
}

func (b *body) prepare(x *exchange) {
	b.x = x
	b.length = x.head.Length
	b.left = max(0, b.length)
	b.limit = int64(x.conn.door.edge.cfg.Limits.BodyMost)
}

func (b *body) reset() {
	e := b.x
	if e == nil {
		return
	}

	edge := e.conn.door.edge

	if b.spill != nil {
		// Bytes of a pipelined request go back in front of the connection's buffer.
		if rest := (*b.spill)[b.r:b.w]; len(rest) > 0 {
			e.r, e.w = 0, copy(e.buf, rest)
		}

		edge.unbuffer(b.spill)
	}

	if b.pool != nil {
		edge.bodies.put(b.pool)
	}

	*b = body{}
}

// Length implements gateway.Body.
func (b *body) Length() int64 { return b.length }

func (b *body) complete() bool {
	if b.length == wire.Chunked {
		return b.chunks.Done()
	}

	return b.left == 0
}

// Bytes implements gateway.Body. A further call returns the same.
func (b *body) Bytes(limit int64) ([]byte, error) {
	if !b.taken {
		b.taken = true
		b.readAll(limit)
	}

	if b.err != nil {
		return nil, b.err
	}

	return b.whole, nil
}

func (b *body) readAll(limit int64) {
	if !b.bound(limit) || b.length == 0 {
		return
	}

	x := b.x
	if b.length > 0 && int64(x.w-x.r) >= b.length {
		// All of it arrived together with the head: no copy.
		n := int(b.length)
		b.whole = x.buf[x.r : x.r+n : x.r+n]
		x.r += n
		b.left = 0
		b.got = b.length

		return
	}

	pool := &x.conn.door.edge.bodies
	b.pool = pool.get(firstSize(b.length))
	data := *b.pool

	for !b.complete() {
		if len(data) == cap(data) {
			// Memory follows what arrives, never what was announced.
			larger := pool.get(2 * cap(data))
			data = append((*larger)[:0], data...)

			pool.put(b.pool)
			b.pool = larger
		}

		n, err := b.Read(data[len(data):cap(data)])
		data = data[:len(data)+n]

		if err != nil {
			break
		}
	}

	b.whole = data
}

// firstSize is the buffer to begin with: the whole body if it is small.
func firstSize(length int64) int {
	const most = 64 << 10

	if length < 0 {
		return bufferSize
	}

	return int(min(length, most))
}

// Stream implements gateway.Body.
func (b *body) Stream(limit int64) io.Reader {
	b.bound(limit)

	return b
}

// Until implements gateway.Patient.
func (b *body) Until(t time.Time) { b.until = t }

// bound lowers the limit and refuses at once what is announced to be over it.
func (b *body) bound(limit int64) bool {
	if limit <= 0 {
		limit = int64(b.x.conn.door.edge.cfg.Limits.Body)
	}

	b.limit = min(b.limit, limit)

	if b.length > b.limit {
		b.err = tooLarge(b.limit)
	}

	return b.err == nil
}

func tooLarge(limit int64) *fault.Error {
	return fault.New(fault.BodyTooLarge, "Invalid request body because the size exceeds the maximum size allowed, %d bytes.", limit)
}

// Read implements io.Reader for Stream.
func (b *body) Read(p []byte) (int, error) {
	if b.err != nil {
		return 0, b.err
	}

	if b.complete() {
		return 0, io.EOF
	}

	if len(p) == 0 {
		return 0, nil
	}

	if b.begun.IsZero() {
		if err := b.begin(); err != nil {
			return 0, err
		}
	}

	if b.length == wire.Chunked {
		return b.readChunked(p)
	}

	p = p[:min(int64(len(p)), b.left)]

	n := b.buffered(p)
	if n == 0 {
		var err error
		if n, err = b.receive(p); n == 0 && err != nil {
			return 0, err
		}
	}

	b.left -= int64(n)
	b.got += int64(n)

	return n, nil
}

// begin starts the clock and asks the client to send, if it waits for that.
func (b *body) begin() error {
	b.begun = time.Now()
	x := b.x

	if x.head.Expect && x.r == x.w {
		if _, err := x.conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
			return b.fail(fault.Wrap(fault.ClientGone, err, ""))
		}
	}

	return nil
}

func (b *body) fail(f *fault.Error) error {
	b.err = f

	return f
}

// buffered takes what came with the head.
func (b *body) buffered(p []byte) int {
	x := b.x
	n := copy(p, x.buf[x.r:x.w])
	x.r += n

	return n
}

// receive reads from the connection. The deadline moves with the bytes that came, so that a
// slow client may be as slow as the least rate and not slower.
func (b *body) receive(p []byte) (int, error) {
	c := b.x.conn
	t := &c.door.edge.cfg.Timeouts
	limit := t.Body.D() + time.Duration(b.got)*time.Second/time.Duration(t.MinBodyRate)

	end := b.begun.Add(limit)
	if !b.until.IsZero() && b.until.Before(end) {
		end = b.until
	}

	if err := c.readUntil(end); err != nil {
		return 0, b.fail(fault.Wrap(fault.ClientGone, err, ""))
	}

	n, err := c.in.Read(p)
	if n > 0 {
		return n, nil
	}

	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, b.fail(fault.New(fault.RequestTimeout, "The request body took too long to arrive."))
	}

	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}

	return 0, b.fail(fault.Wrap(fault.ClientGone, err, ""))
}

func (b *body) readChunked(p []byte) (int, error) {
	for {
		n, err := b.chunked(p)
		if err != nil {
			return 0, err
		}

		if b.got += int64(n); b.got > b.limit {
			return 0, b.fail(tooLarge(b.limit))
		}

		if n > 0 {
			return n, nil
		}

		if b.chunks.Done() {
			return 0, io.EOF
		}
	}
}

// chunked moves some bytes forward: from what is buffered, else from the connection, straight
// into p inside of a large chunk.
func (b *body) chunked(p []byte) (int, error) {
	x := b.x

	if x.r < x.w {
		used, n, err := b.chunks.Read(p, x.buf[x.r:x.w])
		x.r += used

		return n, b.check(err)
	}

	if b.spill == nil {
		b.spill = x.conn.door.edge.buffer()
	}

	if b.r == b.w {
		if left := b.chunks.DataLeft(); left >= int64(len(*b.spill)) {
			n, err := b.receive(p[:min(int64(len(p)), left)])
			b.chunks.Took(int64(n))

			return n, err
		}

		n, err := b.receive(*b.spill)
		if err != nil {
			return 0, err
		}

		b.r, b.w = 0, n
	}

	used, n, err := b.chunks.Read(p, (*b.spill)[b.r:b.w])
	b.r += used

	return n, b.check(err)
}

func (b *body) check(f *fault.Error) error {
	if f == nil {
		return nil
	}

	return b.fail(f)
}

// maxSkip is what is read and dropped of a body nobody wanted, to keep the connection.
const maxSkip = 64 << 10

// keepsConnection tells, before the answer is written, whether the rest of the body is little enough
// to be skipped after it.
func (b *body) keepsConnection() bool {
	if b.err != nil {
		return false
	}

	if b.complete() {
		return true
	}

	// A client that waits for 100 Continue may never send the body.
	if b.x.head.Expect && b.begun.IsZero() {
		return false
	}

	return b.length != wire.Chunked && b.left <= maxSkip
}

// skip leaves the stream behind the body, and reports whether that worked.
func (b *body) skip() bool {
	if b.x == nil || b.complete() && b.err == nil {
		return true
	}

	if !b.keepsConnection() {
		return false
	}

	var scratch [512]byte

	for !b.complete() {
		if _, err := b.Read(scratch[:]); err != nil {
			return errors.Is(err, io.EOF)
		}
	}

	return true
}
