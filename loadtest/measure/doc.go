// Package measure holds what a load test counts: latencies, errors and bytes, for each second and in sum.
//
// A Worker belongs to one goroutine and records without locks and without allocation. Once a second it
// hands what it has to the Collector and goes on with an empty Tick; nothing is sampled and nothing is
// lost: a Tick that cannot be handed over yet is kept and grows. The Collector is safe for concurrent
// use; Collector.Run owns the one goroutine that merges.
package measure
