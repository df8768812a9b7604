package link

import (
	"bytes"
	"errors"
	"testing"
	"testing/iotest"
)

func FuzzFrames(f *testing.F) {
	var h Header

	h.Add("a", []byte("b"))
	f.Add(appendCall(nil, &callHead{id: 7, method: []byte("GET"), path: []byte("/x"), header: h, body: []byte("hello")}))
	f.Add(appendAnswer(nil, &answerHead{id: 7, status: 200, header: h, body: []byte("hello")}))
	f.Add(appendID(appendLength(nil, 0, frameDrain), framePing, 9))
	f.Fuzz(func(t *testing.T, data []byte) {
		var whole, bytewise [][]byte

		collect := func(into *[][]byte) func(frameType, []byte) error {
			return func(ft frameType, p []byte) error {
				*into = append(*into, append([]byte{byte(ft)}, p...))

				var (
					c callHead
					a answerHead
				)

				switch ft {
				case frameCall:
					if parseCall(p, &c) == nil {
						again := appendCall(nil, &c)
						if !bytes.Equal(again[lengthSize+typeSize:], p) {
							t.Fatal("a call does not survive the round trip")
						}
					}
				case frameAnswer:
					if parseAnswer(p, &a) == nil {
						again := appendAnswer(nil, &a)
						if !bytes.Equal(again[lengthSize+typeSize:], p) {
							t.Fatal("an answer does not survive the round trip")
						}
					}
				case frameCancel, framePing, framePong, frameDrain, frameMore:
				}

				return nil
			}
		}

		err1 := readFrames(bytes.NewReader(data), collect(&whole), nil)
		err2 := readFrames(iotest.OneByteReader(bytes.NewReader(data)), collect(&bytewise), nil)

		if errors.Is(err1, ErrFrame) != errors.Is(err2, ErrFrame) || len(whole) != len(bytewise) {
			t.Fatalf("frames depend on how bytes arrive: %d %v, %d %v", len(whole), err1, len(bytewise), err2)
		}
	})
}

func TestHeaderBounds(t *testing.T) {
	t.Parallel()

	var h Header
	if h.Add("", []byte("x")) || h.Add("big", make([]byte, MaxHead)) {
		t.Fatal("took a pair that it cannot carry")
	}

	for h.Add("name", make([]byte, 1000)) {
	}

	if len(h.buf) > MaxHead || !h.check() {
		t.Fatal("over the bound")
	}
}
