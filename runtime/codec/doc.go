// Package codec holds what the worker's protocols share: a bounded JSON scanner that writes
// numbers straight into tensor buffers, and the way back from tensors to JSON text.
//
// A Scanner is a value over a byte slice that it never changes and that must outlive it. Nothing
// here starts goroutines or keeps state between calls. Sub-packages: openinference (the V2
// protocol), platform (POST / in JSON and multipart), imaging (pictures to tensors).
package codec
