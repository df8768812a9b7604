package loadtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"
)

// maxHead bounds the head of an answer, keepBody what is kept of its body.
const (
	maxHead  = 64 << 10
	keepBody = 4 << 10
)

var (
	errHead    = errors.New("malformed answer")
	errTooLong = errors.New("head of the answer is too long")
)

// Answer is what came back for one request.
type Answer struct {
	Status int
	// Bytes is the size of the body.
	Bytes int64
	// FirstByte is when the first byte of the answer was read.
	FirstByte time.Time
	// Head and Body (at most its first 4 KiB) are valid until the next request on the connection.
	Head, Body []byte
}

// wireConn is one HTTP/1.1 connection that is used for one request at a time. It does as little
// as a load generator can: the request is written as given, the answer is framed and counted.
type wireConn struct {
	dial  func(context.Context) (net.Conn, error)
	nc    net.Conn
	r     *bufio.Reader
	head  []byte
	body  []byte
	reuse bool // the server will keep the connection open
	dials int64
}

// dialer returns a function that connects to address, with TLS if conf is given.
func dialer(network, address string, conf *tls.Config) func(context.Context) (net.Conn, error) {
	d := &net.Dialer{Timeout: 5 * time.Second}

	return func(ctx context.Context) (net.Conn, error) {
		nc, err := d.DialContext(ctx, network, address)
		if err != nil {
			return nil, fmt.Errorf("connect: %w", err)
		}

		if conf == nil {
			return nc, nil
		}

		tc := tls.Client(nc, conf)
		if err := tc.HandshakeContext(ctx); err != nil {
			nc.Close() //nolint:errcheck // the handshake's error is the one that counts

			return nil, fmt.Errorf("TLS: %w", err)
		}

		return tc, nil
	}
}

func newWireConn(dial func(context.Context) (net.Conn, error)) *wireConn {
	return &wireConn{dial: dial, r: bufio.NewReaderSize(nil, 16<<10)}
}

func (c *wireConn) close() {
	if c.nc != nil {
		c.nc.Close() //nolint:errcheck // nothing to do about it
		c.nc = nil
	}
}

// ready connects if there is no usable connection.
func (c *wireConn) ready(ctx context.Context) error {
	if c.nc != nil && c.reuse {
		return nil
	}

	c.close()

	nc, err := c.dial(ctx)
	if err != nil {
		return err
	}

	c.nc, c.reuse = nc, true
	c.dials++
	c.r.Reset(nc)

	return nil
}

// do writes raw, which is a whole request, and reads the answer. onChunk, if given, is called for each piece of the body.
func (c *wireConn) do(ctx context.Context, raw []byte, deadline time.Time, onChunk func([]byte)) (Answer, error) {
	fresh := c.nc == nil || !c.reuse

	if err := c.ready(ctx); err != nil {
		return Answer{}, err
	}

	a, err := c.once(raw, deadline, onChunk)
	if err != nil && !fresh && a.FirstByte.IsZero() && errors.Is(err, io.EOF) {
		// The server had closed the idle connection before it saw this request.
		c.close()

		if err := c.ready(ctx); err != nil {
			return Answer{}, err
		}

		a, err = c.once(raw, deadline, onChunk)
	}

	if err != nil {
		c.close()
	}

	return a, err
}

func (c *wireConn) once(raw []byte, deadline time.Time, onChunk func([]byte)) (Answer, error) {
	if err := c.nc.SetDeadline(deadline); err != nil {
		return Answer{}, fmt.Errorf("send: %w", err)
	}

	if _, err := c.nc.Write(raw); err != nil {
		return Answer{}, fmt.Errorf("send: %w", err)
	}

	if _, err := c.r.Peek(1); err != nil {
		return Answer{}, fmt.Errorf("no answer: %w", err)
	}

	a := Answer{FirstByte: time.Now()}

	length, err := c.readHead(&a)
	if err != nil {
		return a, err
	}

	c.body = c.body[:0]

	switch {
	case a.Status == 204 || a.Status == 304 || length == 0:
	case length > 0:
		err = c.take(&a, length, onChunk)
	case length == chunked:
		err = c.takeChunks(&a, onChunk)
	default:
		err = c.takeAll(&a, onChunk)
	}

	a.Body = c.body

	return a, err
}

// Lengths that are not a number of bytes.
const (
	chunked    = int64(-1)
	untilClose = int64(-2)
)

func (c *wireConn) readHead(a *Answer) (length int64, err error) {
	for {
		length, err = c.readOneHead(a)
		if err != nil || a.Status >= 200 {
			return length, err
		}
	}
}

func (c *wireConn) readOneHead(a *Answer) (int64, error) {
	c.head = c.head[:0]
	length := untilClose

	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return 0, fmt.Errorf("broken off in the head: %w", err)
		}

		if len(c.head)+len(line) > maxHead {
			return 0, errTooLong
		}

		first := len(c.head) == 0
		c.head = append(c.head, line...)
		line = bytes.TrimRight(line, "\r\n")

		switch {
		case first:
			if a.Status, err = statusOf(line); err != nil {
				return 0, err
			}
		case len(line) == 0:
			a.Head = c.head
			if length == untilClose {
				c.reuse = false
			}

			return length, nil
		default:
			if length, err = c.field(line, length); err != nil {
				return 0, err
			}
		}
	}
}

func (c *wireConn) field(line []byte, length int64) (int64, error) {
	name, value, ok := bytes.Cut(line, []byte{':'})
	if !ok {
		return 0, errHead
	}

	value = bytes.TrimSpace(value)

	switch {
	case len(name) == 14 && bytes.EqualFold(name, []byte("content-length")):
		n, err := strconv.ParseInt(string(value), 10, 64)
		if err != nil || n < 0 {
			return 0, errHead
		}

		return n, nil
	case len(name) == 17 && bytes.EqualFold(name, []byte("transfer-encoding")):
		return chunked, nil
	case len(name) == 10 && bytes.EqualFold(name, []byte("connection")):
		if bytes.EqualFold(value, []byte("close")) {
			c.reuse = false
		}
	}

	return length, nil
}

func statusOf(line []byte) (int, error) {
	if len(line) < 12 || string(line[:5]) != "HTTP/" || line[8] != ' ' {
		return 0, errHead
	}

	n := 0

	for _, d := range line[9:12] {
		if d < '0' || d > '9' {
			return 0, errHead
		}

		n = n*10 + int(d-'0')
	}

	return n, nil
}

// take reads n bytes of the body; only the first few are kept.
func (c *wireConn) take(a *Answer, n int64, onChunk func([]byte)) error {
	for n > 0 {
		if c.r.Buffered() == 0 {
			if _, err := c.r.Peek(1); err != nil {
				return fmt.Errorf("broken off in the body: %w", err)
			}
		}

		piece, err := c.r.Peek(int(min(n, int64(c.r.Buffered()))))
		if err != nil {
			return fmt.Errorf("broken off in the body: %w", err)
		}

		c.keep(a, piece, onChunk)
		n -= int64(len(piece))

		if _, err := c.r.Discard(len(piece)); err != nil {
			return fmt.Errorf("broken off in the body: %w", err)
		}
	}

	return nil
}

func (c *wireConn) keep(a *Answer, piece []byte, onChunk func([]byte)) {
	a.Bytes += int64(len(piece))

	if room := keepBody - len(c.body); room > 0 {
		c.body = append(c.body, piece[:min(room, len(piece))]...)
	}

	if onChunk != nil {
		onChunk(piece)
	}
}

func (c *wireConn) takeChunks(a *Answer, onChunk func([]byte)) error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("broken off between chunks: %w", err)
		}

		size, _, _ := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte{';'})

		n, err := strconv.ParseInt(string(bytes.TrimSpace(size)), 16, 64)
		if err != nil || n < 0 {
			return errHead
		}

		if n == 0 {
			return c.skipTrailers()
		}

		if err := c.take(a, n, onChunk); err != nil {
			return err
		}

		if _, err := c.r.Discard(2); err != nil {
			return fmt.Errorf("broken off between chunks: %w", err)
		}
	}
}

func (c *wireConn) skipTrailers() error {
	for {
		line, err := c.r.ReadSlice('\n')
		if err != nil {
			return fmt.Errorf("broken off in the trailers: %w", err)
		}

		if len(bytes.TrimRight(line, "\r\n")) == 0 {
			return nil
		}
	}
}

func (c *wireConn) takeAll(a *Answer, onChunk func([]byte)) error {
	for {
		if _, err := c.r.Peek(1); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}

			return fmt.Errorf("broken off in the body: %w", err)
		}

		if err := c.take(a, int64(c.r.Buffered()), onChunk); err != nil {
			return err
		}
	}
}
