// Package platform reads and writes the platform's own prediction format, POST /: JSON
// objects, {"data":{"req_data":[...]}}, multipart forms and bare pictures in; labels, scores
// and tensors by name out.
//
// A Model is compiled once from the meta data of a loaded version, is immutable and safe for
// concurrent use. A Request belongs to one goroutine; its tensors hold its own memory.
package platform
