package wscase

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sluice-gateway/sluice/internal/wsframe"
)

// fragmentation is group 5.
func fragmentation(s *side) []Case {
	const (
		start = wsframe.OpText
		cont  = wsframe.OpContinuation
	)

	f := func(op wsframe.Opcode, fin bool, v string) []byte { return s.frame(op, fin, 0, []byte(v)) }

	whole := texts("fragment1fragment2")
	two := [][]byte{f(start, false, "fragment1"), f(cont, true, "fragment2")}
	pinged := [][]byte{two[0], s.ping("ping payload"), two[1]}
	pong := [][]byte{[]byte("ping payload")}
	many := [][]byte{
		f(start, false, "fragment1"), f(cont, false, "fragment2"), s.ping("pongme 1!"),
		f(cont, false, "fragment3"), f(cont, false, "fragment4"), s.ping("pongme 2!"), f(cont, true, "fragment5"),
	}
	manyPongs := [][]byte{[]byte("pongme 1!"), []byte("pongme 2!")}
	manyText := texts("fragment1fragment2fragment3fragment4fragment5")
	hello := s.text("Hello, world!")

	out := []Case{ //nolint:prealloc // a list to be read
		{Name: "5.1", Send: [][]byte{f(wsframe.OpPing, false, "fragment1"), f(cont, true, "fragment2")}, Code: wsframe.CodeProtocol},
		{Name: "5.2", Send: [][]byte{f(wsframe.OpPong, false, "fragment1"), f(cont, true, "fragment2")}, Code: wsframe.CodeProtocol},
		{Name: "5.3", Send: [][]byte{join(two...)}, Messages: whole},
		{Name: "5.4", Send: two, Messages: whole},
		{Name: "5.5", Send: two, Chop: 1, Messages: whole},
		{Name: "5.6", Send: [][]byte{join(pinged...)}, Messages: whole, Pongs: pong},
		{Name: "5.7", Send: pinged, Messages: whole, Pongs: pong},
		{Name: "5.8", Send: pinged, Chop: 1, Messages: whole, Pongs: pong},
		{Name: "5.15", Send: [][]byte{join(two...), f(cont, false, "fragment3"), f(start, true, "fragment4")}, Messages: whole, Code: wsframe.CodeProtocol},
		{Name: "5.16", Send: [][]byte{f(cont, false, "fragment1"), f(start, false, "fragment2"), f(cont, true, "fragment3")}, Code: wsframe.CodeProtocol},
		{Name: "5.17", Send: [][]byte{f(cont, true, "fragment1"), f(start, false, "fragment2"), f(cont, true, "fragment3")}, Code: wsframe.CodeProtocol},
		{Name: "5.18", Send: [][]byte{f(start, false, "fragment1"), f(start, true, "fragment2")}, Code: wsframe.CodeProtocol},
		{Name: "5.18 binary", Send: [][]byte{f(start, false, "fragment1"), f(wsframe.OpBinary, true, "fragment2")}, Code: wsframe.CodeProtocol},
		{Name: "5.19", Send: many, Messages: manyText, Pongs: manyPongs},
		{Name: "5.20", Send: [][]byte{join(many...)}, Messages: manyText, Pongs: manyPongs},
		{Name: "5 close in fragments", Send: [][]byte{f(wsframe.OpClose, false, "\x03"), f(cont, true, "\xe8")}, Code: wsframe.CodeProtocol},
		{Name: "5 empty fragments", Send: [][]byte{f(start, false, ""), f(cont, false, ""), f(cont, false, "x"), f(cont, true, "")}, Messages: texts("x")},
	}

	// 5.9 to 5.14: nothing to continue.
	for _, fin := range []bool{true, false} {
		orphan := f(cont, fin, "non-continuation payload")

		for chop := range 2 {
			out = append(out,
				Case{Name: fmt.Sprintf("5.9 fin %v chop %d", fin, chop), Send: [][]byte{orphan, hello}, Chop: chop, Code: wsframe.CodeProtocol},
				Case{Name: fmt.Sprintf("5.10 fin %v chop %d", fin, chop), Send: [][]byte{join(orphan, hello)}, Chop: chop, Code: wsframe.CodeProtocol})
		}
	}

	return out
}

// valid and invalid texts of group 6, which follows Markus Kuhn's list.
//
//nolint:gochecknoglobals // constant
var (
	goodTexts = []string{
		"", "Hello-µ@ßöäüàá-UTF-8!!", "κόσμε", "\x00", "\u0080", "\u0800", "\U00010000", "\x7f", "\u07ff", "\uffff", "\U0010ffff",
		"\xed\x9f\xbf", "\ue000", "\ufffd", "\ufffe", "\ufff9\ufffa\ufffb\ufffc\ufffd", "\U0001fffe", "\U0001ffff", "\U0010fffe",
		strings.Repeat("a", 7) + "€" + strings.Repeat("b", 20),
	}
	badTexts = []string{
		"\xce", "\xce\xba\xe1", "\xce\xba\xe1\xbd", "\xf8\x88\x80\x80\x80", "\xfc\x84\x80\x80\x80\x80",
		"\xf7\xbf\xbf\xbf", "\xfb\xbf\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf\xbf", "\xf4\x90\x80\x80",
		"\x80", "\xbf", "\x80\xbf", "\x80\xbf\x80", "\x80\xbf\x80\xbf\x80\xbf", "\xc0 \xc1 \xc2 ", "\xe0 \xe1 ", "\xf0 \xf1 ",
		"\xf8 \xf9 ", "\xfc \xfd ", "\xc0", "\xe0\x80", "\xf0\x80\x80", "\xf8\x80\x80\x80", "\xfc\x80\x80\x80\x80", "\xdf", "\xef\xbf",
		"\xf7\xbf\xbf", "\xfb\xbf\xbf\xbf", "\xfd\xbf\xbf\xbf\xbf", "\xfe", "\xff", "\xfe\xfe\xff\xff",
		"\xc0\xaf", "\xe0\x80\xaf", "\xf0\x80\x80\xaf", "\xf8\x80\x80\x80\xaf", "\xfc\x80\x80\x80\x80\xaf",
		"\xc1\xbf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xf8\x87\xbf\xbf\xbf", "\xfc\x83\xbf\xbf\xbf\xbf",
		"\xc0\x80", "\xe0\x80\x80", "\xf0\x80\x80\x80", "\xf8\x80\x80\x80\x80",
		"\xed\xa0\x80", "\xed\xad\xbf", "\xed\xae\x80", "\xed\xaf\xbf", "\xed\xb0\x80", "\xed\xbe\x80", "\xed\xbf\xbf",
		"\xed\xa0\x80\xed\xb0\x80", "\xed\xaf\xbf\xed\xbf\xbf",
		"κόσμε\xed\xa0\x80edited", strings.Repeat("long ", 4000) + "\xff", strings.Repeat("€", 6000) + "\xe2\x82",
	}
)

// utf8Cases is group 6.
func utf8Cases(s *side) []Case {
	var out []Case

	for i, v := range goodTexts {
		out = append(out, Case{Name: fmt.Sprint("6 valid ", i), Send: [][]byte{s.text(v)}, Messages: texts(v)})

		if v != "" {
			out = append(out,
				Case{Name: fmt.Sprint("6 valid in fragments ", i), Send: s.fragments(wsframe.OpText, []byte(v), 1), Messages: texts(v)},
				Case{Name: fmt.Sprint("6 valid by octets ", i), Send: [][]byte{s.text(v)}, Chop: 1, Messages: texts(v)})
		}
	}

	for i, v := range badTexts {
		out = append(out,
			Case{Name: fmt.Sprint("6 invalid ", i), Send: [][]byte{s.text(v)}, Code: wsframe.CodeNotUTF8},
			Case{
				Name: fmt.Sprint("6 invalid in fragments ", i), Code: wsframe.CodeNotUTF8,
				Send: s.fragments(wsframe.OpText, []byte(v), max(1, len(v)/64)),
			},
			Case{Name: fmt.Sprint("6 binary ", i), Send: [][]byte{s.frame(wsframe.OpBinary, true, 0, []byte(v))}, Messages: []Message{{wsframe.OpBinary, []byte(v)}}})
	}

	return append(out, failFast(s)...)
}

// failFast is 6.4: text that is invalid whatever follows is refused before the rest has come.
func failFast(s *side) []Case {
	const (
		good   = "κόσμε"
		broken = "\xf4\x90"
	)

	begun := s.frame(wsframe.OpText, false, 0, []byte(good))
	all := s.text(good + broken + "\x80\x80edited")

	return []Case{
		{Name: "6.4.1", Send: [][]byte{begun, s.frame(wsframe.OpContinuation, false, 0, []byte(broken+"\x80\x80"))}, Code: wsframe.CodeNotUTF8},
		{Name: "6.4.2", Send: [][]byte{begun, s.frame(wsframe.OpContinuation, false, 0, []byte(broken))}, Code: wsframe.CodeNotUTF8},
		{Name: "6.4.3", Send: [][]byte{all[:len(all)-len("edited")]}, Code: wsframe.CodeNotUTF8},
		{Name: "6.4.4", Send: [][]byte{all[:len(all)-len("\x80\x80edited")]}, Code: wsframe.CodeNotUTF8},
		{Name: "6.4.4 by octets", Send: [][]byte{all[:len(all)-len("\x80\x80edited")]}, Chop: 1, Code: wsframe.CodeNotUTF8},
	}
}

// closing is group 7.
func closing(s *side) []Case {
	const normal = wsframe.CodeNormal

	bye := s.closing(normal, "")
	big := slices.Repeat([]byte("BAsd7&jh23"), 26<<10)

	out := []Case{
		{Name: "7.1.1", Send: [][]byte{s.text("Hello World!")}, Messages: texts("Hello World!")},
		{Name: "7.1.2", Send: [][]byte{bye, bye}, Closes: true, Answer: normal},
		{Name: "7.1.3", Send: [][]byte{bye, s.ping("")}, Closes: true, Answer: normal},
		{Name: "7.1.4", Send: [][]byte{bye, s.text("Hello World!")}, Closes: true, Answer: normal},
		{
			Name: "7.1.5", Closes: true, Answer: normal,
			Send: [][]byte{s.frame(wsframe.OpText, false, 0, []byte("fragment1")), bye, s.frame(wsframe.OpContinuation, true, 0, []byte("fragment2"))},
		},
		{
			Name: "7.1.6", Send: [][]byte{s.text(string(big)), s.text("Hello World!"), bye, s.ping("")}, Closes: true, Answer: normal,
			Messages: texts(string(big), "Hello World!"),
		},
		{Name: "7.3.1", Send: [][]byte{s.bye()}, Closes: true, Answer: wsframe.CodeNone},
		{Name: "7.3.2", Send: [][]byte{s.bye('a')}, Code: wsframe.CodeProtocol},
		{Name: "7.3.3", Send: [][]byte{bye}, Closes: true, Answer: normal},
		{Name: "7.3.4", Send: [][]byte{s.closing(normal, "Hello World!")}, Closes: true, Answer: normal},
		{Name: "7.3.5", Send: [][]byte{s.closing(normal, strings.Repeat("*", 123))}, Closes: true, Answer: normal},
		{Name: "7.3.6", Send: [][]byte{s.closing(normal, strings.Repeat("*", 124))}, Code: wsframe.CodeProtocol},
		{Name: "7.5.1", Send: [][]byte{s.closing(normal, "κόσμε\xed\xa0\x80edited")}, Code: wsframe.CodeNotUTF8},
	}

	for _, code := range []wsframe.Code{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 3000, 3999, 4000, 4999} {
		out = append(out, Case{Name: fmt.Sprint("7.7 ", code), Send: [][]byte{s.closing(code, "")}, Closes: true, Answer: code})
	}

	for _, code := range []wsframe.Code{0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		out = append(out, Case{Name: fmt.Sprint("7.9 ", code), Send: [][]byte{s.closing(code, "")}, Code: wsframe.CodeProtocol})
	}

	return append(out, lengths(s)...)
}

// lengths are heads that encode a length in a way that is not allowed, which Autobahn has no group for.
func lengths(s *side) []Case {
	var bit byte
	if s.masked {
		bit = 0x80
	}

	key := func(b ...byte) []byte {
		if s.masked {
			b = append(b, 0, 0, 0, 0)
		}

		return b
	}

	wrong := s.frame(wsframe.OpText, true, 0, []byte("x"))
	other := (&side{masked: !s.masked}).text("x")

	return []Case{
		{Name: "length of 16 bits for 125", Send: [][]byte{key(0x82, bit|126, 0, 125)}, Code: wsframe.CodeProtocol},
		{Name: "length of 64 bits for 65535", Send: [][]byte{key(0x82, bit|127, 0, 0, 0, 0, 0, 0, 0xff, 0xff)}, Code: wsframe.CodeProtocol},
		{Name: "length with its highest bit", Send: [][]byte{key(0x82, bit|127, 0x80, 0, 0, 0, 0, 0, 0, 0)}, Code: wsframe.CodeProtocol},
		{Name: "mask of the other side", Send: [][]byte{wrong, other}, Messages: texts("x"), Code: wsframe.CodeProtocol},
		{Name: "ping with a long length", Send: [][]byte{key(0x89, bit|126, 0, 5)}, Code: wsframe.CodeProtocol},
	}
}

// large is groups 9 and 10: messages up to 4 MiB, whole, in fragments and in small writes, and many of them.
func large(s *side) []Case {
	var out []Case

	for _, op := range []wsframe.Opcode{wsframe.OpText, wsframe.OpBinary} {
		add := func(name string, size, fragment, chop int) {
			body := slices.Repeat([]byte("BAsd7&jh"), size/8)
			out = append(out, Case{
				Name: fmt.Sprintf("%s of %d with opcode %d, %d a fragment, %d a write", name, size, op, fragment, chop),
				Send: [][]byte{join(s.fragments(op, body, fragment)...)}, Chop: chop, Messages: []Message{{op, body}},
			})
		}

		for _, size := range []int{64 << 10, 256 << 10, 1 << 20, 4 << 20} {
			add("9.1", size, 0, 0)
		}

		for _, fragment := range []int{64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10} {
			add("9.3", 1<<20, fragment, 0)
		}

		for _, chop := range []int{64, 256, 1 << 10, 2 << 10} {
			add("9.5", 128<<10, 0, chop)
		}

		add("10.1.1", 64<<10, 1300, 0)

		for _, size := range []int{0, 16, 64, 256, 1 << 10, 4 << 10} {
			c := Case{Name: fmt.Sprintf("9.7 200 messages of %d with opcode %d", size, op)}
			body := slices.Repeat([]byte("x"), size)

			for range 200 {
				c.Send = append(c.Send, s.frame(op, true, 0, body))
				c.Messages = append(c.Messages, Message{op, body})
			}

			out = append(out, c)
		}
	}

	return out
}
