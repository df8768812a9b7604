package wire

// Classes of bytes.
const (
	classToken  = 1 << iota // token: methods and field names, without "_"
	classTarget             // allowed in a request target
	classHost               // allowed in a registered name
	classDigit
	classHex
)

//nolint:gochecknoglobals // a constant table
var class = buildClasses()

func buildClasses() (t [256]uint8) {
	mark := func(set string, bits uint8) {
		for i := range len(set) {
			t[set[i]] |= bits
		}
	}

	for c := range 256 {
		b := byte(c)

		switch {
		case b >= 'a' && b <= 'z', b >= 'A' && b <= 'Z':
			t[c] |= classToken | classTarget | classHost
		case b >= '0' && b <= '9':
			t[c] |= classToken | classTarget | classHost | classDigit | classHex
		}
	}

	mark("abcdefABCDEF", classHex)
	mark("!#$%&'*+-.^`|~", classToken)
	mark("-._~!$&'()*+,;=:@/?%[]", classTarget)
	mark("-._", classHost)

	return t
}

func hexValue(b byte) int {
	switch {
	case b >= '0' && b <= '9':
		return int(b - '0')
	case b >= 'a' && b <= 'f':
		return int(b-'a') + 10
	case b >= 'A' && b <= 'F':
		return int(b-'A') + 10
	default:
		return -1
	}
}

// lower folds one ASCII letter.
func lower(b byte) byte {
	if b >= 'A' && b <= 'Z' {
		return b | 0x20
	}

	return b
}

// equalFold compares b with a word in lower case, ignoring ASCII case.
func equalFold(b []byte, word string) bool {
	if len(b) != len(word) {
		return false
	}

	for i := range b {
		if lower(b[i]) != word[i] {
			return false
		}
	}

	return true
}

// trim removes optional white space (space and tab) at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}

	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}

	return b
}
