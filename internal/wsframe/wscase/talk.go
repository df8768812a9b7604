package wscase

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

const (
	talkTime = 30 * time.Second
	maxHeard = 64 << 20
)

// Heard is what the other side of a conversation said.
type Heard struct {
	Messages []Message
	Pongs    [][]byte
	// Code of its close frame; CodeLost if the connection ended without.
	Code   wsframe.Code
	Reason string
}

// Talk sends what the case has over c, whose handshake is done, and returns what comes back until the end. With
// n messages, which may be fewer than the case has, and all pongs back, it says good-bye by itself.
// The other side's own frames are judged too: a breach is an error.
func (k *Case) Talk(c net.Conn, r *bufio.Reader, n int) (*Heard, error) {
	if err := c.SetDeadline(time.Now().Add(talkTime)); err != nil {
		return nil, fmt.Errorf("talk: %w", err)
	}

	var (
		heard  = &Heard{Code: wsframe.CodeLost}
		enough = make(chan struct{})
		ended  = make(chan error, 1)
	)

	go func() { ended <- k.listen(r, heard, n, enough) }()

	if k.Code == 0 && !k.Closes {
		if err := k.send(c); err != nil {
			return nil, errors.Join(err, hangUp(c, ended))
		}

		select {
		case <-enough:
		case err := <-ended:
			return heard, err
		}

		s := side{masked: true}
		if _, err := c.Write(s.closing(wsframe.CodeNormal, "")); err != nil {
			return heard, errors.Join(err, hangUp(c, ended))
		}

		return heard, <-ended
	}

	_ = k.send(c) // it may be cut off in the middle, with reason

	return heard, <-ended
}

func hangUp(c net.Conn, ended <-chan error) error {
	_ = c.Close() // ends the reading

	return <-ended
}

// send writes the pieces of the case.
func (k *Case) send(w io.Writer) error {
	for _, piece := range k.Send {
		for len(piece) > 0 {
			n := len(piece)
			if k.Chop > 0 {
				n = min(n, k.Chop)
			}

			if _, err := w.Write(piece[:n]); err != nil {
				return fmt.Errorf("talk: %w", err)
			}

			piece = piece[n:]
		}
	}

	return nil
}

// listen reads frames until a close frame or the end, and closes enough when all is there that is waited for.
func (k *Case) listen(r *bufio.Reader, heard *Heard, n int, enough chan<- struct{}) error {
	var (
		check   = wsframe.Checker{MaxMessage: maxHeard}
		message Message
	)

	told := false

	for {
		if !told && len(heard.Messages) >= n && len(heard.Pongs) >= len(k.Pongs) {
			told = true

			close(enough)
		}

		h, payload, err := readFrame(r, &check)
		if err != nil {
			var op *net.OpError
			if errors.Is(err, io.EOF) || errors.As(err, &op) && !op.Timeout() {
				return nil // it hung up
			}

			return err
		}

		switch h.Op {
		case wsframe.OpClose:
			code, reason, v := wsframe.ParseClose(payload)
			if v != nil {
				return v
			}

			heard.Code, heard.Reason = code, string(reason)

			return nil
		case wsframe.OpPong:
			heard.Pongs = append(heard.Pongs, payload)
		case wsframe.OpText, wsframe.OpBinary:
			message = Message{h.Op, payload}
		case wsframe.OpContinuation:
			message.Payload = append(message.Payload, payload...)
		case wsframe.OpPing:
		}

		if !h.Op.Control() && h.Fin {
			heard.Messages = append(heard.Messages, message)
		}
	}
}

// readFrame reads one frame and judges it.
func readFrame(r *bufio.Reader, check *wsframe.Checker) (h wsframe.Header, payload []byte, err error) {
	for need := 2; ; need++ {
		head, err := r.Peek(need)
		if err != nil {
			return h, nil, err //nolint:wrapcheck // judged by the caller
		}

		var (
			ok bool
			v  *wsframe.Violation
		)

		if h, ok, v = wsframe.ParseHeader(head); v != nil {
			return h, nil, v
		}

		if ok {
			break
		}
	}

	if v := check.Frame(&h); v != nil {
		return h, nil, v
	}

	if _, err := r.Discard(h.Size); err != nil {
		return h, nil, err //nolint:wrapcheck // as above
	}

	payload = make([]byte, h.Length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return h, nil, err //nolint:wrapcheck // as above
	}

	if h.Op.Control() {
		return h, payload, nil
	}

	if v := check.Payload(payload, h.Key, 0); v != nil {
		return h, nil, v
	}

	if _, v := check.End(&h); v != nil {
		return h, nil, v
	}

	return h, payload, nil
}

// Judge compares what came back with what had to; strict asks for every message before a breach as well, and for
// the same payloads.
func (k *Case) Judge(got *Heard, strict bool) error { //nolint:revive // one rule, held more or less strictly
	want := k.Code

	switch {
	case k.Closes:
		want = k.Answer
	case want == 0:
		want = wsframe.CodeNormal
	}

	if got.Code != want {
		return fmt.Errorf("closed with %d (%s), want %d", got.Code, got.Reason, want)
	}

	if len(got.Messages) > len(k.Messages) || len(got.Messages) < len(k.Messages) && (strict || k.Code == 0 && !k.Closes) {
		return fmt.Errorf("%d messages came back, want %d", len(got.Messages), len(k.Messages))
	}

	if len(got.Pongs) != len(k.Pongs) && k.Code == 0 && !k.Closes {
		return fmt.Errorf("%d pongs came back, want %d", len(got.Pongs), len(k.Pongs))
	}

	for i, p := range got.Pongs {
		if i >= len(k.Pongs) || !bytes.Equal(p, k.Pongs[i]) {
			return fmt.Errorf("pong %d is %q", i, p)
		}
	}

	for i, m := range got.Messages {
		if strict && (m.Op != k.Messages[i].Op || !bytes.Equal(m.Payload, k.Messages[i].Payload)) {
			return fmt.Errorf("message %d of %d bytes with opcode %d differs", i, len(m.Payload), m.Op)
		}
	}

	return nil
}
