package wire

import (
	"bufio"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/loadtest/measure"
)

// link is a connection whose handshakes are done. Its sock still blocks.
type link struct {
	sock *sock
	tls  *tls.Conn
	rest []byte // what was read behind the handshake
}

func (e *Endpoint) dial(ctx context.Context, n int64) (*link, error) {
	timeout := e.Timeout
	if timeout == 0 {
		timeout = 5 * time.Second
	}

	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()

	var d net.Dialer

	nc, err := d.DialContext(ctx, e.Network, e.Addresses[n%int64(len(e.Addresses))])
	if err != nil {
		return nil, &DialError{Class: connectClass(ctx, err), Err: err}
	}

	l := &link{sock: &sock{nc: nc}}

	if err := e.shake(ctx, l); err != nil {
		nc.Close() //nolint:errcheck // the handshake's error is the one that counts

		return nil, err
	}

	return l, nil
}

func connectClass(ctx context.Context, err error) measure.Failure {
	var ne net.Error
	if ctx.Err() != nil || (errors.As(err, &ne) && ne.Timeout()) {
		return measure.ConnectTimeout
	}

	return measure.ConnectFailed
}

func (e *Endpoint) shake(ctx context.Context, l *link) error {
	if e.TLS != nil {
		l.tls = tls.Client(l.sock, e.TLS)

		if err := l.tls.HandshakeContext(ctx); err != nil {
			return &DialError{Class: measure.TLSFailed, Err: fmt.Errorf("TLS: %w", err)}
		}
	}

	if e.Upgrade == nil {
		return nil
	}

	if deadline, ok := ctx.Deadline(); ok {
		if err := l.sock.SetDeadline(deadline); err != nil {
			return &DialError{Class: measure.Other, Err: err}
		}
	}

	return e.upgrade(l)
}

func (l *link) stream() io.ReadWriter {
	if l.tls != nil {
		return l.tls
	}

	return l.sock
}

// upgrade does the opening handshake of RFC 6455.
func (e *Endpoint) upgrade(l *link) error {
	var nonce [16]byte

	rand.Read(nonce[:])
	key := base64.StdEncoding.EncodeToString(nonce[:])

	head := e.Upgrade(nil)
	head = append(head, "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: "+key+"\r\n\r\n"...)

	if _, err := l.stream().Write(head); err != nil {
		return &DialError{Class: measure.Closed, Err: fmt.Errorf("WebSocket handshake: %w", err)}
	}

	r := bufio.NewReader(l.stream())

	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodGet})
	if err != nil {
		return &DialError{Class: measure.Malformed, Err: fmt.Errorf("WebSocket handshake: %w", err)}
	}

	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(io.LimitReader(resp.Body, keepBody)) // as much as there is
		resp.Body.Close()                                          //nolint:errcheck // read only

		return &DialError{Class: measure.None, Status: resp.StatusCode, Body: body, Err: fmt.Errorf("WebSocket handshake: HTTP %s", resp.Status)}
	}

	if !strings.EqualFold(resp.Header.Get("Upgrade"), "websocket") || resp.Header.Get("Sec-WebSocket-Accept") != acceptOf(key) {
		return &DialError{Class: measure.Malformed, Err: errors.New("WebSocket handshake: the answer does not fit the request")}
	}

	l.rest, err = r.Peek(r.Buffered())
	if err != nil {
		return &DialError{Class: measure.Other, Err: err}
	}

	return nil
}

func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // RFC 6455 asks for it

	return base64.StdEncoding.EncodeToString(sum[:])
}
