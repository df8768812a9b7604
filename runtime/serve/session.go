package serve

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/gorilla/websocket"
	"golang.org/x/sync/semaphore"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/wsframe"
	"github.com/sluice-gateway/sluice/runtime/codec"
)

const (
	// socketInFlight is how many messages of one WebSocket are worked on at a time. Beyond that, and
	// beyond socketBytes of them, no further one is read.
	socketInFlight = 64
	socketBytes    = 64 << 20
	// socketWrite is how long an answer may take to be written.
	socketWrite = 30 * time.Second
	// socketBye is how long the client may take to answer a close frame.
	socketBye = 5 * time.Second
)

// session is one WebSocket. Its goroutine reads; every message is answered on a goroutine of its own.
type session struct {
	srv    *Server
	app    *App
	ws     *websocket.Conn
	route  route // what the path names; no model means the default one
	cancel context.CancelFunc

	room  *semaphore.Weighted // for messages
	bytes *semaphore.Weighted

	writing sync.Mutex  // held while a message is written
	ending  atomic.Bool // nothing is read any more, and what cannot be written does not matter
}

func newSession(srv *Server, ws *websocket.Conn, r route, cancel context.CancelFunc) *session {
	return &session{
		srv: srv, app: srv.app, ws: ws, route: r, cancel: cancel,
		room: semaphore.NewWeighted(socketInFlight), bytes: semaphore.NewWeighted(socketBytes),
	}
}

// socketRoute finds what the path of a handshake names: "/", a path that the package declares and "/v2" are the
// default model; "/v2/models/MODEL[/versions/VERSION][/infer]" is that one.
func (a *App) socketRoute(path []byte) (route, error) {
	trimmed := bytes.TrimSuffix(path, []byte("/"))
	if len(trimmed) == 0 || string(trimmed) == "/v2" {
		return route{}, nil
	}

	if rest, ok := bytes.CutPrefix(trimmed, []byte("/v2/models/")); ok {
		if r, ok := parseRoute(rest); ok && (len(r.action) == 0 || string(r.action) == "infer") {
			return r, nil
		}

		return route{}, notFound()
	}

	if !isV2(path) {
		m, err := a.models.Acquire(a.cfg.Model, a.cfg.Version)
		if err == nil {
			defer m.Release()

			if declared(&m.Meta().Config, string(trimmed)) {
				return route{}, nil
			}
		}
	}

	return route{}, fault.New(fault.EndpointUndefined, "The API %s does not exist.", clip(string(path)))
}

// read takes messages until the WebSocket ends.
func (s *session) read(ctx context.Context) {
	err := s.messages(ctx)
	s.ending.Store(true)

	var v *wsframe.Violation
	if errors.As(err, &v) {
		s.bye(int(v.Code), v.Reason)
	}

	s.cancel()

	// Without a close frame of its own the client may still be sending.
	var closed *websocket.CloseError
	if !errors.As(err, &closed) {
		s.linger()
	}

	s.finish() //nolint:contextcheck // answers under way outlive the reading
}

// messages takes messages and has them answered. What it returns was told to the client, unless it is a violation.
func (s *session) messages(ctx context.Context) error {
	s.ws.SetReadLimit(s.app.cfg.MaxBody)

	for {
		kind, r, err := s.ws.NextReader()
		if err != nil {
			return err //nolint:wrapcheck // judged by the caller
		}

		if err := s.room.Acquire(ctx, 1); err != nil {
			return err //nolint:wrapcheck // as above
		}

		msg, err := s.message(r)
		if err == nil && kind == websocket.TextMessage && !utf8.Valid(msg) {
			err = errNotUTF8 // it was packed: the guard has judged all other text
		}

		size := min(int64(len(msg)), socketBytes)
		if err == nil {
			err = s.bytes.Acquire(ctx, size)
		}

		if err != nil {
			s.room.Release(1)

			return err
		}

		s.srv.count.Add(1)

		go func() {
			defer s.room.Release(1)
			defer s.bytes.Release(size)
			defer s.srv.count.Add(-1)

			s.answer(ctx, kind == websocket.BinaryMessage, msg)
		}()
	}
}

var (
	errNotUTF8 = &wsframe.Violation{Code: wsframe.CodeNotUTF8, Reason: "text is not valid UTF-8"}
	errTooBig  = &wsframe.Violation{Code: wsframe.CodeTooBig, Reason: "the message is too big"}
)

// socketLinger is how long a client that is cut off may take to read why.
const socketLinger = time.Second

// linger takes what the client still sends: closing a connection with unread bytes would take the close frame
// back that is on its way.
func (s *session) linger() {
	g, ok := s.ws.NetConn().(*guard)
	if !ok {
		panic("BUG: a session without a guard")
	}

	if c, ok := g.Conn.(interface{ CloseWrite() error }); !ok || c.CloseWrite() != nil || g.SetReadDeadline(time.Now().Add(socketLinger)) != nil {
		return
	}

	_, _ = io.Copy(io.Discard, g.Conn) // until it hangs up or the time is over
}

// finish ends what is still worked on and waits for it.
func (s *session) finish() {
	s.cut()

	// Every answer gives its place back, and leave may be waiting for them as well.
	if s.room.Acquire(context.Background(), socketInFlight) == nil {
		s.room.Release(socketInFlight)
	}
}

// message reads one message, unpacked if need be, within the limit.
func (s *session) message(r io.Reader) ([]byte, error) {
	var b bytes.Buffer

	most := s.app.cfg.MaxBody

	if _, err := b.ReadFrom(io.LimitReader(r, most+1)); err != nil {
		return nil, err //nolint:wrapcheck // ends the session
	}

	if int64(b.Len()) > most {
		return nil, errTooBig
	}

	return b.Bytes(), nil
}

// answer runs one request and writes what comes of it.
func (s *session) answer(ctx context.Context, isBinary bool, msg []byte) { //nolint:revive // the kind of the message
	x := Exchange{Method: []byte("POST"), Context: ctx, Start: time.Now()}

	var (
		head  = frameHeader{length: -1}
		first = msg // the JSON part
		err   error
	)

	if isBinary {
		head.length, err = binaryParts(msg)
		if err == nil {
			x.Body, first = msg[4:], msg[4:4+head.length]
		}
	} else {
		x.Body = msg
	}

	if err == nil {
		x.Path, err = s.target(first)
	}

	x.Header = &head

	if err != nil {
		x.Path = []byte("/v2")
		s.app.fail(&x, err)
	} else {
		s.app.Serve(&x)
	}

	s.reply(&x, first)
}

// frameHeader stands in for the headers of a request over HTTP.
type frameHeader struct{ length int }

// Get implements Header.
func (h *frameHeader) Get(name string) []byte {
	if h.length >= 0 && name == headerLengthName {
		return strconv.AppendInt(nil, int64(h.length), 10)
	}

	return nil
}

const headerLengthName = "Inference-Header-Content-Length"

// binaryParts reads the length of the JSON part of a binary message.
func binaryParts(msg []byte) (int, error) {
	if len(msg) < 4 {
		return 0, fault.New(fault.InvalidArgument, "A binary message begins with the length of its JSON part in four bytes.")
	}

	n := binary.LittleEndian.Uint32(msg)
	if int64(n) > int64(len(msg)-4) {
		return 0, fault.New(fault.InvalidArgument, "The JSON part of %d bytes is longer than the message.", n)
	}

	return int(n), nil
}

// target is the path of the request that a message makes.
func (s *session) target(text []byte) ([]byte, error) {
	model, version := s.route.model, s.route.version

	if model == "" {
		var err error
		if model, version, err = named(text); err != nil {
			return nil, err
		}

		if model == "" {
			model, version = s.app.cfg.Model, s.app.cfg.Version
		}
	}

	b := append([]byte("/v2/models/"), model...)
	if version != "" {
		b = append(append(b, "/versions/"...), version...)
	}

	return append(b, "/infer"...), nil
}

// named finds model_name and model_version in a request, empty without. What is wrong with the JSON otherwise is
// for the decoder to say.
func named(text []byte) (model, version string, err error) {
	for key, value := range members(text) {
		switch key {
		case "model_name":
			model = value
		case "model_version":
			version = value
		}
	}

	if bytes.ContainsRune([]byte(model+version), '/') {
		return "", "", fault.New(fault.InvalidArgument, "model_name and model_version must not have a slash.")
	}

	return model, version, nil
}

// members yields the string members of a JSON object, as far as it can be read.
func members(text []byte) func(yield func(key, value string) bool) {
	return func(yield func(key, value string) bool) {
		var s codec.Scanner

		s.Reset(text)

		if s.BeginObject() != nil {
			return
		}

		for {
			key, ok, err := s.NextKey()
			if err != nil || !ok {
				return
			}

			name := string(key)

			if s.Peek() != '"' {
				if s.Skip() != nil {
					return
				}

				continue
			}

			value, err := s.String()
			if err != nil || !yield(name, string(value)) {
				return
			}
		}
	}
}

// reply writes the answer: text if it is JSON alone, else the length of the JSON part and the parts.
func (s *session) reply(x *Exchange, request []byte) {
	if x.Status >= 300 {
		s.write(websocket.TextMessage, refusal(x, request))

		return
	}

	length := -1

	for _, h := range x.Extra {
		if h.Name == headerLengthName {
			length, _ = strconv.Atoi(h.Value) // our own number
		}
	}

	if length < 0 {
		s.write(websocket.TextMessage, x.Out)

		return
	}

	s.write(websocket.BinaryMessage, binary.LittleEndian.AppendUint32(make([]byte, 0, 4), uint32(length)), x.Out)
}

// refusal is the error of one message: the id of the request, if it could be read, the text and the status.
func refusal(x *Exchange, request []byte) []byte {
	b := []byte{'{'}

	for key, value := range members(request) {
		if key == "id" {
			b = append(b, `"id":`...)
			b = codec.AppendString(b, value)
			b = append(b, ',')

			break
		}
	}

	b = append(b, `"status":`...)
	b = strconv.AppendInt(b, int64(x.Status), 10)

	// What the App has written is {"error":"…"}.
	if text, ok := bytes.CutPrefix(x.Out, []byte{'{'}); ok {
		return append(append(b, ','), text...)
	}

	return append(b, `,"error":"Internal error."}`...)
}

// write sends one message made of parts. A client that does not read ends the session.
func (s *session) write(kind int, parts ...[]byte) {
	s.writing.Lock()
	defer s.writing.Unlock()

	err := s.ws.SetWriteDeadline(time.Now().Add(socketWrite))
	if err == nil {
		err = s.writeParts(kind, parts)
	}

	if err != nil && !s.ending.Load() {
		s.srv.log.Debug("websocket answer", slog.Any("error", err))
		s.cut()
	}
}

func (s *session) writeParts(kind int, parts [][]byte) error {
	if len(parts) == 1 {
		return s.ws.WriteMessage(kind, parts[0]) //nolint:wrapcheck // logged with what it is
	}

	w, err := s.ws.NextWriter(kind)
	if err != nil {
		return err //nolint:wrapcheck // logged with what it is
	}

	for _, p := range parts {
		if _, err := w.Write(p); err != nil {
			return err //nolint:wrapcheck // logged with what it is
		}
	}

	return w.Close() //nolint:wrapcheck // logged with what it is
}

// bye sends a close frame.
func (s *session) bye(code int, reason string) {
	_ = s.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(code, reason), time.Now().Add(time.Second)) // else it is gone anyway
}

// leave says good-bye after wait, when what the client has asked is answered, and waits for its answer.
func (s *session) leave(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()

	select {
	case <-timer.C:
	case <-ctx.Done():
		return
	}

	// All places are free when nothing is worked on; what comes after that has come too late.
	if s.room.Acquire(ctx, socketInFlight) != nil {
		return
	}

	s.bye(websocket.CloseGoingAway, "the worker is going away")
	s.room.Release(socketInFlight)

	_ = s.ws.SetReadDeadline(time.Now().Add(socketBye)) // ends read, at the latest
}

// cut ends the session at once.
func (s *session) cut() {
	s.cancel()

	_ = s.ws.Close() // ends read
}
