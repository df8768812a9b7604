// Package wire sends requests and reads answers as fast as one thread can: HTTP/1.1 and WebSocket, in clear
// and over TLS, over TCP and Unix sockets.
//
// A Loop owns one operating system thread, its connections and its histograms (a measure.Worker). It writes
// a request when the schedule says so, or, in a closed loop, when a connection is free; it waits for sockets
// and for the next moment of the schedule in one system call whose precision is that of the kernel's high
// resolution timers. Nothing on this path allocates or takes a lock. Connections are made on goroutines of
// their own, because name resolution and handshakes block; the Loop waits for them before it returns.
//
// Redirects are not followed, and no request is sent twice.
package wire
