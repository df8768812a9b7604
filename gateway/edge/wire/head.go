package wire

import (
	"bytes"
	"encoding/binary"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// MaxFields is the most header fields that any Limits may allow.
const MaxFields = 256

// Limits bound the head of a request. All must be positive.
type Limits struct {
	Line   int // request line
	Field  int // one header field
	Head   int // request line and all fields together with their line ends
	Fields int // number of header fields, at most MaxFields
}

// Framing of a body besides a length.
const (
	NoBody  int64 = 0
	Chunked int64 = -1
)

type field struct{ name, colon, value, end uint32 }

// Head is a request head that was let in. All slices refer to the bytes given to Parse.
type Head struct {
	Method, Target []byte
	// Path and Query are cut from Target; Query is without "?", nil if there is none.
	Path, Query []byte
	// Host is the value of the Host header; empty is possible for HTTP/1.0 alone.
	Host []byte
	// Length is the Content-Length, NoBody (0), or Chunked (-1).
	Length int64
	// HTTP10 is set for HTTP/1.0.
	HTTP10 bool
	// Close is set when the client asked to close, or did not ask to keep alive in HTTP/1.0.
	Close bool
	// Expect is set when the client waits for 100 Continue.
	Expect bool
	// Upgrade is set when the client asks for a WebSocket (GET, HTTP/1.1, no body).
	Upgrade bool
	// WebSocket is set when Upgrade names websocket, whatever else is right or wrong; Switch when
	// Connection names upgrade in HTTP/1.1.
	WebSocket, Switch bool

	raw    []byte
	fields [MaxFields]field
	count  int

	seen      uint8
	keepAlive bool
	upgrade   bool // Connection names upgrade
	websocket bool // Upgrade names websocket
}

// Fields that may appear once.
const (
	seenHost = 1 << iota
	seenLength
	seenCoding
	seenExpect
)

// Count is the number of header fields.
func (h *Head) Count() int { return h.count }

// Field returns the i-th header field as it came, the value without white space around it.
func (h *Head) Field(i int) (name, value []byte) {
	f := &h.fields[i]

	return h.raw[f.name:f.colon], h.raw[f.value:f.end]
}

// Get returns the first value of the field with that name in lower case, nil if absent. A present and
// empty value is not nil.
func (h *Head) Get(name string) []byte {
	for i := range h.count {
		f := &h.fields[i]
		if int(f.colon-f.name) == len(name) && equalFold(h.raw[f.name:f.colon], name) {
			return h.raw[f.value:f.end:f.end]
		}
	}

	return nil
}

// Parse reads a whole head, including the empty line at its end, and refuses what is not acceptable.
// scheme is "http" or "https", what the connection speaks. After a refusal the Head holds nothing of use.
func (h *Head) Parse(raw []byte, scheme string, lim *Limits) *fault.Error {
	h.reset(raw)

	if len(raw) > lim.Head {
		if end := bytes.IndexByte(raw, '\n'); end < 0 || end > lim.Line {
			return errLineTooLong
		}

		return errHeadTooLong
	}

	at, err := h.requestLine(lim)
	if err != nil {
		return err
	}

	if err := h.headers(at, lim); err != nil {
		return err
	}

	if err := h.framing(); err != nil {
		return err
	}

	return h.route(scheme)
}

func (h *Head) reset(raw []byte) {
	h.Method, h.Target, h.Path, h.Query, h.Host = nil, nil, nil, nil, nil
	h.Length = NoBody
	h.HTTP10, h.Close, h.Expect, h.Upgrade = false, false, false, false
	h.WebSocket, h.Switch = false, false
	h.raw, h.count, h.seen = raw, 0, 0
	h.keepAlive, h.upgrade, h.websocket = false, false, false
}

// requestLine reads the first line and returns where the second one starts.
func (h *Head) requestLine(lim *Limits) (int, *fault.Error) {
	end := bytes.IndexByte(h.raw, '\n')
	if end < 1 || h.raw[end-1] != '\r' {
		return 0, errLineEnd
	}

	line := h.raw[:end-1]
	if len(line) > lim.Line {
		return 0, errLineTooLong
	}

	first := bytes.IndexByte(line, ' ')
	last := bytes.LastIndexByte(line, ' ')

	if first < 1 || last <= first+1 {
		return 0, errRequestLine
	}

	h.Method, h.Target = line[:first:first], line[first+1:last:last]

	for _, b := range h.Method {
		if class[b]&classToken == 0 && b != '_' {
			return 0, errRequestLine
		}
	}

	if err := h.version(line[last+1:]); err != nil {
		return 0, err
	}

	return end + 1, methodAllowed(h.Method)
}

func (h *Head) version(v []byte) *fault.Error {
	switch string(v) {
	case "HTTP/1.1":
		return nil
	case "HTTP/1.0":
		h.HTTP10 = true

		return nil
	}

	if len(v) == 8 && string(v[:5]) == "HTTP/" && class[v[5]]&classDigit != 0 && v[6] == '.' && class[v[7]]&classDigit != 0 {
		return errVersion
	}

	return errRequestLine
}

func methodAllowed(m []byte) *fault.Error {
	switch string(m) {
	case "GET", "POST", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS":
		return nil
	default:
		return errMethod
	}
}

// headers reads every field from at on, up to the empty line that must end the head.
func (h *Head) headers(at int, lim *Limits) *fault.Error {
	raw := h.raw

	for {
		length := bytes.IndexByte(raw[at:], '\n')
		if length < 1 || raw[at+length-1] != '\r' {
			return errLineEnd
		}

		end := at + length - 1
		if end == at {
			if at+2 != len(raw) {
				return errLineEnd
			}

			return nil
		}

		if end-at > lim.Field {
			return errFieldTooLong
		}

		if h.count >= lim.Fields {
			return errTooManyFields
		}

		if err := h.field(at, end); err != nil {
			return err
		}

		at += length + 1
	}
}

// field reads one line raw[at:end] without its line end.
func (h *Head) field(at, end int) *fault.Error {
	raw := h.raw
	if raw[at] == ' ' || raw[at] == '\t' {
		return errFold
	}

	colon := at
	for colon < end && class[raw[colon]]&classToken != 0 {
		colon++
	}

	if colon == end || raw[colon] != ':' || colon == at {
		if colon < end && raw[colon] == '_' {
			return errUnderscore
		}

		return errFieldName
	}

	value, stop := colon+1, end
	for value < stop && (raw[value] == ' ' || raw[value] == '\t') {
		value++
	}

	for stop > value && (raw[stop-1] == ' ' || raw[stop-1] == '\t') {
		stop--
	}

	if hasControl(raw[value:stop]) {
		return errFieldValue
	}

	h.fields[h.count] = field{uint32(at), uint32(colon), uint32(value), uint32(stop)}
	h.count++

	return h.known(raw[at:colon], raw[value:stop:stop])
}

// hasControl reports a control character other than tab. Eight bytes are looked at together: the
// expression has the high bit of each byte below 0x20 or equal to 0x7f, and may have others after it,
// which the slow check sorts out.
func hasControl(b []byte) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)

	for len(b) >= 8 {
		x := binary.LittleEndian.Uint64(b)
		del := x ^ (0x7f * ones)

		if ((x-0x20*ones)&^x|(del-ones)&^del)&highs != 0 && slowControl(b[:8]) {
			return true
		}

		b = b[8:]
	}

	return slowControl(b)
}

func slowControl(b []byte) bool {
	for _, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return true
		}
	}

	return false
}

// known looks at the fields that frame the message or steer the connection.
func (h *Head) known(name, value []byte) *fault.Error {
	switch len(name) {
	case 4:
		if equalFold(name, "host") {
			return h.host(value)
		}
	case 6:
		if equalFold(name, "expect") {
			return h.expect(value)
		}
	case 7:
		if equalFold(name, "upgrade") {
			h.websocket = h.websocket || wsframe.HasToken(value, "websocket")
		} else if equalFold(name, "trailer") {
			return trailerNames(value)
		}
	case 10:
		if equalFold(name, "connection") {
			h.connection(value)
		}
	case 14:
		if equalFold(name, "content-length") {
			return h.contentLength(value)
		}
	case 17:
		if equalFold(name, "transfer-encoding") {
			return h.coding(value)
		}
	}

	return nil
}

// trailerNames checks the announcement of trailers, which are dropped: they must be names, and not
// of fields that frame a message.
func trailerNames(value []byte) *fault.Error {
	for len(value) > 0 {
		name := value

		if i := bytes.IndexByte(value, ','); i >= 0 {
			name, value = value[:i], value[i+1:]
		} else {
			value = nil
		}

		name = trim(name)
		if equalFold(name, "content-length") || equalFold(name, "transfer-encoding") || equalFold(name, "trailer") {
			return errTrailer
		}

		for _, b := range name {
			if class[b]&classToken == 0 {
				return errTrailer
			}
		}
	}

	return nil
}

func (h *Head) connection(value []byte) {
	for len(value) > 0 {
		token := value

		if i := bytes.IndexByte(value, ','); i >= 0 {
			token, value = value[:i], value[i+1:]
		} else {
			value = nil
		}

		token = trim(token)

		switch {
		case equalFold(token, "close"):
			h.Close = true
		case equalFold(token, "keep-alive"):
			h.keepAlive = true
		case equalFold(token, "upgrade"):
			h.upgrade = true
		}
	}
}

func (h *Head) expect(value []byte) *fault.Error {
	if h.seen&seenExpect != 0 || !equalFold(value, "100-continue") {
		return errExpect
	}

	h.seen |= seenExpect
	h.Expect = true

	return nil
}

// maxLengthDigits keeps a length inside int64.
const maxLengthDigits = 18

func (h *Head) contentLength(value []byte) *fault.Error {
	if h.seen&seenLength != 0 {
		return errLengthTwice
	}

	if len(value) == 0 || len(value) > maxLengthDigits {
		return errLength
	}

	var n int64

	for _, b := range value {
		if class[b]&classDigit == 0 {
			return errLength
		}

		n = n*10 + int64(b-'0')
	}

	h.seen |= seenLength
	h.Length = n

	return nil
}

func (h *Head) coding(value []byte) *fault.Error {
	if h.seen&seenCoding != 0 {
		return errCoding
	}

	h.seen |= seenCoding

	if equalFold(value, "chunked") {
		return nil
	}

	for i, b := range value {
		if class[b]&classToken == 0 && (b != ',' && b != ' ' || i == 0 || i == len(value)-1) {
			return errCoding
		}
	}

	if len(value) == 0 {
		return errCoding
	}

	return errCodingUnknown
}

// framing settles the body and the end of the connection once all fields were seen.
func (h *Head) framing() *fault.Error {
	if h.seen&seenCoding != 0 {
		if h.seen&seenLength != 0 {
			return errFraming
		}

		if h.HTTP10 {
			return errCodingOld
		}

		h.Length = Chunked
	}

	if h.HTTP10 {
		// RFC 9110 10.1.1: an expectation in HTTP/1.0 is ignored.
		h.Expect = false
		h.Close = h.Close || !h.keepAlive
	}

	h.Expect = h.Expect && h.Length != NoBody
	h.WebSocket, h.Switch = h.websocket, h.upgrade && !h.HTTP10
	h.Upgrade = h.WebSocket && h.Switch && h.Length == NoBody && string(h.Method) == "GET"

	return nil
}
