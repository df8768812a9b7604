// Package edge is the door to the open internet: HTTP and HTTPS listeners, the request guard in
// front of them, error bodies, request ids, the access log, and the drain.
//
// # One connection
//
// Each accepted connection has one goroutine and one conn, which stands between the socket and
// fasthttp. conn reads a head, has gateway/edge/wire judge it, and hands exactly that head to fasthttp; it
// frames the body itself, so that fasthttp never sees bytes that nobody judged and a body is read only
// when the corridor asks for it (which is also when "100 Continue" is sent). Between requests a
// connection that stays idle for Config.ParkAfter leaves fasthttp and gives back all its buffers.
//
// # Owners
//
// Edge owns the listeners, the set of connections, the log writer and the watcher for vanished
// clients; all of them run inside Run and are gone when it returns. A conn owns at most one exchange
// (the Call, its body and its answer), borrowed from a pool from the first byte of a request until
// its answer was written. Listen opens the sockets so that their addresses are known; Run serves.
package edge
