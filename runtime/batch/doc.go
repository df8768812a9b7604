// Package batch turns requests into batches and batches into runs of a session.
//
// A Batcher owns one queue, one timer and N executors over one engine.Session, which
// it borrows: whoever loaded the session closes it after the Batcher has stopped.
// Infer may be called from any number of goroutines. docs/batching.md tells how a batch
// is decided on.
//
// Memory: the inputs of a Request belong to the caller. Without Request.Free they are
// read only until Infer returns. With Free they belong to the Batcher until it calls Free,
// once, which may be after Infer returned; that lets a request that runs alone be run
// without a copy. The outputs of a Result alias the memory of the whole batch and are
// valid until Release.
package batch
