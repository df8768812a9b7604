package request

import (
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"
)

// Template is text with places that differ from request to request:
//
//	{{.Seq}}      number of the request, 0, 1, 2 …, each used once in a run
//	{{.Rand}}     random whole number from 0 to 2⁶³-1; {{.Rand 100}} from 0 to 99
//	{{.Float}}    random number from 0 to 1
//	{{.UUID}}     random UUID
//	{{.Now}}      milliseconds since the epoch
//	{{.Sender}}   number of the sending thread
type Template struct {
	parts []part
}

type kind uint8

const (
	literal kind = iota
	seq
	random
	float
	uuid
	now
	sender
)

type part struct {
	kind  kind
	text  string
	limit int64
}

// ParseTemplate reads a template.
func ParseTemplate(text string) (Template, error) {
	var t Template

	for {
		before, rest, found := cutOpen(text)
		if before != "" {
			t.parts = append(t.parts, part{kind: literal, text: before})
		}

		if !found {
			return t, nil
		}

		action, after, closed := strings.Cut(rest, "}}")
		if !closed {
			return Template{}, errors.New("template: {{ without }}")
		}

		p, err := parseAction(strings.Fields(action))
		if err != nil {
			return Template{}, fmt.Errorf("template: {{%s}}: %w", action, err)
		}

		t.parts = append(t.parts, p)
		text = after
	}
}

// cutOpen finds the next "{{" that is followed by a dot. Other braces are text.
func cutOpen(text string) (before, rest string, found bool) {
	for at := 0; ; {
		i := strings.Index(text[at:], "{{")
		if i < 0 {
			return text, "", false
		}

		if at += i; strings.HasPrefix(strings.TrimLeft(text[at+2:], " "), ".") {
			return text[:at], text[at+2:], true
		}

		at++
	}
}

func parseAction(words []string) (part, error) {
	kinds := map[string]kind{".Seq": seq, ".Rand": random, ".Float": float, ".UUID": uuid, ".Now": now, ".Sender": sender}

	k, ok := kinds[words[0]]
	if !ok {
		return part{}, errors.New("want .Seq, .Rand, .Rand N, .Float, .UUID, .Now or .Sender")
	}

	p := part{kind: k}

	if len(words) == 1 {
		return p, nil
	}

	n, err := strconv.ParseInt(words[1], 10, 64)
	if k != random || len(words) > 2 || err != nil || n < 1 {
		return part{}, errors.New("only .Rand takes an argument, a positive whole number")
	}

	p.limit = n

	return p, nil
}

// Static reports whether every request gets the same text.
func (t *Template) Static() bool {
	for i := range t.parts {
		if t.parts[i].kind != literal {
			return false
		}
	}

	return true
}

// values is what templates are filled with.
type values struct {
	seq    int64
	sender int
	wall   time.Time
	rng    *rand.Rand
}

// Append renders the template.
func (t *Template) append(dst []byte, v *values) []byte {
	for i := range t.parts {
		p := &t.parts[i]

		switch p.kind {
		case literal:
			dst = append(dst, p.text...)
		case seq:
			dst = strconv.AppendInt(dst, v.seq, 10)
		case random:
			if p.limit > 0 {
				dst = strconv.AppendInt(dst, v.rng.Int64N(p.limit), 10)
			} else {
				dst = strconv.AppendInt(dst, v.rng.Int64(), 10)
			}
		case float:
			dst = strconv.AppendFloat(dst, v.rng.Float64(), 'f', 6, 64)
		case uuid:
			dst = appendUUID(dst, v.rng)
		case now:
			dst = strconv.AppendInt(dst, v.wall.UnixMilli(), 10)
		case sender:
			dst = strconv.AppendInt(dst, int64(v.sender), 10)
		}
	}

	return dst
}

// appendUUID appends a random UUID (RFC 9562, version 4).
func appendUUID(dst []byte, rng *rand.Rand) []byte {
	var b [16]byte

	hi, lo := rng.Uint64(), rng.Uint64()

	for i := range 8 {
		b[i], b[8+i] = byte(hi>>(8*i)), byte(lo>>(8*i))
	}

	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80

	for i, part := range [][2]int{{0, 4}, {4, 6}, {6, 8}, {8, 10}, {10, 16}} {
		if i > 0 {
			dst = append(dst, '-')
		}

		dst = hex.AppendEncode(dst, b[part[0]:part[1]])
	}

	return dst
}
