package wire

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// Try makes one connection, with all handshakes, and closes it.
func Try(ctx context.Context, e *Endpoint) error {
	l, err := e.dial(ctx, 0)
	if err != nil {
		return err
	}

	l.sock.Close() //nolint:errcheck // nothing was sent

	return nil
}

// Once sends one request on a connection of its own and returns the status and the beginning of the body of an
// answer that is not a success. ctx bounds it. Of a stream it reads only the head.
func Once(ctx context.Context, e *Endpoint, raw []byte, headOnly bool) (status int, body []byte, err error) {
	l, err := e.dial(ctx, 0)
	if err != nil {
		return 0, nil, err
	}
	defer l.sock.Close() //nolint:errcheck // the answer has been read

	// A deadline in the past ends whatever is under way when ctx does.
	stop := context.AfterFunc(ctx, func() {
		l.sock.SetDeadline(time.Unix(1, 0)) //nolint:errcheck // the connection is closed already
	})
	defer stop()

	if _, err := l.stream().Write(raw); err != nil {
		return 0, nil, fmt.Errorf("send: %w", onceError(ctx, err))
	}

	p := parser{headOnly: headOnly, events: &events{now: func() int64 { return 0 }, onGap: func(int64, int64) {}}}
	buf := make([]byte, readSize)

	for {
		n, err := l.stream().Read(buf)

		_, done, perr := p.feed(buf[:n])
		if perr != nil {
			return 0, nil, perr
		}

		if done || (p.sse && p.state != inHead) || (errors.Is(err, io.EOF) && p.eof()) {
			return p.status, slices.Clone(p.body), nil
		}

		if err != nil {
			return 0, nil, fmt.Errorf("no answer: %w", onceError(ctx, err))
		}
	}
}

func onceError(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errors.New("time is over")
	}

	if errors.Is(err, io.EOF) {
		return errors.New("the connection was closed")
	}

	return err
}
