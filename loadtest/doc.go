// Package loadtest measures how a server behaves under a load that is described exactly.
//
// # Model
//
// A Plan says what is sent (targets with weights), in which shape (closed loop: a number of
// callers, each sends its next request when the last one is answered; open loop: arrivals at a rate,
// whether or not earlier ones were answered), and for how long. In an open loop latency counts from the
// moment at which a request was meant to start, so that a stall of the server, or of this tool, is seen by
// every request that it delayed. The time until the request was really written is reported apart, as schedule error.
//
// # Owners
//
// Run owns one goroutine per connection (closed loop) or per sender (open loop). Each records into its own
// histogram, merged once per tick; nothing is sampled or dropped.
package loadtest
