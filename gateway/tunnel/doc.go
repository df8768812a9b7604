// Package tunnel relays WebSockets between clients and engines after their handshakes.
//
// A tunnel has two pumps, one for each direction. A pump reads what has arrived, judges it by the
// rules of the protocol, and writes the same bytes to the other end: frames are neither taken apart
// nor put together, masks stay as they are, and no message is ever held as a whole. A write that
// blocks stops the reading, so that the sender feels a slow receiver; the only queue is one buffer
// for each direction. Compressed messages are unpacked beside, piece by piece, because only then
// can text and sizes be judged.
//
// A pump on which nothing happens for a moment gives back its buffer and its goroutine: a poller
// starts it again when bytes arrive. An idle tunnel costs its two sockets and a few hundred bytes.
//
// The Set owns every tunnel from Open on: both connections, the goroutines, and the close handshake
// when an end breaks the rules, falls silent, reads too slowly or is to leave. Run sweeps over all
// tunnels for what is due; nothing has a timer of its own. Done of a Spec is called once, when both
// directions have ended and the engine's connection is closed; the client's connection is then
// left to its owner, who closes it.
//
// Locks: Set.mu and Tunnel.mu are never held while a connection is written to. end.mu is held while
// writing to that end; Tunnel.mu may be taken under it, never the other way round.
package tunnel
