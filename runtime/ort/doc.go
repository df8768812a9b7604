// Package ort runs models with ONNX Runtime. It is the only package that uses cgo.
//
// The shared library is opened at run time. The package speaks to its C interface through
// a small shim (shim.c) over the part of the function table that it needs (api.h), because
// zero-size tensors, scalars, 16-bit floats, strings with zero bytes, outputs without a copy
// and one crossing into C per run need more than a general binding gives.
//
// An Engine is safe for concurrent use and lives as long as the process needs it; its
// Sessions must be closed before it. Session.Run may be called from several goroutines.
//
// Memory: the inputs of a run are pinned for the length of the run and not copied, unless
// they are misaligned for their element type. Outputs are ONNX Runtime's own memory, valid
// until the release function of the run is called.
package ort
