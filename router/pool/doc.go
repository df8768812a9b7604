// Package pool holds the live state of the instances of one model version and picks one
// of them for a request.
//
// A Pool outlives snapshots: plan compilation calls Update with the newest list of
// instances, and an instance that stays (same id, same address) keeps its in-flight count,
// latency, breaker and connections. The list itself is an immutable slice behind one atomic
// pointer, so that picking takes no lock and allocates nothing; only a request that has to
// wait for capacity, and the breaker of an instance that has failed, use a mutex.
//
// Acquire fills a Lease; its holder calls Lease.Done exactly once. An Endpoint that left
// the list keeps serving the leases that are out and closes its Backend's idle connections.
// A Pool has no goroutines; Close releases its endpoints.
package pool
