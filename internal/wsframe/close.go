package wsframe

import (
	"encoding/binary"
	"unicode/utf8"
)

// Code is a close code.
type Code uint16

// Close codes. CodeNone, CodeLost and CodeTLS are never on the wire.
const (
	CodeNormal      Code = 1000
	CodeGoingAway   Code = 1001
	CodeProtocol    Code = 1002
	CodeUnsupported Code = 1003
	CodeNone        Code = 1005 // a close frame without a code
	CodeLost        Code = 1006 // the connection ended without a close frame
	CodeNotUTF8     Code = 1007
	CodePolicy      Code = 1008
	CodeTooBig      Code = 1009
	CodeExtension   Code = 1010
	CodeInternal    Code = 1011
	CodeRestart     Code = 1012
	CodeTryLater    Code = 1013
	CodeBadGateway  Code = 1014
	CodeTLS         Code = 1015
)

// Sendable reports whether a close frame may carry the code: those that the registry defines
// for the wire, and the ranges for libraries (3000) and applications (4000).
func (c Code) Sendable() bool {
	switch {
	case c >= CodeNormal && c <= CodeUnsupported, c >= CodeNotUTF8 && c <= CodeBadGateway:
		return true
	default:
		return c >= 3000 && c <= 4999
	}
}

// ParseClose judges the payload of a close frame.
func ParseClose(payload []byte) (code Code, reason []byte, err *Violation) {
	switch {
	case len(payload) == 0:
		return CodeNone, nil, nil
	case len(payload) == 1:
		return 0, nil, errClose
	}

	code, reason = Code(binary.BigEndian.Uint16(payload)), payload[2:]

	if !code.Sendable() {
		return 0, nil, errCode
	}

	if !utf8.Valid(reason) {
		return 0, nil, errUTF8
	}

	return code, reason, nil
}

// AppendClose appends a whole close frame, masked with key unless it is nil. CodeNone gives one
// without a payload. A reason that does not fit is cut between characters.
func AppendClose(b []byte, code Code, reason string, key *[4]byte) []byte {
	if code == CodeNone {
		return AppendFrame(b, OpClose, nil, key)
	}

	if most := MaxControl - 2; len(reason) > most {
		for most > 0 && !utf8.RuneStart(reason[most]) {
			most--
		}

		reason = reason[:most]
	}

	var payload [MaxControl]byte

	binary.BigEndian.PutUint16(payload[:], uint16(code))
	n := copy(payload[2:], reason)

	return AppendFrame(b, OpClose, payload[:2+n], key)
}
