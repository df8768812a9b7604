// Package engine is the contract between the worker and whatever runs a model.
//
// An Engine loads a model file into a Session. A Session is owned by whoever loaded it
// and must be closed exactly once, after the last Run returned. Run may be called from
// several goroutines. Implementations: runtime/ort (ONNX Runtime) and
// runtime/engine/enginetest (a fake); both pass enginetest.Suite.
package engine

import "context"

// DataType is the element type of a tensor, named as in the Open Inference Protocol.
type DataType uint8

// The element types of the Open Inference Protocol (BF16 is Triton's addition).
const (
	Invalid DataType = iota
	Bool
	Uint8
	Uint16
	Uint32
	Uint64
	Int8
	Int16
	Int32
	Int64
	FP16
	FP32
	FP64
	BF16
	Bytes
)

// String is the name on the wire, such as "FP32".
func (d DataType) String() string {
	if int(d) < len(typeNames) {
		return typeNames[d]
	}

	return "INVALID"
}

// Size is the number of bytes of one element; 0 for Bytes and Invalid.
func (d DataType) Size() int {
	if int(d) < len(typeSizes) {
		return typeSizes[d]
	}

	return 0
}

// ParseDataType returns Invalid for a name that is not in the protocol.
func ParseDataType(name string) DataType {
	for i, n := range typeNames {
		if n == name && i != int(Invalid) {
			return DataType(i)
		}
	}

	return Invalid
}

//nolint:gochecknoglobals // constant tables indexed by DataType
var (
	typeNames = [...]string{
		"INVALID", "BOOL", "UINT8", "UINT16", "UINT32", "UINT64",
		"INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16", "BYTES",
	}
	typeSizes = [...]int{0, 1, 1, 2, 4, 8, 1, 2, 4, 8, 2, 4, 8, 2, 0}
)

// Info describes one input or output of a model.
type Info struct {
	Name string
	Type DataType
	// Shape holds -1 for each dimension that may vary. A scalar has an empty Shape.
	Shape []int64
	// Names holds the symbolic name of each dimension, "" where it has none. May be nil.
	Names []string
}

// Tensor is a dense row-major tensor. Data is little-endian without padding. For Bytes,
// Data is the protocol's binary form: per element a uint32 length and then the bytes.
// Data may alias a buffer that somebody else owns; the producer says for how long.
type Tensor struct {
	Name  string
	Type  DataType
	Shape []int64
	Data  []byte
}

// Elements is the product of shape; 1 for a scalar, 0 if any dimension is 0.
// It returns -1 if a dimension is negative or the product overflows.
func Elements(shape []int64) int64 {
	const limit = int64(1) << 40

	n := int64(1)
	zero := false

	for _, d := range shape {
		switch {
		case d < 0:
			return -1
		case d == 0:
			zero = true
		case n > limit/d:
			if !zero {
				n = -1
			}
		default:
			if n > 0 {
				n *= d
			}
		}
	}

	if zero {
		return 0
	}

	return n
}

// LoadSpec tells an engine what to load and how to run it.
type LoadSpec struct {
	// Path of the model file. External data files lie beside it.
	Path string
	// Providers in order of preference, for example ["cuda","cpu"]. Empty means CPU.
	Providers []string
	// DeviceID selects the accelerator.
	DeviceID int
	// IntraOpThreads and InterOpThreads; 0 means 1.
	IntraOpThreads int
	InterOpThreads int
	// ArenaLimitBytes bounds the allocation arena; 0 means unbounded.
	ArenaLimitBytes int64
	// OptimizedModelPath, when set, is where the graph-optimised model is kept between loads.
	OptimizedModelPath string
	// Strict makes a missing provider an error instead of a logged fallback.
	Strict bool
}

// Engine loads models. It is safe for concurrent use.
type Engine interface {
	// Name and version, such as "onnxruntime 1.30.0".
	Name() string
	// Load reads the model and prepares it for running. Errors are faults
	// (fault.ModelInvalid) whose text says what is wrong with the file.
	Load(ctx context.Context, spec LoadSpec) (Session, error)
}

// Session is one loaded model.
type Session interface {
	Inputs() []Info
	Outputs() []Info
	// Run executes the model once. in must hold every input, in the order of Inputs, with
	// concrete shapes. outputs names the wanted outputs; empty means all. The returned tensors
	// own their Data until release is called. Cancelling ctx terminates the run as soon as the engine can.
	Run(ctx context.Context, in []Tensor, outputs []string) (out []Tensor, release func(), err error)
	// Provider is the execution provider really in use.
	Provider() string
	Close() error
}
