package wsframe

import "encoding/binary"

// UTF8 judges text that arrives in pieces, as soon as a byte makes it invalid. The zero value
// is at the start of a text.
type UTF8 struct {
	need   uint8 // continuation bytes that are still to come
	lo, hi uint8 // what the next one may be; 0, 0 means any continuation byte
}

const highBits = 0x8080808080808080

// Write takes the next bytes, masked with key as from offset in their frame. It returns false
// for good when the text cannot be valid any more.
func (u *UTF8) Write(b []byte, key [4]byte, offset int64) bool {
	wide := wideKey(key, offset)

	for i := 0; i < len(b); {
		// Most text is ASCII: eight bytes at a time. wide falls the same way on every eighth byte.
		if u.need == 0 && i&7 == 0 {
			for len(b)-i >= 8 && (binary.LittleEndian.Uint64(b[i:])^wide)&highBits == 0 {
				i += 8
			}

			if i == len(b) {
				break
			}
		}

		if !u.step(b[i] ^ byte(wide>>(8*(i&7)))) {
			return false
		}

		i++
	}

	return true
}

func (u *UTF8) step(c byte) bool {
	if u.need > 0 {
		lo, hi := uint8(0x80), uint8(0xbf)
		if u.hi != 0 {
			lo, hi = u.lo, u.hi
		}

		if c < lo || c > hi {
			return false
		}

		u.need--
		u.lo, u.hi = 0, 0

		return true
	}

	switch {
	case c < 0x80:
	case c < 0xc2: // continuation bytes and overlong forms
		return false
	case c < 0xe0:
		u.need = 1
	case c < 0xf0:
		u.need = 2

		switch c {
		case 0xe0: // overlong
			u.lo, u.hi = 0xa0, 0xbf
		case 0xed: // surrogates
			u.lo, u.hi = 0x80, 0x9f
		}
	case c < 0xf5:
		u.need = 3

		switch c {
		case 0xf0: // overlong
			u.lo, u.hi = 0x90, 0xbf
		case 0xf4: // above U+10FFFF
			u.lo, u.hi = 0x80, 0x8f
		}
	default:
		return false
	}

	return true
}

// Complete reports whether the text may end here.
func (u *UTF8) Complete() bool { return u.need == 0 }
