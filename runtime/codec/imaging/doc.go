// Package imaging turns encoded pictures (PNG, JPEG, WebP) into rows of a model input, by
// the stages that spec.Image fixes.
//
// A Pipeline is immutable and safe for concurrent use. A Gate, shared by the pipelines of a
// process, bounds the memory that decoded pictures take at any time; size and format of a
// picture are checked against the limits before any of it is decoded. Only a few rows of
// samples exist beside the decoded picture, whatever its size.
package imaging
