package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/internal/sockio"
)

// maxBuffered bounds what waits to be written on one connection; whoever would go over it waits.
const maxBuffered = 4 << 20

// keepBuffer is the largest write buffer that is kept when it is empty.
const keepBuffer = 256 << 10

var errClosed = errors.New("link: connection closed")

// writer coalesces frames into few writes. mu guards every field below it.
type writer struct {
	conn    net.Conn
	timeout time.Duration // for one write
	now     *sockio.Quick // writes without waiting; used by whoever has set flushing

	mu       sync.Mutex
	room     sync.Cond
	buf      []byte // waiting
	spare    []byte // the other buffer while flushing
	flushing bool
	yielding bool   // whoever has set flushing lets others join first
	joined   int    // frames in buf
	appended uint64 // bytes ever appended
	written  uint64 // bytes ever written, partial writes included
	err      error
}

func newWriter(conn net.Conn, timeout time.Duration) *writer {
	w := &writer{conn: conn, timeout: timeout, now: sockio.New(conn)}
	w.room.L = &w.mu

	return w
}

// lock waits for room for n bytes; after a nil error the caller appends to w.buf and calls commit.
func (w *writer) lock(n int) error {
	w.mu.Lock()

	for w.err == nil && len(w.buf)+n > maxBuffered {
		w.room.Wait()
	}

	if w.err != nil {
		err := w.err
		w.mu.Unlock()

		return err
	}

	return nil
}

// commit is called with the lock held, after n bytes were appended to w.buf. It releases
// the lock and writes if nobody else does. It returns the position at which the frame begins.
func (w *writer) commit(n int) uint64 {
	at := w.appended
	w.appended += uint64(n)
	w.joined++

	switch {
	case !w.flushing:
		w.flushing, w.yielding = true, true
		w.mu.Unlock()

		// Others that are ready to send get the chance to join this write; costs nothing when idle.
		runtime.Gosched()
		w.mu.Lock()
	case w.joined < maxJoined:
		w.mu.Unlock()

		return at
	}

	// Whoever comes first writes: the one that waited for others, or the one that made them enough.
	mine := w.yielding
	w.yielding = false
	w.mu.Unlock()

	if mine {
		w.flush(maxFlushRounds)
	}

	return at
}

// maxJoined is how many frames wait for others to join them. With no bound all calls of a busy moment go
// in one write, and the ends of the link work by turns instead of at the same time.
const maxJoined = 8

// commitLater is commit for a caller that will call tryFlush when it has no more frames.
func (w *writer) commitLater(n int) {
	w.appended += uint64(n)
	w.mu.Unlock()
}

// maxFlushRounds is how often one caller writes for the others before a goroutine takes over,
// so that nobody's own call waits behind an endless stream of frames.
const maxFlushRounds = 4

// flush writes until nothing waits; rounds bounds it unless negative.
func (w *writer) flush(rounds int) {
	w.mu.Lock()

	for ; len(w.buf) > 0 && w.err == nil; rounds-- {
		if rounds == 0 {
			w.mu.Unlock()

			go w.flush(-1)

			return
		}

		out := w.swap()
		w.mu.Unlock()

		n, err := w.now.Write(out)
		if err == nil && n < len(out) {
			var more int

			more, err = w.slowly(out[n:])
			n += more
		}

		w.mu.Lock()
		w.wrote(out, n, err)
	}

	w.flushing = false
	w.mu.Unlock()
}

// tryFlush writes what waits as far as that goes without waiting; a goroutine does the rest.
func (w *writer) tryFlush() {
	w.mu.Lock()

	for !w.flushing && len(w.buf) > 0 && w.err == nil {
		w.flushing = true
		out := w.swap()
		w.mu.Unlock()

		n, err := w.now.Write(out)
		if err == nil && n < len(out) {
			go w.finish(out, n)

			return
		}

		w.mu.Lock()
		w.wrote(out, n, err)
		w.flushing = false
	}

	w.mu.Unlock()
}

// finish writes the rest of out, of which n bytes are written, and what was appended since.
func (w *writer) finish(out []byte, n int) {
	more, err := w.slowly(out[n:])

	w.mu.Lock()
	w.wrote(out, n+more, err)
	w.mu.Unlock()

	w.flush(-1)
}

// swap takes what waits. Caller holds mu.
func (w *writer) swap() []byte {
	out := w.buf
	w.buf, w.spare, w.joined = w.spare[:0], nil, 0

	return out
}

// slowly writes and waits for room, up to the timeout.
func (w *writer) slowly(b []byte) (int, error) {
	if err := w.conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err //nolint:wrapcheck // wrapped by wrote
	}

	n, err := w.conn.Write(b)
	if err == nil {
		err = w.conn.SetWriteDeadline(time.Time{}) // it would end a write without waiting as well
	}

	return n, err //nolint:wrapcheck // wrapped by wrote
}

// wrote books a write. Caller holds mu.
func (w *writer) wrote(out []byte, n int, err error) {
	w.written += uint64(n)

	if cap(out) > keepBuffer {
		out = nil
	}

	w.spare = out[:0]

	if err != nil && w.err == nil {
		w.err = fmt.Errorf("link: write: %w", err)
		w.conn.Close() //nolint:errcheck // the write error is the one that counts
	}

	w.room.Broadcast()
}

// fail stops the writer; what is waiting is not written.
func (w *writer) fail(err error) {
	w.mu.Lock()
	if w.err == nil {
		w.err = err
	}

	w.room.Broadcast()
	w.mu.Unlock()
}

// reached reports whether a frame that begins at the position may have left this process.
// While a write is under way nobody knows how far it got, so the answer is yes.
func (w *writer) reached(at uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.written > at || w.flushing
}

// waiting reports whether there is something to be written still.
func (w *writer) waiting() bool {
	w.mu.Lock()
	defer w.mu.Unlock()

	return w.err == nil && (len(w.buf) > 0 || w.flushing)
}

// sendID sends a frame whose payload is one number.
func (w *writer) sendID(t frameType, id uint64) error {
	const n = lengthSize + typeSize + 8
	if err := w.lock(n); err != nil {
		return err
	}

	w.buf = appendID(w.buf, t, id)
	w.commit(n)

	return nil
}

// readFrames calls f for every frame until reading or f fails. The payload is valid during the call.
// pause, when set, is called when all that had arrived was handled.
func readFrames(r io.Reader, f func(t frameType, payload []byte) error, pause func()) error {
	buf := make([]byte, 32<<10)
	from, to := 0, 0

	for {
		for to-from >= lengthSize {
			n := int(binary.LittleEndian.Uint32(buf[from:]))
			if n < typeSize || n > maxPayload {
				return fmt.Errorf("%w: length %d", ErrFrame, n)
			}

			if to-from < lengthSize+n {
				if need := lengthSize + n; need > len(buf) {
					buf = append(make([]byte, 0, need), buf[from:to]...)[:need]
					from, to = 0, to-from
				}

				break
			}

			frame := buf[from+lengthSize : from+lengthSize+n]
			from += lengthSize + n

			if err := f(frameType(frame[0]), frame[typeSize:]); err != nil {
				return err
			}
		}

		if from == to {
			from, to = 0, 0
		} else if to == len(buf) {
			to = copy(buf, buf[from:to])
			from = 0
		}

		if pause != nil {
			pause()
		}

		n, err := r.Read(buf[to:])
		to += n

		if err != nil && n == 0 {
			return err //nolint:wrapcheck // io.EOF and net.ErrClosed keep their meaning
		}
	}
}

// preface: "SLNK", lowest and highest version spoken, two bytes that are zero. The answer
// carries the chosen version twice, or zero if there is none in common.
const prefaceSize = 8

func writePreface(conn net.Conn, low, high byte) error {
	_, err := conn.Write([]byte{'S', 'L', 'N', 'K', low, high, 0, 0})
	if err != nil {
		return fmt.Errorf("link: preface: %w", err)
	}

	return nil
}

func readPreface(conn net.Conn) (low, high byte, err error) {
	var p [prefaceSize]byte
	if _, err := io.ReadFull(conn, p[:]); err != nil {
		return 0, 0, fmt.Errorf("link: preface: %w", err)
	}

	if string(p[:4]) != "SLNK" || p[4] > p[5] {
		return 0, 0, fmt.Errorf("%w: the peer does not speak link", ErrFrame)
	}

	return p[4], p[5], nil
}
