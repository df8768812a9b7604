package serve

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/runtime/batch"
)

// LinkServer is the door for small calls from gateways: the same App over package link.
type LinkServer struct {
	app   *App
	log   *slog.Logger
	grace time.Duration
	srv   *link.Server
	doors sync.Pool

	mu   sync.Mutex       // guards held
	held []*batch.Batcher // have got requests since the last flush
}

// NewLinkServer returns a door for app. grace bounds what Run waits for calls in flight.
func NewLinkServer(app *App, grace time.Duration, log *slog.Logger) *LinkServer {
	l := &LinkServer{app: app, log: log, grace: grace}
	l.doors.New = func() any { return newLinkDoor(l) }
	l.srv = link.NewServer(link.ServerConfig{Quick: l.quick, Pause: l.flush, OnPanic: func(v any, stack []byte) {
		log.Error("panic while answering a call", slog.Any("panic", v), slog.String("stack", string(stack)))
	}}, l.handle)

	return l
}

// linkDoor is the pooled part of a call.
type linkDoor struct {
	x      Exchange
	header linkHeader
	answer link.Header
	out    []byte

	// Of a quick call.
	l      *LinkServer
	r      *link.Request
	box    *link.Outbox
	call   *call
	model  submitter
	cancel func() // bound once
}

func newLinkDoor(l *LinkServer) *linkDoor {
	d := &linkDoor{l: l}
	d.cancel = func() { d.model.Cancel(&d.call.req, context.Canceled) }

	return d
}

// linkHeader reads the headers of a call.
type linkHeader struct{ h *link.Header }

// Get implements Header.
func (h *linkHeader) Get(name string) []byte { return h.h.GetFold(name) }

// Run answers calls on ln. When ctx ends it asks gateways to send no more; it returns when
// idle ended (the other doors are done) and nothing is in flight, or grace is over.
func (l *LinkServer) Run(ctx context.Context, ln net.Listener, idle <-chan struct{}) error {
	served := make(chan error, 1)
	go func() { served <- l.srv.Serve(ln) }()

	select {
	case err := <-served:
		return fmt.Errorf("serve link: %w", err)
	case <-ctx.Done():
	}

	l.srv.Drain()

	grace := time.NewTimer(l.grace)
	defer grace.Stop()

	select {
	case <-idle:
	case <-grace.C:
	}

	l.finish(grace.C)
	l.srv.Close()

	if err := <-served; err != nil {
		return fmt.Errorf("serve link: %w", err)
	}

	return nil
}

// finish waits until nothing is in flight.
func (l *LinkServer) finish(late <-chan time.Time) {
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()

	for l.srv.InFlight() > 0 {
		select {
		case <-tick.C:
		case <-late:
			return
		}
	}
}

// InFlight is the number of calls being answered.
func (l *LinkServer) InFlight() int { return l.srv.InFlight() }

// keepLinkOut is the largest answer buffer that is kept for the next call.
const keepLinkOut = 64 << 10

func (l *LinkServer) handle(r *link.Request) {
	d := l.door(r)
	d.x.Context = r.Context() //nolint:fatcontext // each call has its own

	l.app.Serve(&d.x)

	r.Respond(d.x.Status, d.head(), d.x.Out)
	d.free()
}

// door prepares the exchange of a call.
func (l *LinkServer) door(r *link.Request) *linkDoor {
	d, _ := l.doors.Get().(*linkDoor)
	d.header.h = &r.Header

	d.x = Exchange{
		Method: r.Method, Path: linkPath(r.Path), Body: r.Body, Header: &d.header,
		Start: time.Now(), Out: d.out[:0], Extra: d.x.Extra[:0],
	}

	return d
}

// head is what the answer carries besides its body.
func (d *linkDoor) head() *link.Header {
	d.answer.Reset()

	if d.x.Type != "" {
		d.answer.Add("Content-Type", []byte(d.x.Type))
	}

	for _, h := range d.x.Extra {
		d.answer.Add(h.Name, []byte(h.Value))
	}

	return &d.answer
}

func (d *linkDoor) free() {
	d.out = d.x.Out
	if cap(d.out) > keepLinkOut {
		d.out = nil
	}

	d.x = Exchange{Extra: d.x.Extra[:0]}
	d.header.h = nil
	d.r, d.box, d.call, d.model = nil, nil, nil, nil
	d.l.doors.Put(d)
}

// linkPath is the decoded path without the query.
func linkPath(target []byte) []byte {
	p, _, _ := bytes.Cut(target, []byte{'?'})
	if bytes.IndexByte(p, '%') < 0 {
		return p
	}

	if plain, err := url.PathUnescape(string(p)); err == nil {
		return []byte(plain)
	}

	return p
}
