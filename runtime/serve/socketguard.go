package serve

import (
	"net"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// guard judges what a client sends before the library reads it, because the library lets some breaches pass
// and looks at text only when a message is complete. The breach is the error of the Read that would reach it.
type guard struct {
	net.Conn

	check   wsframe.Checker
	head    [wsframe.MaxHeader]byte // of the frame under way, as far as it has come
	had     int
	frame   wsframe.Header
	within  bool  // the payload of frame is under way
	at      int64 // how much of it has come
	bye     []byte
	refused *wsframe.Violation
}

func newGuard(c net.Conn, packed bool) *guard {
	return &guard{Conn: c, check: wsframe.Checker{Masked: true, Deflate: packed}}
}

// Read implements io.Reader.
func (g *guard) Read(b []byte) (int, error) {
	if g.refused != nil {
		return 0, g.refused
	}

	n, err := g.Conn.Read(b)
	good, v := g.judge(b[:n])

	if g.refused = v; v == nil {
		return n, err //nolint:wrapcheck // the library's own
	}

	if good == 0 {
		return 0, v
	}

	return good, nil
}

// judge returns how many bytes of b break no rule.
func (g *guard) judge(b []byte) (good int, v *wsframe.Violation) {
	for good < len(b) || g.within && g.at == g.frame.Length {
		var n int

		if g.within {
			n, v = g.payload(b[good:])
		} else {
			n, v = g.header(b[good:])
		}

		if v != nil {
			return good, v
		}

		good += n
	}

	return good, nil
}

// header takes bytes of a head.
func (g *guard) header(b []byte) (int, *wsframe.Violation) {
	n := copy(g.head[g.had:], b)

	h, ok, v := wsframe.ParseHeader(g.head[:g.had+n])
	if v != nil {
		return 0, v
	}

	if !ok {
		g.had += n

		return n, nil
	}

	if v := g.check.Frame(&h); v != nil {
		return 0, v
	}

	used := h.Size - g.had
	g.frame, g.within, g.at, g.had = h, true, 0, 0

	return used, nil
}

// payload takes bytes of a payload.
func (g *guard) payload(b []byte) (int, *wsframe.Violation) {
	n := int(min(g.frame.Length-g.at, int64(len(b))))

	switch {
	case g.frame.Op == wsframe.OpClose:
		from := len(g.bye)
		g.bye = append(g.bye, b[:n]...)
		wsframe.Mask(g.bye[from:], g.frame.Key, g.at)
	case g.frame.Op.Control():
	default:
		if v := g.check.Payload(b[:n], g.frame.Key, g.at); v != nil {
			return 0, v
		}
	}

	if g.at += int64(n); g.at < g.frame.Length {
		return n, nil
	}

	g.within = false

	if g.frame.Op == wsframe.OpClose {
		_, _, v := wsframe.ParseClose(g.bye)

		return n, v
	}

	if g.frame.Op.Control() {
		return n, nil
	}

	// What was packed was not looked at here.
	if _, v := g.check.End(&g.frame); v != nil && !g.check.Packed() {
		return n, v
	}

	return n, nil
}
