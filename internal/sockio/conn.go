package sockio

import "net"

// Conn is a connection whose Read and Write are those of Reader and Quick, for a layer above it such as
// TLS. One goroutine at a time may read, and one may write.
type Conn struct {
	net.Conn

	in  *Reader
	out *Quick
}

// Wrap returns a Conn over conn.
func Wrap(conn net.Conn) *Conn { return &Conn{Conn: conn, in: NewReader(conn), out: New(conn)} }

// Read implements io.Reader.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// WriteNow writes what the socket takes at once, which is nothing if conn is no plain socket.
func (c *Conn) WriteNow(p []byte) (int, error) { return c.out.Write(p) }

// Write implements io.Writer.
func (c *Conn) Write(p []byte) (int, error) {
	n, err := c.out.Write(p)
	if err == nil && n < len(p) {
		var more int

		more, err = c.Conn.Write(p[n:])
		n += more
	}

	return n, err //nolint:wrapcheck // as of the connection's own Write
}
