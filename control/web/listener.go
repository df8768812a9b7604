package web

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// Listener makes the errors of a door without TLS those of the API, also for requests that the server
// of the standard library cannot parse: those it answers by itself, in plain text.
func Listener(ln net.Listener) net.Listener { return &plainListener{ln} }

// plainListener gives connections whose plain errors are put into the form of the API.
type plainListener struct{ net.Listener }

// Accept implements net.Listener.
func (l *plainListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the server looks at it
	}

	return &plainConn{Conn: c}, nil
}

// plainConn rewrites the answers that net/http gives by itself, which it writes in one piece.
type plainConn struct{ net.Conn }

// plainHead is what stands between the status line and the text of such an answer, and of no other.
const plainHead = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

// Write implements net.Conn.
func (c *plainConn) Write(p []byte) (int, error) {
	answer, ok := restate(p)
	if !ok {
		return c.Conn.Write(p) //nolint:wrapcheck // as net.Conn
	}

	if _, err := c.Conn.Write(answer); err != nil {
		return 0, err //nolint:wrapcheck // as net.Conn
	}

	return len(p), nil
}

// CloseWrite is looked for by the server before it closes on a client that still sends: else the
// connection is reset before the client has read the answer.
func (c *plainConn) CloseWrite() error {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}

	return half.CloseWrite() //nolint:wrapcheck // as net.TCPConn
}

// restate puts a plain answer of net/http into the form of the API.
func restate(p []byte) ([]byte, bool) {
	const version = "HTTP/1.1 "

	line, text, ok := bytes.Cut(p, []byte(plainHead))
	if !ok || !bytes.HasPrefix(line, []byte(version)) || bytes.ContainsAny(line, "\r\n") {
		return nil, false
	}

	code, _, _ := bytes.Cut(line[len(version):], []byte(" "))

	status, err := strconv.Atoi(string(code))
	if err != nil {
		return nil, false
	}

	// "400 Bad Request: malformed Host header" says why behind the colon.
	f := fault.New(fault.BadRequest, "")
	if _, why, ok := bytes.Cut(text, []byte(": ")); ok {
		f = fault.New(fault.BadRequest, "API request error: %s.", why)
	}

	id := newID()
	body := ModelArts.body(f, id)

	return fmt.Appendf(nil, "%s%d%s\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n"+
		"X-Content-Type-Options: nosniff\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n%s",
		version, status, line[len(version)+len(code):], len(body), id, body), true
}
