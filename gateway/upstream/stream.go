package upstream

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/fault"
)

// streamPoll is how soon a stream notices what the callback on its context missed.
const streamPoll = time.Second

// stream is an answer under way to the client.
type stream struct {
	conn  *conn
	call  *gateway.Call
	body  reader
	done  func(int64, error)
	stop  func() bool
	idle  time.Duration // the longest pause
	bytes int64
	err   error // why there is no next piece; io.EOF at the proper end
}

// startStream hands the answer over to the door.
func (x *conn) startStream(c *gateway.Call, a *gateway.Attempt, res *gateway.Result) {
	s := &x.stream
	*s = stream{conn: x, call: c, body: reader{length: x.resp.length}, done: a.Done}
	if s.idle = a.StreamIdle; s.idle <= 0 {
		s.idle = x.host.client.cfg.StreamIdle
	}
	// Polling as often as for a short request would cost too much on a stream that pauses.
	x.pollEvery = streamPoll
	s.stop = context.AfterFunc(c.Context, func() { _ = x.nc.SetReadDeadline(time.Unix(1, 0)) })
	res.Answered, res.Streaming = true, true

	x.copyHeaders(c.Out)
	a.AnswerHeaders(c.Out)
	c.Out.Stream(x.resp.status, s.next, s.finish)
}

// next gives the door the next piece.
func (s *stream) next() ([]byte, error) {
	if s.err != nil {
		return nil, s.err
	}

	// The deadline that the callback on the context sets is lost if a read begins at the same
	// moment; on a stream that never pauses nothing else would notice.
	if s.call.Context.Err() != nil {
		s.err = fault.Wrap(fault.ClientGone, errCanceled, "")

		return nil, s.err
	}

	x := s.conn
	idle := time.Now().Add(s.idle)

	piece, err := s.body.next(s.call.Context, x, idle)
	s.bytes += int64(len(piece))

	switch {
	case err == nil:
		return piece, nil
	case errors.Is(err, io.EOF):
		s.err = io.EOF
	case errors.Is(err, errCanceled):
		s.err = fault.Wrap(fault.ClientGone, err, "")
	case errors.Is(err, errDeadline):
		s.err = fault.Wrap(fault.BackendTimeout, err, "")
	default:
		s.err = fault.Wrap(fault.BackendFailed, err, "")
	}

	return piece, s.err
}

// finish is called by the door when the stream is over, however it ended.
func (s *stream) finish(err error) {
	s.stop()
	// Once released, the connection and this stream with it belong to the next call.
	x, done, bytes := s.conn, s.done, s.bytes

	var failed error

	switch {
	case s.err == nil:
		failed = fault.Wrap(fault.ClientGone, err, "")
	case !errors.Is(s.err, io.EOF):
		failed = s.err
	case err != nil: // everything was read, but the client did not get all of it
		failed = fault.Wrap(fault.ClientGone, err, "")
	}

	if s.err != nil && errors.Is(s.err, io.EOF) {
		x.release()
	} else {
		x.close()
	}

	done(bytes, failed)
}
