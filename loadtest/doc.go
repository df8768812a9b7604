// Package loadtest measures how a server behaves under a load that is described exactly.
//
// # Model
//
// A Plan says what is sent (a source of requests, possibly a mix), in which shape, and for how long. In a closed
// loop a number of callers each send their next request when the last one is answered. In an open loop requests
// arrive at a rate, whether or not earlier ones were answered, and latency counts from the moment at which
// a request was meant to start: a stall of the server is seen by every request that it delayed. The time
// until a request was really written is reported apart: as schedule error when a connection was free, which is
// the fault of this tool, and as waiting time when none was, which is the fault of the server.
//
// # Packages
//
//   - wire sends and receives; one wire.Loop for each thread.
//   - measure counts, without loss and without locks on the way.
//   - request makes requests: templates, signatures, tensors, forms.
//   - report renders a Report: terminal, JSON, CSV, HTML.
//   - command is the command line.
//
// Run owns the goroutines of one run and returns when all have ended. A Result is plain data.
package loadtest
