package link

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

var requests = sync.Pool{New: func() any { return new(Request) }} //nolint:gochecknoglobals // a pool has to be shared to be of use

// keepRequest is the largest memory that a pooled request keeps.
const keepRequest = 32 << 10

// Request is one call at the worker. Its slices are valid until Respond.
type Request struct {
	Method, Path []byte
	Header       Header
	Body         []byte

	conn     *serverConn
	id       uint64
	mem      []byte
	deadline time.Time
	answered atomic.Bool
	use      atomic.Uint64 // grows with every release

	// Guarded by conn.mu.
	ctx       *callContext // nil until it is asked for
	onCancel  func()
	cancelled bool
}

func (r *Request) fill(c *serverConn, h *callHead) {
	r.mem = append(r.mem[:0], h.method...)
	r.mem = append(r.mem, h.path...)
	r.mem = append(r.mem, h.header.buf...)
	r.mem = append(r.mem, h.body...)

	m := r.mem
	r.Method, m = m[:len(h.method):len(h.method)], m[len(h.method):]
	r.Path, m = m[:len(h.path):len(h.path)], m[len(h.path):]
	r.Header = Header{buf: m[:len(h.header.buf):len(h.header.buf)], n: h.header.n}
	r.Body = m[len(h.header.buf):]
	r.conn, r.id = c, h.id
	r.answered.Store(false)

	r.ctx = &callContext{done: make(chan struct{})}
	if h.timeoutMs > 0 {
		r.ctx.deadline = time.Now().Add(time.Duration(h.timeoutMs) * time.Millisecond)
	}
}

// Context ends when the client cancels or is gone. Its Deadline is the call's; reaching
// it does not end the context by itself, because the client sends cancel then.
func (r *Request) Context() context.Context {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()

	if r.ctx == nil {
		r.ctx = &callContext{deadline: r.deadline, done: make(chan struct{})}
		if r.cancelled {
			r.ctx.cancel(context.Canceled)
		}
	}

	return r.ctx
}

// OnCancel has f called when the client cancels or is gone before the answer; at once if it has. f must
// be quick and must not answer the request itself. It is not called once Respond has begun.
func (r *Request) OnCancel(f func()) {
	r.conn.mu.Lock()
	defer r.conn.mu.Unlock()

	r.onCancel = f

	if r.cancelled && f != nil {
		f()
	}
}

// cancel is called with conn.mu held.
func (r *Request) cancel() {
	if r.cancelled {
		return
	}

	r.cancelled = true

	if r.ctx != nil {
		r.ctx.cancel(context.Canceled)
	}

	if r.onCancel != nil {
		r.onCancel()
	}
}

// Outbox holds the answers of one connection that RespondLater has left there.
type Outbox struct{ w *writer }

// Flush sends them, without waiting for the client to take them.
func (o *Outbox) Flush() { o.w.tryFlush() }

// Crowded tells that the client takes its answers so slowly that RespondLater may have to wait.
func (o *Outbox) Crowded() bool {
	o.w.mu.Lock()
	defer o.w.mu.Unlock()

	return len(o.w.buf) > maxBuffered/4
}

// Outbox is where RespondLater puts the answer. It may be used after it.
func (r *Request) Outbox() *Outbox { return &r.conn.out }

// RespondLater is Respond for many answers at once: they are sent with the next Flush of the Outbox.
func (r *Request) RespondLater(status int, header *Header, body []byte) {
	if r.answered.Swap(true) {
		panic("BUG: link: Respond called twice")
	}

	r.respond(status, header, body, true)
}

// Respond sends the answer and gives the request back; nothing of it may be used afterwards.
// header may be nil. Body is copied.
func (r *Request) Respond(status int, header *Header, body []byte) {
	if r.answered.Swap(true) {
		panic("BUG: link: Respond called twice")
	}

	r.respond(status, header, body, false)
}

func (r *Request) respond(status int, header *Header, body []byte, later bool) { //nolint:revive // one decision of the caller
	a := answerHead{id: r.id, status: status, body: body}
	if header != nil {
		a.header = *header
	}

	if status < 100 || status > 599 {
		panic("BUG: link: status out of range")
	}

	c := r.conn

	c.mu.Lock()
	if c.calls[r.id] == r {
		delete(c.calls, r.id)
	}
	c.mu.Unlock()
	for len(a.body) > MaxBody {
		const n = lengthSize + typeSize + 8 + MaxBody
		if c.w.lock(n) != nil {
			break
		}

		c.w.buf = appendMore(c.w.buf, r.id, a.body[:MaxBody])
		c.w.commit(n)
		a.body = a.body[MaxBody:]
	}

	n := lengthSize + typeSize + answerFixed + len(a.header.buf) + len(a.body)
	if len(a.body) <= MaxBody && c.w.lock(n) == nil {
		c.w.buf = appendAnswer(c.w.buf, &a)

		if later {
			c.w.commitLater(n)
		} else {
			c.w.commit(n)
		}
	}

	c.server.active.Add(-1)
	r.release()
}

func (r *Request) release() {
	r.use.Add(1)

	if cap(r.mem) > keepRequest {
		r.mem = nil
	}

	r.Method, r.Path, r.Body, r.Header = nil, nil, nil, Header{}
	r.conn, r.ctx, r.onCancel, r.cancelled, r.deadline = nil, nil, nil, false, time.Time{}
	requests.Put(r)
}

// callContext is a context that is cancelled by frames; it is cheaper than context.WithCancel.
type callContext struct {
	deadline time.Time
	done     chan struct{}
	once     sync.Once
	err      atomic.Pointer[error]
}

func (c *callContext) cancel(err error) {
	c.once.Do(func() {
		c.err.Store(&err)
		close(c.done)
	})
}

// Deadline implements context.Context.
func (c *callContext) Deadline() (time.Time, bool) { return c.deadline, !c.deadline.IsZero() }

// Done implements context.Context.
func (c *callContext) Done() <-chan struct{} { return c.done }

// Err implements context.Context.
func (c *callContext) Err() error {
	if p := c.err.Load(); p != nil {
		return *p
	}

	return nil
}

// Value implements context.Context.
func (*callContext) Value(any) any { return nil }
