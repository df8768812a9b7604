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
)

// LinkServer is the door for small calls from gateways: the same App over package link.
type LinkServer struct {
	app   *App
	log   *slog.Logger
	grace time.Duration
	srv   *link.Server
	doors sync.Pool
}

// NewLinkServer returns a door for app. grace bounds what Run waits for calls in flight.
func NewLinkServer(app *App, grace time.Duration, log *slog.Logger) *LinkServer {
	l := &LinkServer{app: app, log: log, grace: grace}
	l.doors.New = func() any { return new(linkDoor) }
	l.srv = link.NewServer(link.ServerConfig{OnPanic: func(v any, stack []byte) {
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
	d, _ := l.doors.Get().(*linkDoor)
	d.header.h = &r.Header

	x := &d.x
	*x = Exchange{
		Method: r.Method, Path: linkPath(r.Path), Body: r.Body, Header: &d.header,
		Context: r.Context(), Start: time.Now(), Out: d.out[:0], Extra: x.Extra[:0],
	}

	l.app.Serve(x)

	d.answer.Reset()

	if x.Type != "" {
		d.answer.Add("Content-Type", []byte(x.Type))
	}

	for _, h := range x.Extra {
		d.answer.Add(h.Name, []byte(h.Value))
	}

	r.Respond(x.Status, &d.answer, x.Out)

	d.out = x.Out
	if cap(d.out) > keepLinkOut {
		d.out = nil
	}

	*x = Exchange{Extra: x.Extra[:0]}
	d.header.h = nil
	l.doors.Put(d)
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
