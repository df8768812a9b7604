package upstream

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/gateway"
	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// request is the state of writing one request's head.
type request struct {
	named []byte // the client's Connection header: it may name further headers to drop
	trace bool   // a traceparent of the client went along

	upgrade bool           // a WebSocket is asked for
	key     string         // of its handshake
	offers  wsframe.Offers // for compression
	asked   []byte         // subprotocols, as the client named them
	origin  []byte         // in place of the client's, if that is the host it called
}

// writeHead puts the request head into wbuf.
func (x *conn) writeHead(c *gateway.Call, a *gateway.Attempt) {
	b := x.wbuf[:0]
	b = append(b, c.Method...)
	b = append(b, ' ')
	b = append(b, x.host.fixed.prefix...)
	b = append(b, a.Path...)

	if len(c.Query) > 0 {
		b = append(b, '?')
		b = append(b, c.Query...)
	}

	b = append(b, " HTTP/1.1\r\nHost: "...)
	b = append(b, x.host.name...)
	b = append(b, "\r\n"...)
	b = append(b, x.host.fixed.lines...)
	x.wbuf = b

	x.req = request{named: c.Header.Get("connection")}
	if c.Upgrade != nil {
		x.beginUpgrade(c)
	}

	c.Header.Each(x.addHeader)

	b = x.wbuf
	b = append(b, "X-Request-Id: "...)
	b = append(b, c.ID...)
	b = append(b, "\r\nX-Forwarded-For: "...)
	b = c.Remote.Addr().AppendTo(b)
	b = append(b, "\r\nX-Forwarded-Proto: "...)

	if c.TLS {
		b = append(b, "https"...)
	} else {
		b = append(b, "http"...)
	}

	if safeValue(c.Host) && len(c.Host) > 0 {
		b = append(b, "\r\nX-Forwarded-Host: "...)
		b = append(b, c.Host...)
	}

	if !x.req.trace {
		b = append(b, "\r\nTraceparent: "...)
		b = appendTraceparent(b)
	}

	if x.req.upgrade {
		x.wbuf = append(x.req.appendUpgrade(b), "\r\n\r\n"...)

		return
	}

	b = append(b, "\r\nX-Sluice-Timeout-Ms: "...)
	b = strconv.AppendInt(b, max(time.Until(a.Deadline).Milliseconds(), 1), 10)
	b = appendLength(b, c, a)
	b = append(b, "\r\n\r\n"...)
	x.wbuf = b
}

// appendLength says how long the body is.
func appendLength(b []byte, c *gateway.Call, a *gateway.Attempt) []byte {
	length := int64(len(a.Body))
	if a.Stream != nil {
		length = a.Length
	}

	switch {
	case length < 0:
		return append(b, "\r\nTransfer-Encoding: chunked"...)
	case length > 0 || string(c.Method) == "POST" || string(c.Method) == "PUT" || string(c.Method) == "PATCH":
		b = append(b, "\r\nContent-Length: "...)

		return strconv.AppendInt(b, length, 10)
	default:
		return b
	}
}

// appendTraceparent begins a trace of our own.
func appendTraceparent(b []byte) []byte {
	var id [24]byte

	for i := 0; i < len(id); i += 8 {
		binary.BigEndian.PutUint64(id[i:], rand.Uint64()|1) //nolint:gosec // an id, not a secret
	}

	b = append(b, "00-"...)
	b = hex.AppendEncode(b, id[:16])
	b = append(b, '-')
	b = hex.AppendEncode(b, id[16:])

	return append(b, "-01"...)
}

// forwardHeader adds a header of the client, unless it ends here.
func (x *conn) forwardHeader(name, value []byte) bool {
	var small [maxKnownName]byte

	lower, twin := lowerName(small[:0], name)

	switch class := classify(lower); {
	case class == ends, class == forwarded && twin:
		return true
	case class == signature && isSignature(value):
		return true
	case class == traced:
		if twin || x.req.trace || !validTraceparent(value) {
			return true
		}

		x.req.trace = true
	case class == handshake && x.req.upgrade:
		x.req.take(lower, value)

		return true
	case x.req.origin != nil && string(lower) == "origin":
		value = x.req.origin
	}

	if len(x.req.named) > 0 && namesHeader(x.req.named, name) || !safeValue(value) || !safeName(name) {
		return true
	}

	if len(x.host.fixed.names) > 0 {
		if _, ours := x.host.fixed.names[string(lower)]; ours {
			return true
		}
	}

	b := x.wbuf
	b = append(b, name...)
	b = append(b, ": "...)
	b = append(b, value...)
	b = append(b, "\r\n"...)
	x.wbuf = b

	return true
}

type headerClass uint8

const (
	plain     headerClass = iota
	ends                  // does not travel further
	forwarded             // travels, but its underscore twin does not
	signature             // Authorization: ends here if it is a scheme of ours
	traced                // traceparent
	handshake             // of a WebSocket: each hop has its own
)

const maxKnownName = 32

// lowerName folds name for classification, underscores to hyphens. A name longer than any
// known one gives nil.
func lowerName(dst, name []byte) (lower []byte, twin bool) {
	if len(name) > maxKnownName {
		return nil, false
	}

	for _, c := range name {
		switch {
		case 'A' <= c && c <= 'Z':
			c |= 0x20
		case c == '_':
			c, twin = '-', true
		}

		dst = append(dst, c)
	}

	return dst, twin
}

// classify says what becomes of a header of the client.
func classify(lower []byte) headerClass {
	switch string(lower) {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization", "proxy",
		"te", "trailer", "trailers", "transfer-encoding", "upgrade", "http2-settings", "expect", "content-length", "host",
		"x-auth-token", "x-security-token", "x-apig-appcode", "apikey",
		"x-request-id", "forwarded", "x-real-ip", "x-worker-draining":
		return ends
	case "authorization":
		return signature
	case "traceparent":
		return traced
	case "sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol", "sec-websocket-accept":
		return handshake
	case "x-sluice-explain", "content-type", "content-encoding", "cookie", "tracestate":
		return forwarded
	}

	if bytes.HasPrefix(lower, []byte("x-forwarded-")) || bytes.HasPrefix(lower, []byte("x-sluice-")) {
		return ends
	}

	return plain
}

// isSignature reports whether an Authorization header is one of our signing schemes.
func isSignature(value []byte) bool {
	scheme, _, _ := bytes.Cut(value, []byte{' '})

	return hasPrefixFold(scheme, "sdk-") || hasPrefixFold(scheme, "v11-")
}

func hasPrefixFold(b []byte, prefix string) bool {
	return len(b) >= len(prefix) && bytes.EqualFold(b[:len(prefix)], []byte(prefix))
}

// namesHeader reports whether a Connection header lists name.
func namesHeader(list, name []byte) bool {
	for len(list) > 0 {
		var item []byte

		item, list, _ = bytes.Cut(list, []byte{','})
		if bytes.EqualFold(bytes.TrimSpace(item), name) {
			return true
		}
	}

	return false
}

// validTraceparent knows version 00 of the W3C header.
func validTraceparent(v []byte) bool {
	if len(v) != 55 || string(v[:3]) != "00-" || v[35] != '-' || v[52] != '-' {
		return false
	}

	zero := true

	for i, c := range v[3:] {
		if i == 32 || i == 49 {
			if zero {
				return false
			}

			zero = true

			continue
		}

		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}

		zero = zero && c == '0'
	}

	return true
}

func safeValue(v []byte) bool {
	return bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 && bytes.IndexByte(v, 0) < 0
}

// safeName reports whether name is a token.
func safeName(name []byte) bool {
	for _, c := range name {
		if !tokenByte(c) {
			return false
		}
	}

	return len(name) > 0
}

func tokenByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	default:
		return bytes.IndexByte([]byte("!#$%&'*+-.^_`|~"), c) >= 0
	}
}
