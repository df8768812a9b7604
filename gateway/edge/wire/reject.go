package wire

import "github.com/sluice-gateway/sluice/internal/fault"

// The reasons to turn a message away. They are values made once, so that a flood of bad
// requests does not allocate; each says what is wrong without repeating what was sent.
//
//nolint:gochecknoglobals // constant values
var (
	errNotHTTP        = fault.New(fault.BadRequest, "The bytes are not an HTTP/1 request.")
	errLineEnd        = fault.New(fault.BadRequest, "Lines of the request must end with CR LF.")
	errRequestLine    = fault.New(fault.BadRequest, "The request line is malformed.")
	errVersion        = fault.New(fault.VersionNotServed, "Only HTTP/1.1 and HTTP/1.0 are served.")
	errMethod         = fault.New(fault.MethodNotAllowed, "The method is not allowed.")
	errLineTooLong    = fault.New(fault.URITooLarge, "")
	errFieldTooLong   = fault.New(fault.HeadersTooLarge, "A header field is too long.")
	errHeadTooLong    = fault.New(fault.HeadersTooLarge, "")
	errTooManyFields  = fault.New(fault.HeadersTooLarge, "The request has too many header fields.")
	errTarget         = fault.New(fault.BadRequest, "The request target has a character that must be percent-encoded.")
	errTargetForm     = fault.New(fault.BadRequest, "The request target must be a path that starts with a slash.")
	errPercent        = fault.New(fault.BadRequest, "The request target has a malformed percent-encoding.")
	errPathHidden     = fault.New(fault.BadRequest, "The path has an encoded slash, backslash or control character.")
	errPathDots       = fault.New(fault.BadRequest, "The path has an empty or a dot segment.")
	errScheme         = fault.New(fault.BadRequest, "The scheme of the request target is not the one of the connection.")
	errUserinfo       = fault.New(fault.BadRequest, "The request target must not have user information.")
	errHostMissing    = fault.New(fault.BadRequest, "The Host header is missing.")
	errHostTwice      = fault.New(fault.BadRequest, "The Host header appears more than once.")
	errHost           = fault.New(fault.BadRequest, "The Host header is malformed.")
	errHostMismatch   = fault.New(fault.BadRequest, "The Host header and the request target name different hosts.")
	errFieldName      = fault.New(fault.BadRequest, "A header field name is malformed.")
	errUnderscore     = fault.New(fault.BadRequest, "A header field name has an underscore.")
	errFieldValue     = fault.New(fault.BadRequest, "A header field value has a control character.")
	errFold           = fault.New(fault.BadRequest, "A header field is folded over several lines.")
	errLength         = fault.New(fault.BadRequest, "The Content-Length header is malformed.")
	errLengthTwice    = fault.New(fault.BadRequest, "The Content-Length header appears more than once.")
	errFraming        = fault.New(fault.BadRequest, "Content-Length and Transfer-Encoding must not appear together.")
	errCoding         = fault.New(fault.BadRequest, "The Transfer-Encoding header is malformed.")
	errCodingUnknown  = fault.New(fault.NotImplemented, "The only transfer coding that is implemented is chunked.")
	errCodingOld      = fault.New(fault.BadRequest, "HTTP/1.0 has no Transfer-Encoding.")
	errExpect         = fault.New(fault.ExpectationFailed, "The only expectation that can be met is 100-continue.")
	errChunk          = fault.New(fault.BadRequest, "The chunked body is malformed.")
	errChunkSize      = fault.New(fault.BadRequest, "A chunk of the body has a malformed size.")
	errChunkExtension = fault.New(fault.BadRequest, "A chunk of the body has a malformed or too long extension.")
	errTrailer        = fault.New(fault.BadRequest, "The trailers of the body are malformed or too long.")
	errChunkOverhead  = fault.New(fault.BadRequest, "The chunks of the body are too small.")
)
