package serve

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/sluice-gateway/sluice/link"
	"github.com/sluice-gateway/sluice/runtime/batch"
)

// A small inference needs less time than to wake a goroutine for it. It is decoded where calls are
// read, submitted to the batcher, and encoded where the batch was run; the answers of a batch leave in
// one write. What may take longer, in or out, goes the way of all other calls.
const (
	quickBody = 4 << 10 // of the request
	quickOut  = 4 << 10 // of the outputs
)

// quick takes a call if it is small and nothing about it is special.
func (l *LinkServer) quick(r *link.Request) bool {
	rest, ok := bytes.CutPrefix(r.Path, []byte("/v2/models/"))
	if !ok || !bytes.HasSuffix(rest, []byte("/infer")) || len(r.Body) > quickBody || string(r.Method) != "POST" ||
		bytes.IndexByte(rest, '%') >= 0 || bytes.IndexByte(rest, '?') >= 0 ||
		r.Header.GetFold("Accept-Encoding") != nil || r.Header.GetFold("Content-Encoding") != nil {
		return false
	}

	route, ok := parseRoute(rest)
	if !ok || string(route.action) != "infer" {
		return false
	}

	d := l.door(r)
	d.r, d.box = r, r.Outbox()
	d.x.Context = context.Background()

	box := d.box

	switch took, err := d.start(route); {
	case err != nil:
		d.refuse(err)
		box.Flush()
	case !took:
		d.free()

		return false
	}

	return true
}

// refuse answers a call that was not submitted.
func (d *linkDoor) refuse(err error) {
	if !errors.Is(err, errPanicked) { // which has its answer
		d.l.app.fail(&d.x, err)
	}

	d.respond()
}

var errPanicked = errors.New("serve: a call panicked")

// start submits the call; false means that it is none for this way.
func (d *linkDoor) start(r route) (took bool, err error) {
	a, out := d.l.app, d.x.Out

	c, err := a.begin(&d.x, r)
	if err != nil {
		return false, err
	}

	defer func() {
		if p := recover(); p != nil {
			a.panicked(&d.x, out, p)

			took, err = false, errPanicked
		}

		if !took {
			c.finish()
		}
	}()

	m, ok := c.model.(submitter)
	if !ok || len(c.cm.v2.Pictures) > 0 {
		return false, nil
	}

	if err := a.decode(&d.x, c, c.cm); err != nil {
		return false, err
	}

	return d.submit(c, m)
}

func (d *linkDoor) submit(c *call, m submitter) (bool, error) {
	l, b := d.l, m.Batcher()
	d.call, d.model = c, m
	d.r.OnCancel(d.cancel)

	// From here on the answer may come at any moment.
	if err := c.submit(m, d, d.box); err != nil {
		d.r.OnCancel(nil)

		return false, err
	}

	l.hold(b)

	return true, nil
}

// hold remembers that something was submitted.
func (l *LinkServer) hold(b *batch.Batcher) {
	l.mu.Lock()
	defer l.mu.Unlock()

	if !slices.Contains(l.held, b) {
		l.held = append(l.held, b)
	}
}

// flush offers to the executors what was submitted.
func (l *LinkServer) flush() {
	l.mu.Lock()
	defer l.mu.Unlock()

	for i, b := range l.held {
		b.Flush()

		l.held[i] = nil
	}

	l.held = l.held[:0]
}

// Answer implements batch.Receiver.
func (d *linkDoor) Answer(res *batch.Result, err error) {
	size := 0

	if res != nil {
		for i := range res.Outputs {
			size += len(res.Outputs[i].Data)
		}
	}

	if size <= quickOut && !d.box.Crowded() {
		d.answered(res, err)

		return
	}

	// The batcher may have the request's memory back when Answer returns; d.call holds it.
	go func() {
		box := d.box
		d.answered(res, err)
		box.Flush()
	}()
}

func (d *linkDoor) answered(res *batch.Result, err error) {
	d.encode(res, err)
	d.call.finish()
	d.respond()
}

// encode writes the answer; a panic becomes a 500.
func (d *linkDoor) encode(res *batch.Result, err error) {
	a, x := d.l.app, &d.x
	out := x.Out

	defer func() {
		if p := recover(); p != nil {
			a.panicked(x, out, p)
		}
	}()

	if err == nil {
		err = a.inferred(x, d.call, res)
	}

	if err != nil {
		x.Out = out
		a.fail(x, err)
	}
}

// respond leaves the answer for the next flush.
func (d *linkDoor) respond() {
	if h := d.l.app.hooks.Served; h != nil {
		h("v2", d.x.Status, time.Since(d.x.Start))
	}

	d.r.RespondLater(d.x.Status, d.head(), d.x.Out)
	d.free()
}
