package wire

import "bytes"

// events reads server-sent events from pieces of any size, as far as timing needs them.
type events struct {
	now   func() int64
	onGap func(now, ns int64)

	first, last int64 // moments of the first and the last event
	count       int64
	failed      bool // an event said that there was an error

	line []byte // the beginning of the line being read
	data bool   // the event being read has data
	skip bool   // that data is an end mark
}

const keepLine = 64

func (e *events) reset() {
	e.first, e.last, e.count = 0, 0, 0
	e.line, e.data, e.skip, e.failed = e.line[:0], false, false, false
}

func (e *events) feed(piece []byte) {
	for len(piece) > 0 {
		i := bytes.IndexByte(piece, '\n')
		part := piece

		if i >= 0 {
			part = piece[:i]
		}

		if room := keepLine - len(e.line); room > 0 {
			e.line = append(e.line, part[:min(room, len(part))]...)
		}

		if i < 0 {
			return
		}

		e.endLine(bytes.TrimRight(e.line, "\r"))
		e.line = e.line[:0]
		piece = piece[i+1:]
	}
}

func (e *events) endLine(line []byte) {
	switch {
	case len(line) == 0:
		if e.data && !e.skip {
			e.event()
		}

		e.data, e.skip = false, false
	case bytes.HasPrefix(line, []byte("data:")):
		value := bytes.TrimLeft(line[5:], " ")
		e.data = true
		e.skip = bytes.Equal(value, []byte("[DONE]"))

		if bytes.HasPrefix(value, []byte(`{"error`)) {
			e.failed = true
		}
	case bytes.HasPrefix(line, []byte("event:")):
		if bytes.Equal(bytes.TrimLeft(line[6:], " "), []byte("error")) {
			e.failed = true
		}
	}
}

func (e *events) event() {
	now := e.now()

	if e.count++; e.count == 1 {
		e.first = now
	} else {
		e.onGap(now, now-e.last)
	}

	e.last = now
}
