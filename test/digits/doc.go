// Package digits holds the test of the sample model as a user meets it: pictures that Go's
// own encoders and filters make of the rows that did not train, through the worker's
// pre-processing and ONNX Runtime.
package digits
