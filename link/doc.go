// Package link is the multiplexed transport between gateway and worker for small unary calls.
//
// A connection (Unix socket, TCP or TLS) carries many calls at once. Each call has an id; the
// worker answers in any order. Both sides append frames to one buffer per connection, and whoever
// finds nobody writing writes all that is waiting with one system call, so that under load
// many frames share one write, one read and one wake-up.
//
// # Frames
//
// After a preface that agrees on a version, each frame is a little-endian uint32 length of what
// follows, one type byte, and the payload. Types: call, more, answer, cancel, drain, ping, pong. The
// body of a call is at most MaxBody, its method, path and headers together at most MaxHead; anything larger, and
// streams, go over HTTP/1.1. An answer may be longer, up to Config.MaxAnswer: more frames carry it in pieces. A frame that breaks a bound or does not parse ends the connection.
//
// # Promises
//
// Every Do returns exactly once: with the answer, or with an *Error that tells whether the call
// may have reached the worker. A connection on which nothing arrives for Config.DeadAfter (2 s)
// although a ping is out is dead; so is one whose write is stuck as long. A cancelled or expired call sends
// cancel, and a late answer is dropped.
//
// # Owners
//
// Client owns its connections and two goroutines for each (reader, keeper); Close ends them. Server.Serve
// owns one goroutine per connection and a pool of handler goroutines. Request and its slices belong to the handler
// until Respond. A Conn's writer lock is never held while another lock is taken.
package link
