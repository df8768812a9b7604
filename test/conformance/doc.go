// Package conformance serves the test models of ONNX and of PyTorch, as Debian's package
// libonnx-testdata has them, through a worker's doors over REST JSON, REST binary and gRPC, and
// compares the answers with those that come with the models. "make conformance" runs it
// over all of them; without SLUICE_CONFORMANCE=all it takes a sample. SLUICE_ONNX_TESTDATA
// names another directory of models.
//
// JSON is left out for values that it has no word for: 16-bit floats, which V2 carries in binary
// only, NaN, infinities, and strings that are not UTF-8.
//
// skip.txt lists the models that are not compared, each with its reason. The list is held
// against what happens: an entry that no longer applies fails the test.
//
// TestOracle asks onnxruntime-node, which npm installs for "make conformance", the same as a worker on
// random inputs. It is skipped where there is no npm.
package conformance
