package request

import (
	"bytes"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/sluice-gateway/sluice/auth/sign"
)

// Source makes requests for one sender. It is not safe for concurrent use.
type Source struct {
	mix     *Mix
	values  values
	base    time.Time
	payload bool // only the payload of messages

	body, target []byte
	builder      sign.Builder
	message      sign.Message
	date, nonce  []byte
	dateOf       int64
	nonces       uint64
	fields       [4]sign.Field
	authz        []byte
	names        [4][]byte // of the signed fields
}

// Source returns a source of whole HTTP requests for a sender.
func (m *Mix) Source(sender int, seed uint64) *Source {
	rng := rand.New(rand.NewPCG(seed, uint64(sender)+1)) //nolint:gosec // a load needs no secrecy

	return &Source{
		mix: m, base: time.Now(), values: values{rng: rng, sender: sender},
		nonces: rand.Uint64(), //nolint:gosec // needs to differ, not to be secret
		names:  [4][]byte{[]byte("content-type"), []byte("host"), []byte(sign.DateHeader), []byte("x-sdk-nonce")},
	}
}

// Messages returns a source of payloads only, for messages on a WebSocket.
func (m *Mix) Messages(sender int, seed uint64) *Source {
	s := m.Source(sender, seed)
	s.payload = true

	return s
}

// Append implements wire.Source.
func (s *Source) Append(dst []byte, now int64) ([]byte, int) {
	i := s.choose()
	c := &s.mix.items[i]

	if c.static != nil && !s.payload {
		return c.static, i
	}

	s.values.seq = s.mix.seq.Add(1) - 1
	s.values.wall = s.base.Add(time.Duration(now))

	if s.payload {
		return c.body.append(dst, &s.values), i
	}

	return s.render(dst, c, &s.values), i
}

func (s *Source) choose() int {
	if len(s.mix.items) == 1 {
		return 0
	}

	n := s.values.rng.IntN(s.mix.total)

	for i := range s.mix.items {
		if n < s.mix.items[i].upto {
			return i
		}
	}

	panic("BUG: weights do not add up")
}

// render appends the whole request.
func (s *Source) render(dst []byte, c *compiled, v *values) []byte {
	s.target = c.target.append(s.target[:0], v)
	s.body = c.body.append(s.body[:0], v)

	dst = append(dst, c.Method...)
	dst = append(dst, ' ')
	dst = append(dst, s.target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, c.Host...)
	dst = append(dst, "\r\n"...)

	dst = appendFields(dst, c, v)

	if c.Signer != nil {
		dst = s.sign(dst, c, v)
	}

	if hasBody(c.Method, len(s.body)) {
		dst = append(dst, "Content-Length: "...)
		dst = strconv.AppendInt(dst, int64(len(s.body)), 10)
		dst = append(dst, "\r\n"...)
	}

	dst = append(dst, "\r\n"...)

	return append(dst, s.body...)
}

func appendFields(dst []byte, c *compiled, v *values) []byte {
	for i := range c.fields {
		dst = append(dst, c.fields[i].name...)
		dst = append(dst, ": "...)
		dst = c.fields[i].value.append(dst, v)
		dst = append(dst, "\r\n"...)
	}

	return dst
}

// sign appends the fields of a signature. The nonce makes each one different, so that a server which
// refuses signatures that it has seen takes them.
func (s *Source) sign(dst []byte, c *compiled, v *values) []byte {
	if unix := v.wall.Unix(); unix != s.dateOf || len(s.date) == 0 {
		s.date, s.dateOf = sign.AppendDate(s.date[:0], v.wall), unix
	}

	s.nonces++
	s.nonce = strconv.AppendUint(s.nonce[:0], s.nonces, 36)

	fields := s.fields[:0]
	if len(c.kind) > 0 {
		fields = append(fields, sign.Field{Name: s.names[0], Value: c.kind})
	}

	fields = append(fields,
		sign.Field{Name: s.names[1], Value: c.host},
		sign.Field{Name: s.names[2], Value: s.date},
		sign.Field{Name: s.names[3], Value: s.nonce},
	)

	path, query, _ := bytes.Cut(s.target, []byte{'?'})
	s.message = sign.Message{Method: c.method, Path: path, Query: query, Fields: fields}
	s.authz = c.Signer.AppendAuthorization(s.authz[:0], &s.builder, &s.message, s.body)

	dst = append(dst, "X-Sdk-Date: "...)
	dst = append(dst, s.date...)
	dst = append(dst, "\r\nX-Sdk-Nonce: "...)
	dst = append(dst, s.nonce...)
	dst = append(dst, "\r\nAuthorization: "...)
	dst = append(dst, s.authz...)

	return append(dst, "\r\n"...)
}
