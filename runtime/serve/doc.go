// Package serve is the worker's front: one App that answers prediction and V2 requests,
// and the doors that bring them (HTTP here; others through Exchange).
//
// An App borrows its Models and is safe for concurrent use. An Exchange belongs to the
// goroutine that serves it until Serve returns; everything it lends is valid that long only.
// Server owns the listener, the connections and the watcher that notices clients which went away; Run
// blocks until it has drained. State tells /health and readiness what is going on.
package serve
