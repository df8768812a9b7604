package web

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
)

// SecureListener is Listener for a door with TLS. A client that speaks plain HTTP to it is told
// so in the same form.
func SecureListener(ln net.Listener, conf *tls.Config) net.Listener {
	return &secureListener{Listener: ln, conf: conf}
}

type secureListener struct {
	net.Listener

	conf *tls.Config
}

// Accept implements net.Listener.
func (l *secureListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err //nolint:wrapcheck // the server looks at it
	}

	secure := tls.Server(c, l.conf)

	return &secureConn{plainConn: plainConn{secure}, tls: secure}, nil
}

// secureConn hides its TLS from the server of the standard library, which would answer by itself,
// past Write, and gives its state to requests through its context.
type secureConn struct {
	plainConn

	tls *tls.Conn
}

// Read implements net.Conn. The first one shakes hands.
func (c *secureConn) Read(p []byte) (int, error) {
	n, err := c.tls.Read(p)

	var record tls.RecordHeaderError
	if err != nil && errors.As(err, &record) && record.Conn != nil && fault.SpeaksHTTP(record.RecordHeader[:]) {
		c.explain(record.Conn)
	}

	return n, err //nolint:wrapcheck // as net.Conn
}

// explain answers a request that came without TLS. What was sent behind it is read and dropped for
// a moment: closing with unread bytes would reset the connection before the answer is read.
func (c *secureConn) explain(plain net.Conn) {
	const patience = time.Second

	id := newID()
	body := ModelArts.body(fault.New(fault.BadRequest, fault.PlainOnTLS), id)

	if plain.SetDeadline(time.Now().Add(patience)) != nil {
		return
	}

	_, err := fmt.Fprintf(plain, "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: %d\r\n"+
		"X-Content-Type-Options: nosniff\r\nX-Request-Id: %s\r\nConnection: close\r\n\r\n%s", len(body), id, body)

	half, ok := plain.(interface{ CloseWrite() error })
	if err != nil || !ok || half.CloseWrite() != nil {
		return
	}

	const most = 16 << 20

	_, _ = io.Copy(io.Discard, io.LimitReader(plain, most)) // nobody is left to tell
}

type secureKey struct{}

// withConn lets requests find the TLS of their connection.
func withConn(ctx context.Context, c net.Conn) context.Context {
	if s, ok := c.(*secureConn); ok {
		return context.WithValue(ctx, secureKey{}, s.tls)
	}

	return ctx
}

// markTLS tells requests of a SecureListener that they came by TLS.
func markTLS(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c, ok := r.Context().Value(secureKey{}).(*tls.Conn); ok && r.TLS == nil {
			state := c.ConnectionState()
			r.TLS = &state
		}

		h.ServeHTTP(w, r)
	})
}
