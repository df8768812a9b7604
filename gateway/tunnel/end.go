package tunnel

import (
	"crypto/rand"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// farewell is a close frame to be sent.
type farewell struct {
	code   wsframe.Code
	reason string
}

// end is one of the two connections of a tunnel.
type end struct {
	tunnel *Tunnel
	side   Side
	conn   net.Conn
	raw    syscall.RawConn // of the socket below TLS; nil if it cannot be polled

	mu sync.Mutex // guards the rest, and is held while writing
	// mid: a frame was sent in part; open: a message was. Between them only some frames may follow.
	mid, open bool
	// shut: nothing follows any more, because a close frame was sent or the connection failed.
	shut bool
	told bool // a close frame was sent
	// last waits to be sent once the message under way is complete.
	last *farewell
}

// cut tells where a piece of the stream of frames ends: in the middle of a frame, or within a message.
type cut struct{ mid, open bool }

// write sends judged frames, which end at the given place. What comes behind a close frame is dropped.
func (e *end) write(b []byte, at cut) error {
	e.mu.Lock()
	defer e.mu.Unlock()

	if e.shut {
		return nil
	}

	if err := e.send(b); err != nil {
		return err
	}

	e.mid, e.open = at.mid, at.open

	if e.last != nil && at == (cut{}) {
		return e.close(*e.last)
	}

	return nil
}

// send writes under a deadline. The caller holds mu.
func (e *end) send(b []byte) error {
	err := e.conn.SetWriteDeadline(time.Now().Add(e.tunnel.set.cfg.Write))
	if err == nil && e.tunnel.over.Load() {
		err = net.ErrClosed
	}

	if err == nil {
		_, err = e.conn.Write(b)
	}

	if err != nil {
		// Part of a frame may be out: nothing that follows would be understood.
		e.shut, e.mid = true, true
	}

	return err //nolint:wrapcheck // judged by the pump
}

// close sends a close frame now. The caller holds mu and has looked that it may.
func (e *end) close(f farewell) error {
	var (
		room [wsframe.MaxHeader + wsframe.MaxControl]byte
		key  [4]byte
	)

	e.last = nil

	err := e.send(wsframe.AppendClose(room[:0], f.code, f.reason, e.key(&key)))
	e.shut, e.told = true, err == nil

	return err
}

// key makes the mask of a frame of our own; frames to the client have none.
func (e *end) key(room *[4]byte) *[4]byte {
	if e.side == Client {
		return nil
	}

	_, _ = rand.Read(room[:]) // never fails

	return room
}

// bye sends a close frame as soon as it may stand: between two frames, and if gently is set
// between two messages. It reports whether the frame is out, or never will be.
func (e *end) bye(f farewell, gently bool) bool {
	e.mu.Lock()
	defer e.mu.Unlock()

	switch {
	case e.shut:
		return true
	case e.mid, gently && e.open:
		e.last = &f

		return false
	}

	_ = e.close(f) // an end that is gone needs no farewell

	return true
}

// ping asks a silent end whether it is there, unless it is being written to just now.
func (e *end) ping(payload []byte) {
	if !e.mu.TryLock() {
		return
	}
	defer e.mu.Unlock()

	if e.shut || e.mid {
		return
	}

	var (
		room [wsframe.MaxHeader + wsframe.MaxControl]byte
		key  [4]byte
	)

	_ = e.send(wsframe.AppendFrame(room[:0], wsframe.OpPing, payload, e.key(&key))) // the pump learns of it by reading
}

// bowedTo tells whether a close frame was sent.
func (e *end) bowedTo() bool {
	e.mu.Lock()
	defer e.mu.Unlock()

	return e.told
}

// wake makes a pump and a writer that wait for this connection look around.
func (e *end) wake() {
	_ = e.conn.SetDeadline(time.Unix(1, 0)) // a closed connection wakes them as well
}

func isTimeout(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
