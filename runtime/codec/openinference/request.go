package openinference

import (
	"strings"
	"time"

	"github.com/sluice-gateway/sluice/internal/fault"
	"github.com/sluice-gateway/sluice/runtime/codec"
	"github.com/sluice-gateway/sluice/runtime/engine"
	"github.com/sluice-gateway/sluice/runtime/repo"
)

// Limits of one request, beyond the size of its body.
const (
	maxInputs  = 1024
	maxOutputs = 1024
	maxRank    = 32
)

// Model is what decoding needs to know of a model.
type Model struct {
	*repo.Meta
	// Pictures maps names under which a BYTES tensor of encoded pictures is accepted to the index of the input
	// that is made from it. May be nil.
	Pictures map[string]int
}

// Output is one requested output.
type Output struct {
	// Index in the model's outputs.
	Index  int
	Binary bool
	// Classes is the number of classes asked for; 0 means the tensor itself.
	Classes int
}

// Request is a decoded infer request.
type Request struct {
	// ID aliases memory of the request.
	ID []byte
	// Inputs in the model's order.
	Inputs []engine.Tensor
	// Picture tells for each input that it holds encoded pictures (BYTES) instead of the tensor.
	Picture []bool
	// Rows of the batch; 1 for a model without batching.
	Rows int
	// Outputs in the order asked for; empty means all.
	Outputs []Output
	// Names of Outputs.
	Names []string
	// BinaryOutput is binary_data_output; it counts when Outputs is empty.
	BinaryOutput bool
	Priority     int
	Timeout      time.Duration

	scan   codec.Scanner
	given  []input
	order  []int // model input index -> index in given, or -1
	buf    []byte
	dims   []int64
	idMem  []byte
	seen   member
	header bool // the body has a binary part, or may have
}

type member uint8

const (
	seenID member = 1 << iota
	seenParameters
	seenInputs
	seenOutputs
)

// input is one input as it was given.
type input struct {
	index    int // in the model, -1 unknown
	name     string
	typ      engine.DataType
	shape    []int64
	data     []byte
	dataAt   int // where data starts in the text when it could not be read at once; -1
	binary   int64
	hasData  bool
	hasShape bool
	picture  bool
}

// Reset forgets everything but the memory.
func (r *Request) Reset() {
	clear(r.Inputs) // they may alias a large body
	clear(r.given)

	*r = Request{
		Inputs: r.Inputs[:0], Picture: r.Picture[:0], Outputs: r.Outputs[:0], Names: r.Names[:0],
		scan: r.scan, given: r.given[:0], order: r.order[:0], buf: r.buf[:0], dims: r.dims[:0], idMem: r.idMem[:0],
	}
}

// Memory is how many bytes of buffers the Request holds, for pools that cap what they keep.
func (r *Request) Memory() int { return cap(r.buf) + cap(r.idMem) + 8*cap(r.dims) }

// Decode reads a body. headerLen is the value of Inference-Header-Content-Length, -1 without it, and 0 for a raw binary request.
func (r *Request) Decode(m *Model, body []byte, headerLen int) error {
	r.Reset()

	if headerLen == 0 {
		return r.raw(m, body)
	}

	text := body
	r.header = headerLen > 0

	if r.header {
		if headerLen > len(body) {
			return fault.New(fault.InvalidArgument,
				"inference header size should be in range (0, %d), got: %d", len(body), headerLen)
		}

		text = body[:headerLen]
	}

	r.scan.Reset(text)

	if err := r.top(m); err != nil {
		return parseError(err)
	}

	if err := r.binary(m, body[len(text):]); err != nil {
		return err
	}

	return r.bind(m)
}

// parseError gives errors of the JSON text the words that clients of Triton know.
func parseError(err error) error {
	if f := fault.From(err); f.Code == fault.BadJSON {
		return fault.New(fault.BadJSON, "failed to parse the request JSON buffer: %s", f.Message())
	}

	return err
}

func (r *Request) top(m *Model) error {
	s := &r.scan
	if err := s.BeginObject(); err != nil {
		return err
	}

	for {
		key, more, err := s.NextKey()
		if err != nil {
			return err
		}

		if !more {
			break
		}

		switch string(key) {
		case "id":
			err = r.once(seenID, "id", r.id)
		case "parameters":
			err = r.once(seenParameters, "parameters", r.parameters)
		case "inputs":
			err = r.once(seenInputs, "inputs", func() error { return r.inputs(m) })
		case "outputs":
			err = r.once(seenOutputs, "outputs", func() error { return r.outputs(m) })
		default:
			err = s.Skip()
		}

		if err != nil {
			return err
		}
	}

	if r.seen&seenInputs == 0 {
		return fault.New(fault.InvalidArgument, "Unable to parse 'inputs': attempt to access JSON non-existing member 'inputs'")
	}

	return s.End()
}

func (r *Request) once(bit member, name string, read func() error) error {
	if r.seen&bit != 0 {
		return fault.New(fault.InvalidArgument, "'%s' is given twice", name)
	}

	r.seen |= bit

	return read()
}

func (r *Request) id() error {
	if r.scan.Peek() != '"' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'id': it must be a string")
	}

	id, err := r.scan.String()
	r.idMem = append(r.idMem[:0], id...)
	r.ID = r.idMem

	return err
}

func (r *Request) parameters() error {
	s := &r.scan
	if s.Peek() != '{' {
		return fault.New(fault.InvalidArgument, "Unable to parse 'parameters': it must be an object")
	}

	if err := s.BeginObject(); err != nil {
		return err
	}

	for {
		key, more, err := s.NextKey()
		if err != nil || !more {
			return err
		}

		switch string(key) {
		case "binary_data_output":
			r.BinaryOutput, err = boolParam(s, "binary_data_output")
		case "priority":
			var v uint64
			v, err = uintParam(s, "priority", 1<<31-1)
			r.Priority = int(v)
		case "timeout":
			var v uint64
			v, err = uintParam(s, "timeout", 1<<53)
			r.Timeout = time.Duration(v) * time.Microsecond
		default:
			err = customParam(s, key)
		}

		if err != nil {
			return err
		}
	}
}

// customParam accepts and drops a parameter that means nothing to this server.
func customParam(s *codec.Scanner, key []byte) error {
	if strings.HasPrefix(string(key), "triton_") {
		return fault.New(fault.InvalidArgument,
			"parameter keys starting with 'triton_' are reserved for Triton usage and should not be specified.")
	}

	if c := s.Peek(); c == '{' || c == '[' {
		return fault.New(fault.InvalidArgument,
			"parameter '%s' has invalid type. It should be either 'int', 'bool', 'string' or 'double'.", clip(key))
	}

	return s.Skip()
}

func boolParam(s *codec.Scanner, name string) (bool, error) {
	if c := s.Peek(); c != 't' && c != 'f' {
		return false, fault.New(fault.InvalidArgument, "parameter '%s' must be true or false", name)
	}

	return s.Bool()
}

func uintParam(s *codec.Scanner, name string, most uint64) (uint64, error) {
	v, err := s.Uint64()
	if err != nil || v > most {
		return 0, fault.New(fault.InvalidArgument, "parameter '%s' must be an integer from 0 to %d", name, most)
	}

	return v, nil
}

// clip bounds a name that a client made up, for messages.
func clip(b []byte) string {
	const most = 64
	if len(b) > most {
		return strings.ToValidUTF8(string(b[:most]), "") + "..."
	}

	return string(b)
}
