package wscase

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// Message is a whole message.
type Message struct {
	Op      wsframe.Opcode
	Payload []byte
}

// Case is a conversation. What was sent when Code is 0 breaks no rule: Talk closes it, or it does so itself.
type Case struct {
	Name string
	// Send is written piece by piece, each by itself.
	Send [][]byte
	// Chop, if positive, cuts every piece into writes of that many bytes.
	Chop int
	// Messages have to come back, in this order, and Pongs.
	Messages []Message
	Pongs    [][]byte
	// Code is what the server closes with because a rule was broken.
	Code wsframe.Code
	// Closes: the client's close frame is among Send, and Answer is what the server answers to it.
	Closes bool
	Answer wsframe.Code
}

// side makes frames of one side: those of a client are masked.
type side struct {
	masked bool
	n      uint32
}

func (s *side) frame(op wsframe.Opcode, fin bool, rsv byte, payload []byte) []byte {
	h := wsframe.Header{Op: op, Fin: fin, RSV: rsv << 4, Masked: s.masked, Length: int64(len(payload))}
	if s.masked {
		s.n += 0x9e3779b9
		binary.BigEndian.PutUint32(h.Key[:], s.n)
	}

	b := h.Append(nil)
	at := len(b)
	b = append(b, payload...)

	if s.masked {
		wsframe.Mask(b[at:], h.Key, 0)
	}

	return b
}

func (s *side) text(v string) []byte { return s.frame(wsframe.OpText, true, 0, []byte(v)) }

func (s *side) ping(v string) []byte { return s.frame(wsframe.OpPing, true, 0, []byte(v)) }

func (s *side) pong(v string) []byte { return s.frame(wsframe.OpPong, true, 0, []byte(v)) }

func (s *side) bye(payload ...byte) []byte { return s.frame(wsframe.OpClose, true, 0, payload) }

func (s *side) closing(code wsframe.Code, reason string) []byte {
	return s.bye(append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...)...)
}

// fragments cuts a message; sizes of 0 make one fragment.
func (s *side) fragments(op wsframe.Opcode, payload []byte, size int) [][]byte {
	if size <= 0 || len(payload) == 0 {
		return [][]byte{s.frame(op, true, 0, payload)}
	}

	var out [][]byte

	for piece := range slices.Chunk(payload, size) {
		out = append(out, s.frame(op, false, 0, piece))
		op = wsframe.OpContinuation
	}

	out[len(out)-1][0] |= 0x80

	return out
}

func texts(all ...string) []Message {
	out := make([]Message, 0, len(all))
	for _, v := range all {
		out = append(out, Message{wsframe.OpText, []byte(v)})
	}

	return out
}

func join(pieces ...[]byte) []byte { return slices.Concat(pieces...) }

// Of returns all conversations of a side: a client's frames are masked, a server's are not.
func Of(masked bool) []Case {
	s := &side{masked: masked}

	return slices.Concat(framing(s), pings(s), reserved(s), fragmentation(s), utf8Cases(s), closing(s), large(s))
}

// Broken returns those in which a rule is broken.
func Broken(masked bool) []Case {
	return slices.DeleteFunc(Of(masked), func(c Case) bool { return c.Code == 0 })
}

// framing is group 1: text and binary of all encodings of a length.
func framing(s *side) []Case {
	out := make([]Case, 0, 16)

	for group, op := range map[int]wsframe.Opcode{1: wsframe.OpText, 2: wsframe.OpBinary} {
		for i, size := range []int{0, 125, 126, 127, 128, 65535, 65536, 65536} {
			fill := byte('*')
			if op == wsframe.OpBinary {
				fill = 0xfe
			}

			body := slices.Repeat([]byte{fill}, size)
			c := Case{
				Name: fmt.Sprintf("1.%d.%d", group, i+1), Send: [][]byte{s.frame(op, true, 0, body)}, Messages: []Message{{op, body}},
			}

			if i == 7 {
				c.Chop = 997
			}

			out = append(out, c)
		}
	}

	return out
}

// pings is group 2.
func pings(s *side) []Case {
	bin := "\x00\xff\xfe\xfd\xfc\xfb\x00\xff"
	long := string(slices.Repeat([]byte{0xfe}, 125))

	ten, tenth := make([][]byte, 0, 10), make([][]byte, 0, 10)

	for i := range 10 {
		ten = append(ten, s.ping(fmt.Sprint("payload-", i)))
		tenth = append(tenth, fmt.Append(nil, "payload-", i))
	}

	return []Case{
		{Name: "2.1", Send: [][]byte{s.ping("")}, Pongs: [][]byte{{}}},
		{Name: "2.2", Send: [][]byte{s.ping("Hello, world!")}, Pongs: [][]byte{[]byte("Hello, world!")}},
		{Name: "2.3", Send: [][]byte{s.ping(bin)}, Pongs: [][]byte{[]byte(bin)}},
		{Name: "2.4", Send: [][]byte{s.ping(long)}, Pongs: [][]byte{[]byte(long)}},
		{Name: "2.5", Send: [][]byte{s.ping(long + "x")}, Code: wsframe.CodeProtocol},
		{Name: "2.6", Send: [][]byte{s.ping(long)}, Chop: 1, Pongs: [][]byte{[]byte(long)}},
		{Name: "2.7", Send: [][]byte{s.pong("")}},
		{Name: "2.8", Send: [][]byte{s.pong("unsolicited pong payload")}},
		{Name: "2.9", Send: [][]byte{s.pong("unsolicited"), s.ping("ping payload")}, Pongs: [][]byte{[]byte("ping payload")}},
		{Name: "2.10", Send: [][]byte{join(ten...)}, Pongs: tenth},
		{Name: "2.11", Send: [][]byte{join(ten...)}, Chop: 1, Pongs: tenth},
	}
}

// reserved is groups 3 and 4: reserved bits and opcodes.
func reserved(s *side) []Case {
	const hello = "Hello, world!"

	bad := func(name string, frame []byte) []Case {
		return []Case{
			{Name: name + " alone", Send: [][]byte{frame}, Code: wsframe.CodeProtocol},
			{Name: name + " behind a message", Send: [][]byte{s.text(hello), frame, s.ping("")}, Messages: texts(hello), Code: wsframe.CodeProtocol},
			{Name: name + " in one write", Send: [][]byte{join(s.text(hello), frame, s.ping(""))}, Messages: texts(hello), Code: wsframe.CodeProtocol},
			{Name: name + " by octets", Send: [][]byte{s.text(hello), frame, s.ping("")}, Chop: 1, Messages: texts(hello), Code: wsframe.CodeProtocol},
		}
	}

	var out []Case

	for rsv := byte(1); rsv < 8; rsv++ {
		out = append(out, bad(fmt.Sprintf("3 rsv %d text", rsv), s.frame(wsframe.OpText, true, rsv, []byte(hello)))...)
		out = append(out, bad(fmt.Sprintf("3 rsv %d binary", rsv), s.frame(wsframe.OpBinary, true, rsv, []byte("\x00\xff")))...)
		out = append(out, bad(fmt.Sprintf("3 rsv %d ping", rsv), s.frame(wsframe.OpPing, true, rsv, []byte(hello)))...)
		out = append(out, bad(fmt.Sprintf("3 rsv %d close", rsv), s.frame(wsframe.OpClose, true, rsv, []byte("\x03\xe8")))...)
	}

	for _, op := range []wsframe.Opcode{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		out = append(out, bad(fmt.Sprintf("4 opcode %d empty", op), s.frame(op, true, 0, nil))...)
		out = append(out, bad(fmt.Sprintf("4 opcode %d", op), s.frame(op, true, 0, []byte("reserved opcode payload")))...)
	}

	return out
}
