package wire

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// unmasked is a frame as a server sends it.
func unmasked(first byte, payload []byte) []byte {
	b := appendFrame(nil, first&0x0f, payload, rand.New(rand.NewPCG(1, 1)))
	b[0] = first

	head := 2

	switch b[1] & 0x7f {
	case 126:
		head = 4
	case 127:
		head = 10
	}

	out := append([]byte{}, b[:head]...)
	out[1] &^= maskBit

	return append(out, payload...)
}

func TestFramesAreReadInPiecesOfAnySize(t *testing.T) {
	t.Parallel()

	for _, n := range []int{0, 1, 125, 126, 65535, 65536} {
		payload := bytes.Repeat([]byte{'p'}, n)
		stream := unmasked(finBit|opPing, []byte("are you there"))
		stream = append(stream, unmasked(opText, payload)...) // a message in two fragments
		stream = append(stream, unmasked(finBit|opPong, nil)...)
		stream = append(stream, unmasked(finBit|opContinue, payload)...)
		stream = append(stream, unmasked(finBit|opClose, nil)...)

		for _, size := range []int{1, 3, 1000, 1 << 20} {
			if n > 1000 && size == 1 {
				continue
			}

			var (
				f      frames
				seen   []found
				length int64
			)

			for at := 0; at < len(stream); {
				k, what, err := f.feed(stream[at:min(at+size, len(stream))])
				if err != nil {
					t.Fatalf("%d bytes in pieces of %d: %v", n, size, err)
				}

				at += k

				if what == foundMessage {
					length = f.bytes
				}

				if what != foundNothing {
					seen = append(seen, what)
				}
			}

			if len(seen) != 3 || seen[0] != foundPing || seen[1] != foundMessage || seen[2] != foundClose || length != int64(2*n) {
				t.Errorf("%d bytes in pieces of %d: %v, %d bytes", n, size, seen, length)
			}
		}
	}
}

func TestFramesThatNoServerMaySend(t *testing.T) {
	t.Parallel()

	for name, b := range map[string][]byte{
		"masked":            appendFrame(nil, opText, []byte("x"), rand.New(rand.NewPCG(1, 1))),
		"reserved bits":     {0x80 | 0x40 | opText, 1, 'x'},
		"fragmented ping":   {opPing, 0},
		"long ping":         {finBit | opPing, 126, 1, 0},
		"length with a bit": {finBit | opText, 127, 0xff, 0, 0, 0, 0, 0, 0, 0},
	} {
		var f frames
		if _, _, err := f.feed(b); !errors.Is(err, ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestMaskIsItsOwnInverse(t *testing.T) {
	t.Parallel()

	for n := range 40 {
		b := bytes.Repeat([]byte{0x5a}, n)
		mask(b, 0x01020304)

		for i := range b {
			if b[i] != 0x5a^byte(uint32(0x01020304)>>(8*(i%4))) {
				t.Fatalf("%d bytes: byte %d is %#x", n, i, b[i])
			}
		}
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(unmasked(finBit|opText, []byte("hello")))
	f.Add([]byte{finBit | opPing, 0, opText, 3, 'a'})
	f.Fuzz(func(t *testing.T, b []byte) {
		var fr frames

		for at := 0; at < len(b); {
			n, what, err := fr.feed(b[at:])
			if err != nil {
				return
			}

			if n == 0 && what == foundNothing {
				t.Fatal("no progress")
			}

			at += n
		}
	})
}
