// Package openinference reads and writes the V2 (Open Inference) protocol over REST: JSON
// tensors, the binary tensor extension, raw binary requests, classification. Where the
// public text and Triton differ it follows Triton, whose clients are in use, except that a
// request that does not fit is always the caller's error, never an internal one.
//
// A Request is reusable and owned by one goroutine at a time. Its tensors alias either the
// body that was decoded or the Request's own buffer; both must stay untouched until the
// tensors are no longer read.
package openinference
