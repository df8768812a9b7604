// Package upstream sends calls to instances over pooled HTTP/1.1 connections.
//
// It speaks HTTP/1.1 itself instead of using a general client, because a gateway must know
// what such clients hide: whether a byte was sent, whether a byte came back, whether a
// pooled connection was closed by the worker before it was used. It parses answers more
// strictly than clients do: an answer that two parsers could read differently is garbage.
//
// A Client is the Forwarder of the corridor and opens a Backend per instance, which owns
// the idle connections of that instance. A connection belongs to one call at a time; it goes
// back to the pool only after an answer that was read to its end and did not ask to close.
// Waiting for an instance allocates nothing: instead of arming a callback per request, reads
// wake up every PollEvery and look whether the client is still there.
//
// Client.Run closes connections that were idle too long. A Backend is closed by the pool
// that owns its instance; calls under way go on.
package upstream
