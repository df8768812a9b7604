package edge

import "time"

// Write sends p under a deadline of its own.
func (c *conn) Write(p []byte) (int, error) {
	if c.mute {
		return len(p), nil
	}

	if c.writeErr != nil {
		return 0, c.writeErr
	}

	n, err := 0, error(nil)
	if c.now != nil {
		n, err = c.now.Write(p)
	}

	if err == nil && n < len(p) {
		var more int

		more, err = c.slowly(p[n:])
		n += more
	}

	if err != nil {
		c.writeErr = err
		c.ending = true
	}

	if c.x != nil {
		c.x.bytesOut += int64(n)
	}

	return n, err //nolint:wrapcheck // net.Conn's contract
}

// slowly writes what the socket does not take at once.
func (c *conn) slowly(p []byte) (int, error) {
	t := &c.door.edge.cfg.Timeouts
	limit := t.Write.D() + time.Duration(len(p))*time.Second/time.Duration(t.MinWriteRate)

	if err := c.Conn.SetWriteDeadline(time.Now().Add(limit)); err != nil {
		return 0, err //nolint:wrapcheck // net.Conn's contract
	}

	n, err := c.Conn.Write(p)
	if err == nil && c.now != nil {
		err = c.Conn.SetWriteDeadline(time.Time{}) // it would end a quick write as well
	}

	return n, err //nolint:wrapcheck // net.Conn's contract
}

// readUntil sets the deadline of reading.
func (c *conn) readUntil(t time.Time) error {
	c.readBy = t

	return c.Conn.SetReadDeadline(t) //nolint:wrapcheck // net.Conn's contract
}
