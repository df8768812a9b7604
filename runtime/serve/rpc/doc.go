// Package rpc is the gRPC door of a worker: the V2 protocol as clients of Triton speak it, with
// reflection and the standard health service, over the same App as the HTTP door.
//
// Server owns its listener's connections and streams; Run blocks until it has drained.
package rpc
