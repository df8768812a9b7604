package link

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-gateway/sluice/internal/sockio"
)

// serverConn is one connection. mu guards calls and gone.
type serverConn struct {
	server *Server
	nc     net.Conn
	w      *writer
	out    Outbox

	mu    sync.Mutex
	calls map[uint64]*Request
	gone  bool
	drain atomic.Bool
}

func (c *serverConn) run() {
	defer c.end()

	if err := c.handshake(); err != nil {
		return
	}

	c.server.mu.Lock()
	draining := c.server.draining
	c.server.mu.Unlock()

	if draining {
		c.announceDrain()
	}

	err := readFrames(&deadlineReader{nc: c.nc, in: sockio.NewReader(c.nc), limit: c.server.cfg.DeadAfter}, c.frame, c.server.cfg.Pause)
	c.w.fail(err)
}

// deadlineReader gives up when nothing comes for so long, or up to an eighth longer: setting a deadline
// for every read would cost as much as a small call.
type deadlineReader struct {
	nc    net.Conn
	in    *sockio.Reader // from nc
	limit time.Duration
	set   time.Time // when the deadline was set last
}

func (r *deadlineReader) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(r.set) > r.limit/8 {
		if err := r.nc.SetReadDeadline(now.Add(r.limit + r.limit/8)); err != nil {
			return 0, err //nolint:wrapcheck // the reader's caller only needs to know that it is over
		}

		r.set = now
	}

	return r.in.Read(p) //nolint:wrapcheck // io.EOF keeps its meaning
}

func (c *serverConn) handshake() error {
	if err := c.nc.SetDeadline(time.Now().Add(c.server.cfg.HandshakeTimeout)); err != nil {
		return fmt.Errorf("link: handshake: %w", err)
	}

	low, high, err := readPreface(c.nc)
	if err != nil {
		return err
	}

	if low > Version || high < Version {
		writePreface(c.nc, 0, 0) //nolint:errcheck // the connection ends anyway

		return fmt.Errorf("link: no common version: the client speaks %d to %d", low, high)
	}

	if err := writePreface(c.nc, Version, Version); err != nil {
		return err
	}

	if err := c.nc.SetDeadline(time.Time{}); err != nil {
		return fmt.Errorf("link: handshake: %w", err)
	}

	return nil
}

// end cancels whatever is still running for a client that is gone.
func (c *serverConn) end() {
	c.w.fail(errClosed)
	c.nc.Close() //nolint:errcheck // nothing to do about it

	c.mu.Lock()
	c.gone = true

	for _, r := range c.calls {
		r.cancel()
	}
	c.mu.Unlock()

	c.server.mu.Lock()
	delete(c.server.conns, c)
	c.server.mu.Unlock()
}

func (c *serverConn) announceDrain() {
	if c.drain.Swap(true) {
		return
	}

	const n = lengthSize + typeSize
	if c.w.lock(n) != nil {
		return
	}

	c.w.buf = appendLength(c.w.buf, 0, frameDrain)
	c.w.commit(n)
}

func (c *serverConn) frame(t frameType, payload []byte) error {
	switch t {
	case frameCall:
		return c.call(payload)
	case frameCancel:
		id, err := parseID(payload)
		if err != nil {
			return err
		}

		c.mu.Lock()
		if r := c.calls[id]; r != nil {
			r.cancel()
		}
		c.mu.Unlock()

		return nil
	case framePing:
		id, err := parseID(payload)
		if err != nil {
			return err
		}

		return c.w.sendID(framePong, id)
	case framePong, frameDrain:
		return nil
	case frameAnswer, frameMore:
		return fmt.Errorf("%w: an answer from a client", ErrFrame)
	default:
		return nil // a later version's frame that does not matter to us
	}
}

func (c *serverConn) call(payload []byte) error {
	var h callHead
	if err := parseCall(payload, &h); err != nil {
		return err
	}

	r, ok := requests.Get().(*Request)
	if !ok {
		r = new(Request)
	}

	r.fill(c, &h)

	c.mu.Lock()

	_, twice := c.calls[h.id]
	full := len(c.calls) >= c.server.cfg.MaxInFlight

	if !twice && !full {
		c.calls[h.id] = r
	}
	c.mu.Unlock()

	if twice {
		return fmt.Errorf("%w: call id used twice", ErrFrame)
	}

	c.server.active.Add(1)

	if full {
		r.Respond(503, nil, []byte(`{"error_code":"Sluice.4001","error_msg":"The worker has too many calls in flight."}`))

		return nil
	}

	if !c.server.quick(r) {
		c.server.dispatch(r)
	}

	return nil
}
