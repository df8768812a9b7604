// Package wire is the request guard of the edge: it decides which HTTP/1 messages are let in.
//
// It is stricter than RFC 9112 wherever two parsers are known to disagree: one form of line end, one
// way to frame a body, one spelling of a path, no ambiguous host. What Head.Parse accepts, fasthttp and
// net/http parse to the same target, host, fields and body length; a fuzz target holds that.
//
// Everything here is a pure function of bytes: no clock, no connection, no allocation while a message
// is acceptable. A Head and a Chunked belong to one connection at a time and refer to the caller's buffer.
package wire
