// Package ort runs models with ONNX Runtime. It is the only package that uses cgo.
//
// The shared library is opened at run time, by the binding onnxruntime_go, which runs every
// model whose values it can carry (bound*.go). Models with 16-bit floats or strings, with
// outputs without dimensions, or without inputs run through a shim (shim*.go, shim.c) over the part of the
// library's function table that it needs (api.h). Which of the two is chosen when a model is loaded.
//
// An Engine is safe for concurrent use and lives as long as the process needs it; its
// Sessions must be closed before it. Session.Run may be called from several goroutines. A
// process opens one library; several Engines may share it.
//
// Memory: the inputs of a run are pinned for the length of the run and not copied, unless
// they are misaligned for their element type. Outputs are valid until the release function
// of the run is called.
package ort
