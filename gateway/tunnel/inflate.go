package tunnel

import (
	"errors"
	"io"
	"iter"
	"sync"

	"github.com/klauspost/compress/flate"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

const (
	window    = 32 << 10 // how far back compressed data may refer
	plainSize = 4 << 10  // what is unpacked and judged at a time
)

var (
	errUnpack = &wsframe.Violation{Code: wsframe.CodeNotUTF8, Reason: "a compressed message cannot be unpacked"}
	errBomb   = &wsframe.Violation{Code: wsframe.CodeTooBig, Reason: "the message is too big when unpacked"}
)

// tail completes a message: RFC 7692 leaves out the end of the last block; the empty final block
// behind it makes the unpacker stop.
const tail = "\x00\x00\xff\xff\x01\x00\x00\xff\xff"

//nolint:gochecknoglobals // a pool has to be shared to be of use
var unpackers = sync.Pool{New: func() any {
	return &unpacker{flate: flate.NewReader(nil), plain: make([]byte, plainSize)}
}}

// unpacker is the memory of a message that is being unpacked.
type unpacker struct {
	flate io.ReadCloser
	plain []byte
}

// inflater unpacks the messages of one direction to judge them. The unpacker pulls its input, while
// frames are pushed as they come: a coroutine stands between, which rests whenever it has no input.
type inflater struct {
	check *wsframe.Checker
	max   int64
	reset bool // every message starts with an empty window
	past  []byte

	in    []byte // what the coroutine may read
	atEnd bool
	size  int64
	next  func() (struct{}, bool)
	stop  func()
	yield func(struct{}) bool
	err   *wsframe.Violation
	ended bool
}

var errStopped = errors.New("tunnel: unpacking was stopped")

// Write takes bytes of a message, in clear.
func (f *inflater) Write(b []byte) *wsframe.Violation {
	if f.next == nil {
		f.size, f.err, f.ended, f.atEnd = 0, nil, false, false
		f.next, f.stop = iter.Pull(f.unpack)
	}

	f.in = b
	f.next()
	f.in = nil

	return f.err
}

// End completes the message.
func (f *inflater) End() *wsframe.Violation {
	f.atEnd = true
	err := f.Write([]byte(tail))

	if err == nil && !f.ended {
		err = errUnpack
	}

	f.Close()

	return err
}

// Close ends the coroutine.
func (f *inflater) Close() {
	if f.stop != nil {
		f.stop()
		f.next, f.stop = nil, nil
	}
}

// ReadByte makes Read the only way: the unpacker reads single bytes by itself otherwise.
func (f *inflater) ReadByte() (byte, error) {
	for len(f.in) == 0 {
		if !f.yield(struct{}{}) {
			return 0, errStopped
		}
	}

	b := f.in[0]
	f.in = f.in[1:]

	return b, nil
}

// Read implements io.Reader.
func (f *inflater) Read(p []byte) (int, error) {
	for len(f.in) == 0 {
		if !f.yield(struct{}{}) {
			return 0, errStopped
		}
	}

	n := copy(p, f.in)
	f.in = f.in[n:]

	return n, nil
}

// unpack is the coroutine of one message.
func (f *inflater) unpack(yield func(struct{}) bool) {
	u, ok := unpackers.Get().(*unpacker)
	if !ok {
		panic("BUG: the pool of unpackers holds something else")
	}
	defer unpackers.Put(u)

	f.yield = yield

	r, ok := u.flate.(flate.Resetter)
	if !ok {
		panic("BUG: the unpacker cannot be reset")
	}

	f.trim()

	_ = r.Reset(f, f.past) // never fails

	for f.err == nil {
		n, err := u.flate.Read(u.plain)
		f.size += int64(n)

		switch {
		case f.max > 0 && f.size > f.max:
			f.err = errBomb
		case n > 0:
			f.err = f.check.Plain(u.plain[:n])
			f.remember(u.plain[:n])
		}

		if errors.Is(err, errStopped) {
			return
		}

		// A sender may end its data with a final block of its own; what follows is the tail.
		if errors.Is(err, io.EOF) {
			f.ended = true

			break
		}

		if err != nil && f.err == nil {
			f.err = errUnpack
		}
	}

	// The rest of the message goes nowhere.
	for f.in = nil; yield(struct{}{}); f.in = nil {
		continue
	}
}

// remember keeps what the next message may refer to.
func (f *inflater) remember(plain []byte) {
	if f.reset {
		return
	}

	// Moving the window once per 32 KiB is cheaper than at every piece.
	if f.past = append(f.past, plain...); len(f.past) >= 2*window {
		f.trim()
	}
}

func (f *inflater) trim() {
	if drop := len(f.past) - window; drop > 0 {
		f.past = f.past[:copy(f.past, f.past[drop:])]
	}
}
