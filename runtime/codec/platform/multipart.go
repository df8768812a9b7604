package platform

import (
	"bytes"
	"context"
	"mime"
	"strings"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
)

const (
	maxParts      = 1000
	maxPartHeader = 8 << 10
)

// part is one part of a form; body aliases the request's.
type part struct {
	name, filename string
	body           []byte
}

// multipart reads a form: files become pictures, other parts hold JSON values.
func (r *Request) multipart(ctx context.Context, params string, body []byte) error {
	_, attrs, err := mime.ParseMediaType("multipart/form-data;" + params)
	if err != nil || attrs["boundary"] == "" || len(attrs["boundary"]) > 200 {
		return fault.New(fault.BadRequest, "The content type multipart/form-data has no usable boundary.")
	}

	form := parts{rest: body, delimiter: []byte("--" + attrs["boundary"])}

	for k := 0; ; k++ {
		p, more, err := form.next()
		if err != nil || !more {
			return err
		}

		if k == maxParts {
			return fault.New(fault.InvalidArgument, "The form has more than %d parts.", maxParts)
		}

		if err := r.part(ctx, p, k); err != nil {
			return err
		}
	}
}

func (r *Request) part(ctx context.Context, p part, k int) error {
	if p.name == "" {
		return fault.New(fault.BadRequest, "Part %d of the form has no name.", k)
	}

	input, ok := r.m.fields[strings.TrimSuffix(p.name, "[]")]
	if !ok {
		return fault.New(fault.InvalidArgument, "The field %q is unknown; the model takes %s.", clip(p.name), r.m.known())
	}

	where := "Field %q"
	args := []any{clip(p.name)}

	if p.filename != "" {
		where += ", file %q"
		args = append(args, clip(p.filename))
	}

	if r.m.pictures[input] != nil {
		if err := r.picture(ctx, input, p.body); err != nil {
			return name(err, where, args...)
		}

		return nil
	}

	var s codec.Scanner

	s.Reset(p.body)

	err := r.numbers(&s, input, p.name)
	if err == nil {
		err = s.End()
	}

	if err != nil {
		return name(err, where, args...)
	}

	return nil
}

// parts cuts a form at its delimiters.
type parts struct {
	rest      []byte
	delimiter []byte
	begun     bool
}

func broken() error {
	return fault.New(fault.BadRequest, "The multipart form is broken off or malformed.")
}

// next returns the next part, or false after the closing delimiter.
func (f *parts) next() (part, bool, error) {
	if !f.begun {
		f.begun = true

		if !f.start() {
			return part{}, false, broken()
		}
	}

	// Right after a delimiter: "--" ends the form, otherwise the line must end here.
	if bytes.HasPrefix(f.rest, []byte("--")) {
		return part{}, false, nil
	}

	f.rest = bytes.TrimLeft(f.rest, " \t")

	var ok bool
	if f.rest, ok = cutLineEnd(f.rest); !ok {
		return part{}, false, broken()
	}

	p, body, err := header(f.rest)
	if err != nil {
		return part{}, false, err
	}

	end := f.find(body)
	if end < 0 {
		return part{}, false, broken()
	}

	p.body = body[:end]
	f.rest = body[end:]
	f.rest, _ = cutLineEnd(f.rest)
	f.rest = f.rest[len(f.delimiter):]

	return p, true, nil
}

// start moves behind the first delimiter, skipping a preamble.
func (f *parts) start() bool {
	if bytes.HasPrefix(f.rest, f.delimiter) {
		f.rest = f.rest[len(f.delimiter):]

		return true
	}

	at := bytes.Index(f.rest, append([]byte("\n"), f.delimiter...))
	if at < 0 {
		return false
	}

	f.rest = f.rest[at+1+len(f.delimiter):]

	return true
}

// find is where the line end before the next delimiter is.
func (f *parts) find(body []byte) int {
	if bytes.HasPrefix(body, f.delimiter) && f.boundaryEnds(body[len(f.delimiter):]) {
		return 0 // an empty body whose line end closed the header
	}

	for from := 0; ; {
		at := bytes.Index(body[from:], f.delimiter)
		if at < 0 {
			return -1
		}

		at += from
		from = at + len(f.delimiter)

		if at == 0 || body[at-1] != '\n' || !f.boundaryEnds(body[from:]) {
			continue
		}

		if at >= 2 && body[at-2] == '\r' {
			return at - 2
		}

		return at - 1
	}
}

// boundaryEnds tells a delimiter from a longer line that begins like it.
func (f *parts) boundaryEnds(after []byte) bool {
	if bytes.HasPrefix(after, []byte("--")) {
		return true
	}

	_, ok := cutLineEnd(bytes.TrimLeft(after, " \t"))

	return ok
}

func cutLineEnd(b []byte) ([]byte, bool) {
	switch {
	case bytes.HasPrefix(b, []byte("\r\n")):
		return b[2:], true
	case bytes.HasPrefix(b, []byte("\n")):
		return b[1:], true
	default:
		return b, false
	}
}

// header reads the header lines of a part.
func header(b []byte) (p part, body []byte, err error) {
	for total := 0; ; {
		line, rest, ok := bytes.Cut(b, []byte("\n"))

		total += len(line)
		if !ok || total > maxPartHeader {
			return p, nil, broken()
		}

		b = rest

		line = bytes.TrimSuffix(line, []byte("\r"))
		if len(line) == 0 {
			return p, b, nil
		}

		key, value, ok := strings.Cut(string(line), ":")
		if !ok {
			return p, nil, broken()
		}

		switch strings.ToLower(strings.TrimSpace(key)) {
		case "content-disposition":
			kind, attrs, err := mime.ParseMediaType(value)
			if err != nil || kind != "form-data" {
				return p, nil, fault.New(fault.BadRequest, "A part of the form has a malformed Content-Disposition.")
			}

			p.name, p.filename = attrs["name"], attrs["filename"]
		case "content-transfer-encoding":
			if enc := strings.ToLower(strings.TrimSpace(value)); enc != "binary" && enc != "8bit" && enc != "7bit" {
				return p, nil, fault.New(fault.BadRequest, "A part of the form has the transfer encoding %q, which is not supported.", clip(enc))
			}
		}
	}
}
