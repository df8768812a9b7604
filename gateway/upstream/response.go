package upstream

import (
	"bytes"
	"context"
	"errors"
	"time"
	"unsafe"

	"github.com/sluice-gateway/sluice/gateway"
)

// Lengths of a body that no header tells.
const (
	untilClose int64 = -1
	chunkedLen int64 = -2
)

// field is a header line: offsets into the head.
type field struct{ n0, n1, v0, v1 int32 }

// response is a parsed head. Its bytes stand at the start of the read buffer.
type response struct {
	status int
	length int64 // of the body, or untilClose, chunkedLen
	close  bool  // the connection ends with this answer
	drains bool  // the worker is going away
	events bool  // text/event-stream
	retry  bool  // Retry-After is there
	fields []field
	named  field // Connection header, if it names anything
}

func (r *response) reset() {
	*r = response{fields: r.fields[:0]}
}

var (
	errGarbage  = errors.New("the instance did not answer in proper HTTP/1.1")
	errHeadSize = errors.New("the head of the answer is too large")
)

const maxFields = 256

// readHead reads and parses heads until one that is not 1xx. begun tells whether a byte came.
func (x *conn) readHead(ctx context.Context, deadline time.Time, noBody bool) (begun bool, err error) {
	for range 8 {
		end, err := x.headEnd(ctx, deadline)
		if err != nil {
			return x.w > 0 || begun, err
		}

		begun = true
		x.resp.reset()

		if err := x.resp.parse(x.rbuf[:end-2], noBody); err != nil {
			return true, err
		}

		x.r = end
		if x.resp.status >= 200 || x.resp.status == 101 && x.req.upgrade {
			return true, nil
		}

		if x.resp.status == 101 {
			return true, errGarbage
		}
		// An interim answer: drop it.
		x.w = copy(x.rbuf, x.rbuf[end:x.w])
		x.r = 0
	}

	return true, errGarbage
}

// headEnd reads until the empty line and returns the offset behind it.
func (x *conn) headEnd(ctx context.Context, deadline time.Time) (int, error) {
	for from := 0; ; {
		if i := bytes.Index(x.rbuf[from:x.w], []byte("\r\n\r\n")); i >= 0 {
			return from + i + 4, nil
		}

		if x.w >= x.host.client.cfg.MaxHead {
			return 0, errHeadSize
		}

		from = max(x.w-3, 0)
		if err := x.fill(ctx, deadline); err != nil {
			return 0, err
		}
	}
}

// parse reads a head that ends with one CRLF.
func (r *response) parse(b []byte, noBody bool) error {
	if err := r.statusLine(b); err != nil {
		return err
	}

	http10 := b[7] == '0'
	length, coded, keep := int64(-1), false, false

	for pos := bytes.IndexByte(b, '\n') + 1; pos < len(b); {
		f, next, err := cutField(b, pos)
		if err != nil {
			return err
		}

		pos = next

		if len(r.fields) == maxFields {
			return errHeadSize
		}

		r.fields = append(r.fields, f)
		value := b[f.v0:f.v1]

		var small [maxKnownName]byte

		name, _ := lowerName(small[:0], b[f.n0:f.n1])
		switch string(name) {
		case "content-length":
			n, ok := parseLength(value)
			if !ok || length >= 0 && n != length {
				return errGarbage
			}

			length = n
		case "transfer-encoding":
			if coded || http10 || !bytes.EqualFold(value, []byte("chunked")) {
				return errGarbage
			}

			coded = true
		case "connection":
			r.named = f
			r.close = r.close || namesHeader(value, []byte("close"))
			keep = keep || namesHeader(value, []byte("keep-alive"))
		case "content-type":
			r.events = hasPrefixFold(value, "text/event-stream")
		case "x-worker-draining":
			r.drains = string(value) == "1"
		case "retry-after":
			r.retry = true
		}
	}

	if coded && length >= 0 {
		return errGarbage
	}

	r.close = r.close || http10 && !keep
	r.setLength(length, coded, noBody)

	return nil
}

func (r *response) setLength(length int64, coded, noBody bool) {
	switch {
	case noBody || r.status == 204 || r.status == 304 || r.status < 200:
		r.length = 0
	case coded:
		r.length = chunkedLen
	case length >= 0:
		r.length = length
	default:
		r.length, r.close = untilClose, true
	}
}

// statusLine reads "HTTP/1.1 200 OK".
func (r *response) statusLine(b []byte) error {
	if len(b) < 14 || string(b[:7]) != "HTTP/1." || b[7] != '0' && b[7] != '1' || b[8] != ' ' {
		return errGarbage
	}

	for _, c := range b[9:12] {
		if c < '0' || c > '9' {
			return errGarbage
		}

		r.status = r.status*10 + int(c-'0')
	}

	if r.status < 100 || r.status > 599 || b[12] != ' ' && b[12] != '\r' {
		return errGarbage
	}

	// The line ends with CRLF and holds no other CR or LF.
	end := bytes.IndexByte(b, '\n')
	if end < 1 || bytes.IndexByte(b[:end], '\r') != end-1 {
		return errGarbage
	}

	return nil
}

// cutField reads the line at pos.
func cutField(b []byte, pos int) (f field, next int, err error) {
	end := bytes.IndexByte(b[pos:], '\n')
	if end < 1 || b[pos+end-1] != '\r' {
		return f, 0, errGarbage
	}

	line := b[pos : pos+end-1]

	colon := bytes.IndexByte(line, ':')
	if colon < 1 || !safeName(line[:colon]) || bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return f, 0, errGarbage
	}

	v0, v1 := colon+1, len(line)
	for v0 < v1 && (line[v0] == ' ' || line[v0] == '\t') {
		v0++
	}

	for v1 > v0 && (line[v1-1] == ' ' || line[v1-1] == '\t') {
		v1--
	}

	f = field{int32(pos), int32(pos + colon), int32(pos + v0), int32(pos + v1)}

	return f, pos + end + 1, nil
}

func parseLength(v []byte) (int64, bool) {
	if len(v) == 0 || len(v) > 18 {
		return 0, false
	}

	var n int64

	for _, c := range v {
		if c < '0' || c > '9' {
			return 0, false
		}

		n = n*10 + int64(c-'0')
	}

	return n, true
}

// copyHeaders gives the end-to-end headers of the answer to the client.
func (x *conn) copyHeaders(out gateway.Out) {
	var named []byte
	if x.resp.named.n1 > 0 {
		named = x.rbuf[x.resp.named.v0:x.resp.named.v1]
	}

	for _, f := range x.resp.fields {
		name := x.rbuf[f.n0:f.n1]

		var small [maxKnownName]byte

		lower, _ := lowerName(small[:0], name)
		if answerEnds(lower) || named != nil && namesHeader(named, name) {
			continue
		}
		// AddHeader copies both, so that the string may share the buffer for the call.
		out.AddHeader(unsafe.String(&name[0], len(name)), x.rbuf[f.v0:f.v1])
	}
}

// answerEnds reports whether a header of an answer does not travel further.
func answerEnds(lower []byte) bool {
	switch string(lower) {
	case "connection", "keep-alive", "proxy-connection", "proxy-authenticate", "te", "trailer", "transfer-encoding",
		"upgrade", "content-length", "date", "server", "x-worker-draining",
		"x-request-id", "x-sluice-model", "x-sluice-instance", "x-sluice-rule":
		return true
	default:
		return false
	}
}
